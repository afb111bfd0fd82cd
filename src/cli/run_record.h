// run.json: what a run was asked, on what, with what (docs/formats/run.md).
#pragma once

#include "cli/resolved_options.h"
#include "train/run.h"

namespace rung::cli {

// Writes <out>/run.json, atomically. A resumed run replaces it and goes on with its list of resumptions; a
// file that cannot be read is begun anew.
Status WriteRunRecord(const std::vector<ResolvedOption>& resolved, const train::TrainOptions& options,
                      const model::Config& config, const train::RunBegin& begin);

}  // namespace rung::cli
