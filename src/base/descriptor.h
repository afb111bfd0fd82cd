// Whole reads and writes on an open file, whatever part of them a call of the system does at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "base/files.h"
#include "base/result.h"

namespace rung {

// "<what> <path>: <the reason in errno>"
Failure SystemFailure(std::string_view what, const Path& path, ExitCode code = ExitCode::kFailed);

// All of `into` from `offset` on; a file that ends before is a failure. `path` stands in messages.
Status ReadAll(int descriptor, uint64_t offset, std::span<std::byte> into, const Path& path, ExitCode code);
// All of `bytes`, through Files(). Failures are kFailed.
Status WriteAll(int descriptor, uint64_t offset, std::span<const std::byte> bytes, const Path& path);

}  // namespace rung
