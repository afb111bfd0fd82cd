// Memory of the machine and of this process, in bytes, as the kernel tells it.
#pragma once

#include <cstdint>
#include <optional>

#include "base/files.h"

namespace rung {

// Bytes that the processes of a control group, of version 1 or 2, may still take; nothing: it has no limit.
// Pages of files are not counted as taken: they are given back when memory is short.
std::optional<uint64_t> MemoryOfGroup(const Path& group);
// Bytes that this machine, or the container, can still give without swapping; 0 when unknown.
uint64_t AvailableMemory();
// Largest resident size of this process so far, as the kernel counts it (VmHWM).
uint64_t ResidentPeak();
// Its size now (VmRSS).
uint64_t ResidentNow();

}  // namespace rung
