#include "io/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <vector>

namespace rung::io {
namespace {

constexpr size_t kChunk = size_t{1} << 20;

void Expect(bool done) {
  if (!done) throw Error(ExitCode::kFailed, "SHA-256: this system's OpenSSL refuses it");
}

}  // namespace

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  Expect(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256::Add(std::span<const std::byte> bytes) {
  Expect(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

std::array<std::byte, 32> Sha256::Bytes() {
  std::array<std::byte, 32> digest{};
  unsigned size = 0;
  Expect(EVP_DigestFinal_ex(context_.get(), reinterpret_cast<unsigned char*>(digest.data()), &size) == 1 &&
         size == digest.size());
  return digest;
}

std::string Sha256::Hex() { return HexOf(Bytes()); }

std::string HexOf(std::span<const std::byte> bytes) {
  std::string hex;
  for (const std::byte byte : bytes) hex += fmt::format("{:02x}", static_cast<unsigned>(byte));
  return hex;
}

Result<std::string> Sha256OfFile(const Path& path, const std::function<bool(uint64_t bytes)>& on_bytes) {
  Result<RandomAccessFile> opened = RandomAccessFile::Open(path);
  if (!opened.ok()) return opened.failure();
  const RandomAccessFile& file = opened.value();
  Sha256 sum;
  std::vector<std::byte> chunk;
  for (uint64_t begin = 0; begin < file.size(); begin += kChunk) {
    chunk.resize(static_cast<size_t>(std::min<uint64_t>(kChunk, file.size() - begin)));
    if (Status read = file.Read(begin, chunk); !read.ok()) return read.failure();
    sum.Add(chunk);
    if (on_bytes && !on_bytes(chunk.size())) throw Error(ExitCode::kInterrupted, "interrupted");
  }
  return sum.Hex();
}

}  // namespace rung::io
