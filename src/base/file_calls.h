// Every call of the system that changes a run's folder, as a table: a test puts in calls that fail, write
// less than they were given, or kill the process.
#pragma once

#include <sys/types.h>

#include <cstddef>

namespace rung {

// As in the manual pages: a negative result, and the reason in errno.
struct FileCalls {
  int (*open)(const char* path, int flags, mode_t mode);
  ssize_t (*pwrite)(int descriptor, const void* bytes, size_t count, off_t offset);
  int (*ftruncate)(int descriptor, off_t length);
  int (*fsync)(int descriptor);
  int (*rename)(const char* from, const char* to);
  int (*exchange)(const char* a, const char* b);  // renameat2 with RENAME_EXCHANGE
  int (*unlink)(const char* path);
  int (*rmdir)(const char* path);
  int (*mkdir)(const char* path, mode_t mode);
  unsigned (*sleep)(unsigned seconds);  // before what a disk refused is tried again

  static const FileCalls& System();
};

// The table in use: the system's, unless a FileCallsScope is alive.
const FileCalls& Files();

// For tests. `calls` must outlive the scope; made and ended while no other thread writes files.
class FileCallsScope {
 public:
  explicit FileCallsScope(const FileCalls& calls);
  ~FileCallsScope();
  FileCallsScope(const FileCallsScope&) = delete;
  FileCallsScope& operator=(const FileCallsScope&) = delete;

 private:
  const FileCalls* before_;
};

}  // namespace rung
