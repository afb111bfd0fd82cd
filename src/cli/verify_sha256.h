// SHA-256 (FIPS 180-4), by OpenSSL: what download pages give beside a model.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "base/files.h"

struct evp_md_ctx_st;

namespace rung::cli {

class Sha256 {
 public:
  Sha256();  // throws Error(kFailed) where the system's OpenSSL has no SHA-256
  void Add(std::span<const std::byte> bytes);
  std::string Hex();  // 64 lower-case digits; nothing may be added afterwards

 private:
  struct Free {
    void operator()(evp_md_ctx_st* context) const;
  };
  std::unique_ptr<evp_md_ctx_st, Free> context_;
};

// Of a whole file, a few megabytes at a time. on_bytes: called with what was read since its last call;
// returns false to stop, which throws Error(kInterrupted).
Result<std::string> Sha256OfFile(const Path& path, const std::function<bool(uint64_t bytes)>& on_bytes);

}  // namespace rung::cli
