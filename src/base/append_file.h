// A file that grows by whole pieces: a log's lines, records of events.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/files.h"

namespace rung {

// One writer a file. Movable.
class AppendFile {
 public:
  // Made when it is not there; what it holds stays.
  static Result<AppendFile> Open(const Path& path);

  AppendFile(AppendFile&& other) noexcept;
  AppendFile& operator=(AppendFile&&) = delete;
  ~AppendFile();

  // The whole piece or, after a failure, nothing of it: the next piece takes its place. Not synced.
  Status Append(std::string_view piece);
  // Makes what was appended durable.
  Status Sync();

  uint64_t size() const { return end_; }
  const Path& path() const { return path_; }

 private:
  AppendFile(Path path, int descriptor, uint64_t end)
      : path_(std::move(path)), descriptor_(descriptor), end_(end) {}
  Path path_;
  int descriptor_ = -1;
  uint64_t end_ = 0;  // of the last whole piece
};

}  // namespace rung
