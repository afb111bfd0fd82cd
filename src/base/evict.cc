#include "base/evict.h"

#include <algorithm>

namespace rung {

Evicted EvictOldest(std::vector<Evictable> entries, uint64_t excess,
                    const std::function<bool(const Path& path)>& remove) {
  std::sort(entries.begin(), entries.end(),
            [](const Evictable& a, const Evictable& b) { return a.used < b.used; });
  Evicted evicted;
  for (const Evictable& entry : entries) {
    if (evicted.bytes >= excess) break;
    if (!remove(entry.path)) continue;
    evicted.bytes += entry.bytes;
    ++evicted.count;
  }
  return evicted;
}

}  // namespace rung
