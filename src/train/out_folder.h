// What the output folder of a run says of it.
#pragma once

#include <cstdint>
#include <optional>

#include "base/files.h"

namespace rung::train {

// That the folder holds the result of a run.
struct FinishedRun {
  int64_t steps = 0, total_steps = 0;  // done, and asked for; 0: its record is lost
  // Where the record is lost nobody knows: no.
  bool IsShorterThan(int64_t asked) const { return total_steps > 0 && asked > total_steps; }
  bool EndedEarly() const { return steps < total_steps; }
};
// Nothing: the run is not finished, or goes on after it was. Throws Error (kUsage) where what `out` holds is
// an adapter of another program.
std::optional<FinishedRun> FindFinishedRun(const Path& out);
// Throws Error (kUsage) where a new run would write over an earlier one, finished or not.
void RefuseAnEarlierRun(const Path& out);

}  // namespace rung::train
