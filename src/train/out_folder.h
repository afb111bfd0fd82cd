// What the output folder of a run says of it.
#pragma once

#include <cstdint>
#include <optional>

#include "base/files.h"
#include "train/options.h"

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
// Throws Error (kUsage) where a new run would write over an earlier one, finished or not, or
// RefuseAnotherBest does.
void RefuseAnEarlierRun(const Path& out);
// Throws Error (kUsage) where `out` has a best/ that no evaluation made: it is not the run's to take away.
void RefuseAnotherBest(const Path& out);

// What a run of so many more steps, which may not be known to the full, writes into its folder beyond what is
// there: at most, at any moment. `adapter`, `checkpoint`: bytes of one.
uint64_t BytesToWrite(const TrainOptions& options, int64_t steps, uint64_t adapter, uint64_t checkpoint);

}  // namespace rung::train
