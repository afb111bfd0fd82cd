#include "base/descriptor.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file_calls.h"

namespace rung {

Failure SystemFailure(std::string_view what, const Path& path, ExitCode code) {
  return Failure{fmt::format("{} {}: {}", what, path.string(), std::strerror(errno)), code};
}

Status ReadAll(int descriptor, uint64_t offset, std::span<std::byte> into, const Path& path, ExitCode code) {
  while (!into.empty()) {
    const ssize_t n = ::pread(descriptor, into.data(), into.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemFailure("cannot read", path, code);
    if (n == 0) {
      return Failure{
          fmt::format("{}: file ends at byte {}, {} more were expected", path.string(), offset, into.size()),
          code};
    }
    into = into.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return Ok{};
}

Status WriteAll(int descriptor, uint64_t offset, std::span<const std::byte> bytes, const Path& path) {
  while (!bytes.empty()) {
    const ssize_t n = Files().pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = EIO;
    if (n <= 0) return SystemFailure("cannot write", path);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return Ok{};
}

}  // namespace rung
