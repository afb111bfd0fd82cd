#include "base/append_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/file_calls.h"

namespace rung {
namespace {

Failure SystemFailure(const char* what, const Path& path) {
  return Failure{fmt::format("{} {}: {}", what, path.string(), std::strerror(errno)), ExitCode::kFailed};
}

}  // namespace

Result<AppendFile> AppendFile::Open(const Path& path) {
  const int descriptor = Files().open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor < 0) return SystemFailure("cannot write", path);
  struct stat info {};
  if (::fstat(descriptor, &info) != 0) {
    Failure failure = SystemFailure("cannot read the size of", path);
    ::close(descriptor);
    return failure;
  }
  return AppendFile(path, descriptor, static_cast<uint64_t>(info.st_size));
}

AppendFile::AppendFile(AppendFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), end_(other.end_) {}

AppendFile::~AppendFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Status AppendFile::Append(std::string_view piece) {
  for (size_t done = 0; done < piece.size();) {
    const ssize_t n = Files().pwrite(descriptor_, piece.data() + done, piece.size() - done,
                                     static_cast<off_t>(end_ + done));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      Failure failure = SystemFailure("cannot write", path_);
      // Where this fails too, the next piece still begins here and covers what is left of this one.
      [[maybe_unused]] const int cut = Files().ftruncate(descriptor_, static_cast<off_t>(end_));
      return failure;
    }
    done += static_cast<size_t>(n);
  }
  end_ += piece.size();
  return Ok{};
}

Status AppendFile::Sync() {
  if (Files().fsync(descriptor_) != 0) return SystemFailure("cannot sync", path_);
  return Ok{};
}

}  // namespace rung
