// Why a plan differs from the closed formula, row by row.
#pragma once

#include <vector>

#include "cli/plan_compare.h"

namespace rung::cli {

// `formula` is of the same batch and the same number of trained parameters. Names of method and formula are
// the caller's. Of low-rank pairs, where `run` keeps all activations:
std::vector<Difference> LoraDifferences(const model::Config& config, const train::TrainOptions& options,
                                        const train::PlannedRun& run, const train::FormulaMemory& formula);
// Of a ladder:
std::vector<Difference> LadderDifferences(const model::Config& config, const train::TrainOptions& options,
                                          const train::PlannedRun& run, const train::FormulaMemory& formula);

}  // namespace rung::cli
