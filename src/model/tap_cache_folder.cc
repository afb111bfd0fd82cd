#include "model/tap_cache_folder.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "base/folders.h"
#include "base/text.h"

namespace rung::model {
namespace {

constexpr size_t kNameDigits = 16;
constexpr const char *kLock = "lock", *kFiles[] = {"index", "taps"};

// A link is not followed: what it names is not the cache's.
uint64_t BytesOnDisk(const Path& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0 || !S_ISREG(info.st_mode)) return 0;
  return static_cast<uint64_t>(info.st_blocks) * 512;
}

bool IsCacheName(std::string_view name) {
  return name.size() == kNameDigits && name.find_first_not_of("0123456789abcdef") == name.npos;
}

// That a run made it: what only has the name of one may be anybody's.
bool IsCache(const Path& folder) {
  struct stat info {};
  if (!IsCacheName(folder.filename().string())) return false;
  if (::lstat(folder.c_str(), &info) != 0 || !S_ISDIR(info.st_mode)) return false;
  const int index = ::open((folder / kFiles[0]).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (index < 0) return false;
  char magic[kTapCacheMagic.size()];
  const ssize_t got = ::read(index, magic, sizeof magic);
  ::close(index);
  return got == ssize_t{sizeof magic} && std::string_view(magic, sizeof magic) == kTapCacheMagic;
}

int OpenLock(const Path& folder) { return ::open((folder / kLock).c_str(), O_RDWR | O_NOFOLLOW | O_CLOEXEC); }

// The file that `lock` is open on still stands under its name.
bool StandsAt(int lock, const Path& path) {
  struct stat open {};
  struct stat named {};
  return ::fstat(lock, &open) == 0 && ::stat(path.c_str(), &named) == 0 && open.st_ino == named.st_ino &&
         open.st_dev == named.st_dev;
}

// All but `own`, of which nothing is wanted here.
std::vector<Evictable> CachesIn(const Path& dir, const Path& own) {
  std::vector<Evictable> caches;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(dir, error)) {
    if (entry.path() == own || !IsCache(entry.path())) continue;
    const auto used = std::filesystem::last_write_time(entry.path() / kLock, error);
    if (!error) caches.push_back({entry.path(), TapCacheBytes(entry.path()), used});
  }
  return caches;
}

uint64_t Sum(const std::vector<Evictable>& caches) {
  uint64_t sum = 0;
  for (const Evictable& cache : caches) sum += cache.bytes;
  return sum;
}

// Those that no run holds. While one is looked at a run that begins would be refused it: hence only where
// room is short.
std::vector<Evictable> Idle(const std::vector<Evictable>& caches) {
  std::vector<Evictable> idle;
  for (const Evictable& cache : caches) {
    const int lock = OpenLock(cache.path);
    if (lock < 0) continue;
    if (::flock(lock, LOCK_SH | LOCK_NB) == 0) idle.push_back(cache);
    ::close(lock);
  }
  return idle;
}

bool Remove(const Path& folder) {
  const int lock = OpenLock(folder);
  if (lock < 0) return false;
  // Another run may have removed the cache meanwhile, and a third one have made it again.
  const bool held =
      ::flock(lock, LOCK_EX | LOCK_NB) == 0 && StandsAt(lock, folder / kLock) && IsCache(folder);
  if (held) {
    for (const char* file : kFiles) ::unlink((folder / file).c_str());
    ::unlink((folder / kLock).c_str());  // whoever waits for this one takes another: LockTapCache
    ::rmdir(folder.c_str());
  }
  ::close(lock);
  return held && TapCacheBytes(folder) == 0;
}

// What `need` lacks of the limit and of the disk, beside `others`.
struct Excess {
  uint64_t limit = 0, disk = 0;
};

Failure InUse(const Path& dir, uint64_t need, uint64_t used, uint64_t limit) {
  return UsageFailure(
      fmt::format("tap cache {}: {} needed, caches that other runs use take {}, the limit is {}: wait for "
                  "those runs to end, raise --tap-cache-limit, or give this one a folder of its own",
                  dir.string(), FormatBytes(need), FormatBytes(used), FormatBytes(limit)));
}

Status CheckExcess(const Path& dir, const std::vector<Evictable>& others, uint64_t need, uint64_t limit,
                   uint64_t available, Excess* excess) {
  if (need > limit) {
    return UsageFailure(
        fmt::format("tap cache: {} ({} bytes) needed, the limit is {} ({} bytes): raise the limit, "
                    "store fewer or smaller taps, or train without the cache",
                    FormatBytes(need), need, FormatBytes(limit), limit));
  }
  const uint64_t taken = Sum(others);
  *excess = {taken > limit - need ? taken - (limit - need) : 0, need > available ? need - available : 0};
  if (excess->limit == 0 && excess->disk == 0) return Ok{};
  const uint64_t idle = Sum(Idle(others));
  if (excess->limit > idle) return InUse(dir, need, taken - idle, limit);
  if (excess->disk > idle) return NoDiskSpace(dir, need, available + idle);
  return Ok{};
}

uint64_t SaturatingSum(uint64_t a, uint64_t b) { return a > ~uint64_t{0} - b ? ~uint64_t{0} : a + b; }

// What an older cache in `own` occupies serves the one that is made, kept or discarded.
uint64_t Available(const Path& dir, const Path& own) {
  const uint64_t free = FreeBytes(dir).value_or(~uint64_t{0});
  return own.empty() ? free : SaturatingSum(free, TapCacheBytes(own));
}

}  // namespace

uint64_t TapCacheBytes(const Path& folder) {
  uint64_t bytes = 0;
  for (const char* file : kFiles) bytes += BytesOnDisk(folder / file);
  return bytes;
}

Failure NoDiskSpace(const Path& folder, uint64_t need, uint64_t available) {
  return Failure{
      fmt::format("tap cache {}: {} ({} bytes) needed, the disk has {} ({} bytes) free: free space "
                  "on it, put the cache on another disk, or train without it",
                  folder.string(), FormatBytes(need), need, FormatBytes(available), available),
      ExitCode::kFailed};
}

Result<int> LockTapCache(const Path& folder) {
  const Path path = folder / kLock;
  const auto failed = [&](const char* what) {
    return Failure{fmt::format("cannot {} the tap cache's {}: {}", what, path.string(), std::strerror(errno)),
                   ExitCode::kFailed};
  };
  std::error_code error;
  std::filesystem::create_directories(folder.parent_path(), error);
  // Another run may remove the cache between the steps, but no run does so again and again.
  for (int attempts = 16; attempts > 0; --attempts) {
    if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST) {
      return Failure{fmt::format("cannot create the folder of the tap cache, {}: {}: name a folder that can "
                                 "be written, or train without the cache",
                                 folder.string(), std::strerror(errno)),
                     ExitCode::kFailed};
    }
    const int lock = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (lock < 0 && errno == ENOENT) continue;
    if (lock < 0) return failed("write");
    if (::flock(lock, LOCK_EX | LOCK_NB) != 0) {
      const int reason = errno;
      ::close(lock);
      errno = reason;
      if (reason != EWOULDBLOCK) return failed("lock");
      return UsageFailure(
          fmt::format("tap cache {}: another run uses it: wait for that run to end, or give this "
                      "one a folder of its own",
                      folder.string()));
    }
    if (StandsAt(lock, path)) {
      ::futimens(lock, nullptr);
      return lock;
    }
    ::close(lock);
  }
  errno = ENOENT;
  return failed("keep");
}

Status CheckTapCacheRoom(const Path& dir, const Path& own, uint64_t need, uint64_t limit) {
  Excess excess;
  return CheckExcess(dir, CachesIn(dir, own), need, limit, Available(dir, own), &excess);
}

Result<Evicted> MakeTapCacheRoom(const Path& dir, const Path& own, uint64_t need, uint64_t limit) {
  const std::vector<Evictable> others = CachesIn(dir, own);
  Excess excess;
  const uint64_t available = Available(dir, own);
  if (Status room = CheckExcess(dir, others, need, limit, available, &excess); !room.ok())
    return room.failure();
  const Evicted evicted = EvictOldest(others, std::max(excess.limit, excess.disk), Remove);
  // Other runs may have taken meanwhile what nobody used.
  if (evicted.bytes < excess.limit) return InUse(dir, need, Sum(others) - evicted.bytes, limit);
  if (evicted.bytes < excess.disk) return NoDiskSpace(dir, need, available + evicted.bytes);
  return evicted;
}

}  // namespace rung::model
