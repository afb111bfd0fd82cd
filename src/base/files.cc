#include "base/files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace rung {
namespace {

Failure SystemFailure(const char* what, const Path& path, ExitCode code) {
  return Failure{fmt::format("{} {}: {}", what, path.string(), std::strerror(errno)), code};
}

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

Status WriteAll(int descriptor, uint64_t offset, std::span<const std::byte> bytes, const Path& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(descriptor, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return SystemFailure("cannot write", path, ExitCode::kFailed);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return Ok{};
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
  while (!into.empty()) {
    const ssize_t n = ::pread(descriptor_, into.data(), into.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return SystemFailure("cannot read", path_, ExitCode::kBadInput);
    if (n == 0) {
      return Failure{
          fmt::format("{}: file ends at byte {}, {} more were expected", path_.string(), offset, into.size()),
          ExitCode::kBadInput};
    }
    into = into.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return Ok{};
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

Result<AtomicFile> AtomicFile::Create(const Path& path) {
  Path temporary = path;
  temporary += ".tmp";
  const int descriptor = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor < 0) return SystemFailure("cannot create", temporary, ExitCode::kFailed);
  return AtomicFile(path, std::move(temporary), descriptor);
}

AtomicFile::AtomicFile(AtomicFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_(std::move(other.temporary_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      end_(other.end_) {}

AtomicFile::~AtomicFile() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(temporary_.c_str());
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
  if (::fsync(descriptor_) != 0) return SystemFailure("cannot sync", temporary_, ExitCode::kFailed);
  ::close(std::exchange(descriptor_, -1));
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) {
    Failure failure = SystemFailure("cannot rename to", path_, ExitCode::kFailed);
    ::unlink(temporary_.c_str());
    return failure;
  }
  return SyncFolder(path_.parent_path());
}

Status SyncFolder(const Path& given) {
  const Path folder = given.empty() ? Path(".") : given;
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0 || ::fsync(descriptor) != 0) {
    Failure failure = SystemFailure("cannot sync folder", folder, ExitCode::kFailed);
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
