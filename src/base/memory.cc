#include "base/memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>
#include <string_view>

namespace rung {
namespace {

// The number in the line that begins with `key`, as "VmHWM:    123 kB"; 0 when there is no such line.
uint64_t ReadNumber(const Path& file, std::string_view key) {
  std::ifstream in(file);
  std::string line;
  while (std::getline(in, line)) {
    if (!line.starts_with(key)) continue;
    const size_t digit = line.find_first_of("0123456789");
    uint64_t value = 0;
    if (digit != std::string::npos) std::from_chars(line.data() + digit, line.data() + line.size(), value);
    return value;
  }
  return 0;
}

}  // namespace

std::optional<uint64_t> MemoryOfGroup(const Path& group) {
  const struct {
    const char *limit, *used, *inactive, *active;
  } versions[] = {
      {"memory.max", "memory.current", "inactive_file ", "active_file "},
      {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file ", "total_active_file "}};
  for (const auto& names : versions) {
    std::ifstream limit_file(group / names.limit), used_file(group / names.used);
    uint64_t limit = 0, used = 0;
    if (!(limit_file >> limit && used_file >> used)) continue;
    const Path stat = group / "memory.stat";
    used -= std::min(used, ReadNumber(stat, names.inactive) + ReadNumber(stat, names.active));
    return limit > used ? limit - used : 0;
  }
  return std::nullopt;
}

uint64_t AvailableMemory() {
  const uint64_t machine = ReadNumber("/proc/meminfo", "MemAvailable:") * 1024;
  std::optional<uint64_t> group = MemoryOfGroup("/sys/fs/cgroup");
  if (!group) group = MemoryOfGroup("/sys/fs/cgroup/memory");  // where version 1 has it
  if (!group) return machine;
  return std::max<uint64_t>(1, machine > 0 ? std::min(machine, *group) : *group);
}

uint64_t ResidentPeak() { return ReadNumber("/proc/self/status", "VmHWM:") * 1024; }

uint64_t ResidentNow() { return ReadNumber("/proc/self/status", "VmRSS:") * 1024; }

}  // namespace rung
