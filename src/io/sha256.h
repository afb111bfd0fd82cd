// SHA-256 (FIPS 180-4) by OpenSSL, for keys and checksums.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/files.h"
#include "base/result.h"

struct evp_md_ctx_st;

namespace rung::io {

class Sha256 {
 public:
  Sha256();  // throws Error when the system's OpenSSL refuses
  void Add(std::span<const std::byte> bytes);
  void Add(std::string_view text) { Add(std::as_bytes(std::span(text.data(), text.size()))); }
  std::array<std::byte, 32> Bytes();  // once, and then no more
  std::string Hex();                  // the same as 64 digits

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

std::string HexOf(std::span<const std::byte> bytes);
// Of a whole file, as 64 hex digits. on_bytes: told what was read since its last call; false throws
// Error(kInterrupted).
Result<std::string> Sha256OfFile(const Path& path,
                                 const std::function<bool(uint64_t bytes)>& on_bytes = nullptr);

}  // namespace rung::io
