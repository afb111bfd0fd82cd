// Encodes texts for a script: bench/compare_tokenizers.py and tools/make_tokenizer_hashes.py compare what
// comes back with the `tokenizers` package.
//
//   tokenize FOLDER_OR_FILE     a folder, a tokenizer.json or a .gguf file
//
// Standard input: requests of a byte (0 plain, 1 with special tokens, 2 decode), the size in bytes (u32) and
// the text, or for 2 the ids (i32). Standard output: for each the nanoseconds that encoding took (u64), the
// number of ids (u32) and the ids (i32), or for 2 the nanoseconds, the size and the text. All little-endian.
#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "io/gguf.h"
#include "text/tokenizer.h"

namespace {

rung::Result<rung::text::Tokenizer> Load(const rung::Path& path) {
  if (std::filesystem::is_directory(path)) return rung::text::Tokenizer::FromFolder(path);
  if (path.extension() == ".gguf") {
    const auto gguf = rung::io::Gguf::Open(path);
    if (!gguf.ok()) return gguf.failure();
    return rung::text::Tokenizer::FromGguf(gguf.value());
  }
  const auto text = rung::ReadTextFile(path, uint64_t{128} << 20);
  if (!text.ok()) return text.failure();
  return rung::text::Tokenizer::FromJson(text.value(), path.string());
}

bool Read(void* to, size_t size) { return size == 0 || std::fread(to, size, 1, stdin) == 1; }

void Write(const void* from, size_t size) {
  if (size > 0) std::fwrite(from, size, 1, stdout);
}

void Reply(std::chrono::steady_clock::time_point begin, size_t count, const void* data, size_t bytes) {
  const uint64_t ns = static_cast<uint64_t>((std::chrono::steady_clock::now() - begin).count());
  const auto size = static_cast<uint32_t>(count);
  Write(&ns, sizeof ns);
  Write(&size, sizeof size);
  Write(data, bytes);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: tokenize FOLDER_OR_FILE\n");
    return 2;
  }
  const auto tokenizer = Load(argv[1]);
  if (!tokenizer.ok()) {
    fmt::print(stderr, "{}\n", tokenizer.failure().message);
    return 1;
  }
  uint8_t what = 0;
  uint32_t size = 0;
  std::string text;
  while (Read(&what, sizeof what) && Read(&size, sizeof size)) {
    text.resize(size);
    if (!Read(text.data(), size)) return 1;
    if (what == 2) {
      std::vector<int32_t> ids(size / sizeof(int32_t));
      text.copy(reinterpret_cast<char*>(ids.data()), ids.size() * sizeof(int32_t));
      const auto begin = std::chrono::steady_clock::now();
      const std::string decoded = tokenizer.value().Decode(ids, false);
      Reply(begin, decoded.size(), decoded.data(), decoded.size());
      continue;
    }
    const auto begin = std::chrono::steady_clock::now();
    const std::vector<int32_t> ids =
        what == 1 ? tokenizer.value().EncodeWithSpecials(text) : tokenizer.value().Encode(text);
    Reply(begin, ids.size(), ids.data(), ids.size() * sizeof(int32_t));
  }
  return 0;
}
