// Files: reading whole or by mapping, and writing so that no crash leaves half a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "base/result.h"

namespace rung {

using Path = std::filesystem::path;

// A read-only mapping of a whole file. Movable; views into it die with it.
class MappedFile {
 public:
  static Result<MappedFile> Open(const Path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();

  std::span<const std::byte> bytes() const { return {data_, size_}; }
  const Path& path() const { return path_; }

 private:
  MappedFile(Path path, const std::byte* data, size_t size)
      : path_(std::move(path)), data_(data), size_(size) {}
  Path path_;
  const std::byte* data_ = nullptr;  // nullptr for an empty file
  size_t size_ = 0;
};

// A file read piece by piece at explicit offsets: nothing of it stays resident.
class RandomAccessFile {
 public:
  static Result<RandomAccessFile> Open(const Path& path);

  RandomAccessFile(RandomAccessFile&& other) noexcept;
  RandomAccessFile& operator=(RandomAccessFile&& other) noexcept;
  ~RandomAccessFile();

  Status Read(uint64_t offset, std::span<std::byte> into) const;  // all of `into`, or a failure
  uint64_t size() const { return size_; }
  const Path& path() const { return path_; }

 private:
  RandomAccessFile(Path path, int descriptor, uint64_t size)
      : path_(std::move(path)), descriptor_(descriptor), size_(size) {}
  Path path_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

// The whole file as text. Larger than `limit` bytes is a failure: a config or tokenizer of
// gigabytes is a mistake, and reading it would take the machine down.
Result<std::string> ReadTextFile(const Path& path, uint64_t limit);

// Written to `temporary` (`<path>.tmp` unless named; in the same folder), fsynced, then renamed over `path`,
// and the folder fsynced: after a crash there is the old file or the new one, never a mixture. Without Commit
// the temporary file is removed. While one process writes it, a second one is refused.
class AtomicFile {
 public:
  static Result<AtomicFile> Create(const Path& path, Path temporary = {});
  static Path TemporaryOf(const Path& path);  // the name that is taken where Create is given none

  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile& operator=(AtomicFile&&) = delete;
  ~AtomicFile();

  Status Append(std::span<const std::byte> bytes);
  Status Append(std::string_view text);
  Status WriteAt(uint64_t offset, std::span<const std::byte> bytes);
  Status Commit();
  const Path& temporary() const { return temporary_; }  // what Commit renames

 private:
  AtomicFile(Path path, Path temporary, int descriptor)
      : path_(std::move(path)), temporary_(std::move(temporary)), descriptor_(descriptor) {}
  Path path_, temporary_;
  int descriptor_ = -1;
  uint64_t end_ = 0;  // where Append writes
};

// Makes renames inside the folder durable.
Status SyncFolder(const Path& folder);

Status WriteTextFile(const Path& path, std::string_view text);  // atomically

}  // namespace rung
