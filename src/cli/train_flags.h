// The options of `rung train` and `rung plan`, and how a plan is printed.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cli/verb.h"
#include "train/plan.h"

namespace rung::cli {

struct TrainFlags {
  ComputeFlags compute;
  ModelFlags model;
  train::TrainOptions options;  // filled by CLI11 where the types agree
  std::string data, eval_data, out, config, method = "ladder", schedule = "cosine", gate = "sum",
                                            tap_norm = "standardize", memory_limit;
  bool recompute_rungs = false;
};

void AddLadderFlags(CLI::App& app, TrainFlags* flags);
void AddBatchFlags(CLI::App& app, TrainFlags* flags);
train::TrainOptions Resolve(const TrainFlags& flags);

// The table that `rung plan` and `rung train` print.
std::string PlanTable(const train::MemoryPlan& plan, uint64_t available);
nlohmann::ordered_json PlanJson(const train::MemoryPlan& plan);

}  // namespace rung::cli
