// Why the plan of low-rank training differs from the closed formula, row by row.
#pragma once

#include <vector>

#include "cli/plan_compare.h"

namespace rung::cli {

// `run` keeps all activations; `formula` is of the same batch and the same number of trained parameters.
std::vector<Difference> Differences(const model::Config& config, const train::TrainOptions& options,
                                    const train::PlannedRun& run, const train::FormulaMemory& formula);

}  // namespace rung::cli
