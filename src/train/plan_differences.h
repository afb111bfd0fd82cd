// Why a plan differs from the closed formula, row by row.
#pragma once

#include <vector>

#include "train/method_comparison.h"

namespace rung::train {

// `formula` is of the same batch and the same number of trained parameters. Names of method and formula are
// the caller's. Of low-rank pairs, where `run` keeps all activations:
std::vector<Difference> LoraDifferences(const model::Config& config, const TrainOptions& options,
                                        const PlannedRun& run, const FormulaMemory& formula);
// Of a ladder:
std::vector<Difference> LadderDifferences(const model::Config& config, const TrainOptions& options,
                                          const PlannedRun& run, const FormulaMemory& formula);

}  // namespace rung::train
