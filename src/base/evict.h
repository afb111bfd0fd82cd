// Entries of a cache on disk that go when it is too large.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <vector>

#include "base/files.h"

namespace rung {

struct Evictable {
  Path path;
  uint64_t bytes = 0;
  std::filesystem::file_time_type used;  // last
};
struct Evicted {
  int64_t count = 0;
  uint64_t bytes = 0;
};
// Removes entries, those that were used longest ago first, until `excess` bytes are gone. One that `remove`
// answers false for stays, and the next is tried.
Evicted EvictOldest(std::vector<Evictable> entries, uint64_t excess,
                    const std::function<bool(const Path& path)>& remove);

}  // namespace rung
