// SHA-256 (FIPS 180-4) of files: what download pages give beside a model.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/files.h"

namespace rung::cli {

class Sha256 {
 public:
  void Add(std::span<const std::byte> bytes);
  std::string Hex();  // 64 lower-case digits; nothing may be added afterwards

 private:
  void Block(const std::byte* bytes);

  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> rest_{};  // what does not fill a block yet
  uint64_t bytes_ = 0;
};

// Of a whole file, a few megabytes at a time. on_bytes: called with what was read since its last call;
// returns false to stop, which throws Error(kInterrupted).
Result<std::string> Sha256OfFile(const Path& path, const std::function<bool(uint64_t bytes)>& on_bytes);

}  // namespace rung::cli
