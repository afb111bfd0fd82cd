// The memory of a run before it starts: exact for the step's arena (the step itself is run with its kernels
// muted), counted for everything else.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "model/forward.h"
#include "train/optimizer.h"

namespace rung::train {

// `tokens` rows in sequences of `sequence`, every row a target.
data::Batch UniformBatch(int64_t tokens, int64_t sequence);

// Bytes and launches of Step for this batch, found by running it with a planning Exec. `crossing`: as in
// model::PassInput.
struct StepPlan {
  ArenaPeak peak;
  uint64_t fingerprint = 0;
  double flops = 0.0;
};
StepPlan PlanStep(const cpu::Context& context, DType compute, const model::Backbone& backbone,
                  const model::Adapter* adapter, const data::Batch& batch, bool learn,
                  const model::CrossingIo* crossing = nullptr);

struct PlanItem {
  std::string name;
  uint64_t bytes = 0;
  std::string note;    // what it is made of
  std::string option;  // what makes it smaller; empty: nothing does
};

struct MemoryPlan {
  std::vector<PlanItem> items;
  StepPlan step;
  uint64_t total() const;
  // "what, where, what to do" when the total is above `limit`; the three largest items by name.
  std::string Refusal(uint64_t limit, const std::string& limit_name) const;
};

// What is not the step's: sizes known from files and settings.
struct PlanInputs {
  uint64_t tokenizer_bytes = 0;  // vocabulary in memory
  uint64_t data_bytes = 0;       // encoded examples
  bool training = true;          // gradients and optimizer state
  OptimizerOptions optimizer = {};
};

// Of a vocabulary of V tokens in memory: texts, hash slots, merges.
constexpr uint64_t TokenizerBytes(int64_t V) { return static_cast<uint64_t>(V) * 320; }

MemoryPlan MakePlan(const cpu::Context& context, DType compute, const model::Backbone& backbone,
                    const model::Adapter& adapter, const data::Batch& batch, const PlanInputs& inputs);

}  // namespace rung::train
