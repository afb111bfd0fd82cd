// Plans of one model again and again: of other methods, other policies, other batch sizes; and the largest
// batch that fits.
#pragma once

#include <string>
#include <vector>

#include "model/config.h"
#include "train/options.h"
#include "train/plan.h"

namespace rung::train {

// A model to plan for: a GGUF file, a folder, a config.json, or a shape alone.
class PlanModel {
 public:
  static Result<PlanModel> Open(const Path& path);
  explicit PlanModel(model::Config shape) : config_(std::move(shape)) {}

  const model::Config& config() const { return config_; }
  // --quantize-embeddings would change something: what there is of the embedding and the head is not packed.
  bool can_quantize_ends() const { return can_quantize_ends_; }
  Result<model::Backbone> Plan(const model::BackboneOptions& options) const;

 private:
  model::Config config_;
  Path path_;  // empty: the config is all there is
  bool can_quantize_ends_ = true;
};

struct PlannedRun {
  MemoryPlan memory;
  model::AdapterSpec spec;
  int64_t parameters = 0;  // trained
  int64_t end_bytes = 0;   // of the embedding and the head, without scales kept apart
  // Disk of a ladder's tap cache: of each token of the data, and besides of each that is learned.
  uint64_t cache_row_bytes = 0, cache_target_bytes = 0;
};

// Training by `options`: tokens rows in sequences of `sequence`, positions up to max_length.
Result<PlannedRun> PlanRun(const PlanModel& model, const TrainOptions& options, int64_t sequence);

// Settings that cost something else than memory: a part of the step twice, a few bits.
struct PolicySet {
  std::string flags;  // as on a command line; empty: none
  TrainOptions Apply(TrainOptions options) const;
  std::vector<int> policies;  // rows of the table in plan_search.cc
};
// What can still be turned on for the options' method, cheapest first: nothing, each policy alone, then two
// and more together in the order of their cost. keep_blocks: all but what runs blocks again.
std::vector<PolicySet> PolicySets(const PlanModel& model, const TrainOptions& options,
                                  const model::AdapterSpec& spec, bool keep_blocks = false);

constexpr int64_t kFitStep = 64;                   // tokens
constexpr int64_t kMostTokens = int64_t{1} << 22;  // as --tokens

struct Fit {
  int64_t tokens = 0;    // a multiple of kFitStep; 0: not even kFitStep fit
  int64_t sequence = 0;  // tokens of one sequence: all of them, or `longest`
  PlannedRun run;        // at that size; at kFitStep when nothing fits
};
// The largest batch whose plan is at most `limit` bytes: one sequence up to `longest` tokens, then several of
// `longest`. Whatever the options say of tokens and max_length is not looked at.
Result<Fit> LargestFit(const PlanModel& model, const TrainOptions& options, int64_t longest, uint64_t limit);

}  // namespace rung::train
