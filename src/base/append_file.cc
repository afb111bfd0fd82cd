#include "base/append_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <span>
#include <utility>

#include "base/descriptor.h"
#include "base/file_calls.h"

namespace rung {

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
  if (Status written = WriteAll(descriptor_, end_, std::as_bytes(std::span(piece)), path_); !written.ok()) {
    // Where this fails too, the next piece still begins here and covers what is left of this one.
    [[maybe_unused]] const int cut = Files().ftruncate(descriptor_, static_cast<off_t>(end_));
    return written;
  }
  end_ += piece.size();
  return Ok{};
}

Status AppendFile::Sync() {
  if (Files().fsync(descriptor_) != 0) return SystemFailure("cannot sync", path_);
  return Ok{};
}

}  // namespace rung
