// For tests: a disk that fails at the n-th call, and the death of the process in the midst of one.
#pragma once

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstring>

#include "base/file_calls.h"

namespace rung {

enum class Fault : uint8_t {
  kNone,
  kKill,        // SIGKILL instead of the call; of a write, after half of it
  kFail,        // the call fails with `error`
  kShortWrite,  // a write writes half of what it was given; other calls are done
};

struct FaultPlan {
  Fault fault = Fault::kNone;
  int64_t first = 0, count = 1;  // calls that it meets, counted from 0
  int error = EIO;
  const char* only = "";        // the calls of this name alone, and they alone are counted; empty: all
  bool exchanges = true;        // false: as file systems that cannot exchange two names
  int64_t seconds = INT64_MAX;  // that must be slept until no call fails any more
};

// Puts itself in the place of the system's calls. One within another: the inner plan counts.
class FileFaults {
 public:
  explicit FileFaults(const FaultPlan& plan) : before_(plan_), scope_(kCalls) {
    plan_ = plan;
    calls_ = slept_ = 0;
  }
  ~FileFaults() { plan_ = before_; }
  FileFaults(const FileFaults&) = delete;
  FileFaults& operator=(const FileFaults&) = delete;
  static int64_t calls() { return calls_; }  // so far
  static int64_t slept() { return slept_; }  // seconds that nobody had to wait

 private:
  static bool Hit(const char* name, Fault fault) {
    if (*plan_.only != '\0' && std::strcmp(plan_.only, name) != 0) return false;
    if (fault != plan_.fault || slept_ >= plan_.seconds) return false;
    return calls_ > plan_.first && calls_ <= plan_.first + plan_.count;
  }
  // Whether the call fails; counts it.
  static bool Fails(const char* name) {
    if (*plan_.only == '\0' || std::strcmp(plan_.only, name) == 0) ++calls_;
    if (Hit(name, Fault::kKill) && std::strcmp(name, "pwrite") != 0) std::raise(SIGKILL);
    if (!Hit(name, Fault::kFail)) return false;
    errno = plan_.error;
    return true;
  }
  static int Open(const char* path, int flags, mode_t mode) {
    return Fails("open") ? -1 : FileCalls::System().open(path, flags, mode);
  }
  static ssize_t Write(int descriptor, const void* bytes, size_t count, off_t offset) {
    if (Fails("pwrite")) return -1;
    const bool half = count > 1 && (Hit("pwrite", Fault::kKill) || Hit("pwrite", Fault::kShortWrite));
    const ssize_t n = FileCalls::System().pwrite(descriptor, bytes, half ? count / 2 : count, offset);
    if (Hit("pwrite", Fault::kKill)) std::raise(SIGKILL);
    return n;
  }
  static int Truncate(int descriptor, off_t length) {
    return Fails("ftruncate") ? -1 : FileCalls::System().ftruncate(descriptor, length);
  }
  // The death of a process loses nothing that the system holds: no test can see a real one, only wait for it.
  static int Sync(int) { return Fails("fsync") ? -1 : 0; }
  static int Rename(const char* from, const char* to) {
    return Fails("rename") ? -1 : FileCalls::System().rename(from, to);
  }
  static int Exchange(const char* a, const char* b) {
    if (!plan_.exchanges) errno = EINVAL;
    return !plan_.exchanges || Fails("exchange") ? -1 : FileCalls::System().exchange(a, b);
  }
  static int Unlink(const char* path) { return Fails("unlink") ? -1 : FileCalls::System().unlink(path); }
  static int RemoveEmpty(const char* path) { return Fails("rmdir") ? -1 : FileCalls::System().rmdir(path); }
  static int Make(const char* path, mode_t mode) {
    return Fails("mkdir") ? -1 : FileCalls::System().mkdir(path, mode);
  }
  static unsigned Sleep(unsigned seconds) {
    slept_ += seconds;
    return 0;
  }

  static constexpr FileCalls kCalls = {Open,     Write,  Truncate,    Sync, Rename,
                                       Exchange, Unlink, RemoveEmpty, Make, Sleep};
  inline static FaultPlan plan_;
  inline static int64_t calls_ = 0, slept_ = 0;
  FaultPlan before_;
  FileCallsScope scope_;
};

}  // namespace rung
