#include "base/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/descriptor.h"
#include "base/file_calls.h"

namespace rung {
namespace {

struct OpenFile {
  int descriptor;
  uint64_t size;
};

Result<OpenFile> OpenForReading(const Path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) return SystemFailure("cannot open", path, ExitCode::kBadInput);
  struct stat info {};
  if (::fstat(descriptor, &info) != 0) {
    Failure failure = SystemFailure("cannot read the size of", path, ExitCode::kBadInput);
    ::close(descriptor);
    return failure;
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(descriptor);
    return Failure{fmt::format("cannot open {}: it is not a regular file", path.string()),
                   ExitCode::kBadInput};
  }
  return OpenFile{descriptor, static_cast<uint64_t>(info.st_size)};
}

// Whether `path` still names the open file.
bool Names(const Path& path, int descriptor) {
  struct stat by_name {
  }, open{};
  return ::stat(path.c_str(), &by_name) == 0 && ::fstat(descriptor, &open) == 0 &&
         by_name.st_dev == open.st_dev && by_name.st_ino == open.st_ino;
}

// An empty file that no other process is writing, or a failure. The name is fixed, so that what a killed
// process left is used again and does not pile up as it would under a name of each process; that it is
// nobody's is told by a lock, which ends with its process.
Result<int> OpenTemporary(const Path& path) {
  for (;;) {
    const int descriptor = Files().open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    if (descriptor < 0) return SystemFailure("cannot create", path);
    // File systems without locks give other errors: there the user must see to it.
    if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
      ::close(descriptor);
      return Failure{fmt::format("cannot create {}: another process is writing it", path.string()),
                     ExitCode::kFailed};
    }
    // Between opening and locking its writer may have renamed it to its final name.
    if (!Names(path, descriptor)) {
      ::close(descriptor);
      continue;
    }
    if (Files().ftruncate(descriptor, 0) == 0) return descriptor;
    Failure failure = SystemFailure("cannot create", path);
    Files().unlink(path.c_str());
    ::close(descriptor);
    return failure;
  }
}

}  // namespace

Result<MappedFile> MappedFile::Open(const Path& path) {
  Result<OpenFile> file = OpenForReading(path);
  if (!file.ok()) return file.failure();
  const auto [descriptor, size] = file.value();
  if (size == 0) {
    ::close(descriptor);
    return MappedFile(path, nullptr, 0);
  }
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, descriptor, 0);
  Failure failure = SystemFailure("cannot map", path, ExitCode::kBadInput);
  ::close(descriptor);  // the mapping keeps the file alive
  if (data == MAP_FAILED) return failure;
  return MappedFile(path, static_cast<const std::byte*>(data), size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

Result<RandomAccessFile> RandomAccessFile::Open(const Path& path) {
  Result<OpenFile> file = OpenForReading(path);
  if (!file.ok()) return file.failure();
  return RandomAccessFile(path, file.value().descriptor, file.value().size);
}

RandomAccessFile::RandomAccessFile(RandomAccessFile&& other) noexcept
    : path_(std::move(other.path_)), descriptor_(std::exchange(other.descriptor_, -1)), size_(other.size_) {}

RandomAccessFile& RandomAccessFile::operator=(RandomAccessFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(descriptor_, other.descriptor_);
  std::swap(size_, other.size_);
  return *this;
}

RandomAccessFile::~RandomAccessFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

Status RandomAccessFile::Read(uint64_t offset, std::span<std::byte> into) const {
  return ReadAll(descriptor_, offset, into, path_, ExitCode::kBadInput);
}

Result<std::string> ReadTextFile(const Path& path, uint64_t limit) {
  Result<RandomAccessFile> file = RandomAccessFile::Open(path);
  if (!file.ok()) return file.failure();
  if (file.value().size() > limit) {
    return Failure{fmt::format("{}: {} bytes, the limit for this kind of file is {}", path.string(),
                               file.value().size(), limit),
                   ExitCode::kBadInput};
  }
  std::string text(file.value().size(), '\0');
  Status read = file.value().Read(0, std::as_writable_bytes(std::span(text)));
  if (!read.ok()) return read.failure();
  return text;
}

Path AtomicFile::TemporaryOf(const Path& path) {
  Path temporary = path;
  temporary += ".tmp";
  return temporary;
}

Result<AtomicFile> AtomicFile::Create(const Path& path, Path temporary) {
  if (temporary.empty()) temporary = TemporaryOf(path);
  Result<int> descriptor = OpenTemporary(temporary);
  if (!descriptor.ok()) return descriptor.failure();
  return AtomicFile(path, std::move(temporary), descriptor.value());
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      end_(other.end_) {}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  // Removed while it is locked: afterwards it may be another process's.
  Files().unlink(temporary_.c_str());
  ::close(descriptor_);
}

Status AtomicFile::Append(std::span<const std::byte> bytes) {
  Status status = WriteAll(descriptor_, end_, bytes, temporary_);
  if (status.ok()) end_ += bytes.size();
  return status;
}

Status AtomicFile::Append(std::string_view text) { return Append(std::as_bytes(std::span(text))); }

Status AtomicFile::WriteAt(uint64_t offset, std::span<const std::byte> bytes) {
  return WriteAll(descriptor_, offset, bytes, temporary_);
}

Status AtomicFile::Commit() {
  if (Files().fsync(descriptor_) != 0) return SystemFailure("cannot sync", temporary_);
  if (Files().rename(temporary_.c_str(), path_.c_str()) != 0) return SystemFailure("cannot rename to", path_);
  ::close(std::exchange(descriptor_, -1));
  return SyncFolder(path_.parent_path());
}

Status SyncFolder(const Path& given) {
  const Path folder = given.empty() ? Path(".") : given;
  const int descriptor = Files().open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
  if (descriptor < 0 || Files().fsync(descriptor) != 0) {
    Failure failure = SystemFailure("cannot sync folder", folder);
    if (descriptor >= 0) ::close(descriptor);
    return failure;
  }
  ::close(descriptor);
  return Ok{};
}

Status WriteTextFile(const Path& path, std::string_view text) {
  Result<AtomicFile> file = AtomicFile::Create(path);
  if (!file.ok()) return file.failure();
  AtomicFile out = std::move(file).value();
  if (Status status = out.Append(text); !status.ok()) return status;
  return out.Commit();
}

}  // namespace rung
