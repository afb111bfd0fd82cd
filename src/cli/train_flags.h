// The options of `rung train` and `rung plan`, and how a plan is printed.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "cli/data_flags.h"
#include "cli/template_flags.h"
#include "cli/verb.h"
#include "train/plan.h"

namespace rung::cli {

struct TrainFlags {
  ComputeFlags compute;
  ModelFlags model;
  train::TrainOptions options;  // filled by CLI11 where the types agree
  DataFlags data_flags;
  TemplateFlags templates;
  std::vector<std::string> data, eval_data;
  std::string out, config, schedule = "cosine", memory_limit;
  std::string method = "ladder", gate = "sum", tap_norm = "standardize", tap_map = "full",
              rung_block = "decoder", rung_norm = "auto", rung_positions = "auto", ladder_init = "random",
              tap_storage = "compute", optimizer = "adamw", tap_cache, tap_cache_limit = "20GiB";
  std::string eval_metric = "loss", load_best;
  std::string progress = "auto";
  bool recompute_rungs = false, recompute = false, dry_run = false;
  const CLI::App* app = nullptr;  // whose options these are: says which were given
  bool every_method = false;      // options of several methods at once are meant (a comparison)
};

// All of `rung train`.
void AddTrainFlags(CLI::App& app, TrainFlags* flags);
// --method and what it has of settings; memory policies and the optimizer.
void AddMethodFlags(CLI::App& app, TrainFlags* flags);
void AddBatchFlags(CLI::App& app, TrainFlags* flags);
// Evaluation during training, samples, and what becomes of steps that are not finite.
void AddEvaluationFlags(CLI::App& app, TrainFlags* flags);
void ResolveEvaluation(const TrainFlags& flags, train::TrainOptions* options);
// An option that changes nothing in such a run, and why.
struct UnusedOption {
  std::string flag, why;
};
std::vector<UnusedOption> UnusedOptions(const train::TrainOptions& options);
// Refuses (kUsage) what was given and has no use with the method, and numbers that are none.
train::TrainOptions Resolve(const TrainFlags& flags);
// Where --max-length was not given: no more than the model takes. Refuses (kUsage) one that was and is more.
void LimitToContext(const TrainFlags& flags, const model::Config& config, train::TrainOptions* options);
// One line: what is trained, for people.
std::string Describe(const model::AdapterSpec& spec, const model::Config& config, int64_t parameters);

// The table that `rung plan` and `rung train` print: the total beside the limit, without one (0) beside the
// free memory (0: unknown).
std::string PlanTable(const train::MemoryPlan& plan, uint64_t available, uint64_t limit = 0);
nlohmann::ordered_json PlanJson(const train::MemoryPlan& plan);

}  // namespace rung::cli
