// The folder that tap caches share: locks, and the room for one more.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/evict.h"
#include "base/files.h"
#include "base/result.h"

namespace rung::model {

// The first bytes of a cache's index.
inline constexpr std::string_view kTapCacheMagic = "RUNGTAPS";

// What the files of a cache take of the disk.
uint64_t TapCacheBytes(const Path& folder);
Failure NoDiskSpace(const Path& folder, uint64_t need, uint64_t available);

// Makes the cache's folder and its lock, and takes that: its descriptor, which holds it until it is closed.
// The cache is then the one used last. Refuses (kUsage) a cache that another run holds.
Result<int> LockTapCache(const Path& folder);

// Whether a cache of `need` bytes can be made in `dir`, in the place of the one in the folder `own` (empty:
// of none): with those of all runs that are at work it must be within the limit (kUsage), and the disk must
// hold it (kFailed), if need be without the caches that nobody uses. Changes nothing.
Status CheckTapCacheRoom(const Path& dir, const Path& own, uint64_t need, uint64_t limit);
// The same, for who has locked `own`; then removes others, those used longest ago first, as far as it must.
// Never one that a run holds, nor what is not known for a cache by its name and its index. Refuses where less
// than that could be removed.
Result<Evicted> MakeTapCacheRoom(const Path& dir, const Path& own, uint64_t need, uint64_t limit);

}  // namespace rung::model
