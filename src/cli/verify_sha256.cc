#include "cli/verify_sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <vector>

namespace rung::cli {
namespace {

constexpr size_t kChunk = size_t{4} << 20;

void Expect(bool done) {
  if (!done) throw Error(ExitCode::kFailed, "SHA-256: this system's OpenSSL refuses it; use --no-checksums");
}

}  // namespace

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  Expect(context_ && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1);
}

void Sha256::Add(std::span<const std::byte> bytes) {
  Expect(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1);
}

std::string Sha256::Hex() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  Expect(EVP_DigestFinal_ex(context_.get(), digest.data(), &size) == 1);
  std::string hex;
  for (unsigned i = 0; i < size; ++i) hex += fmt::format("{:02x}", digest[i]);
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

}  // namespace rung::cli
