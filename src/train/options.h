// What a training run is asked to do. Names follow Hugging Face's; `rung train --help` documents each.
#pragma once

#include <cstdint>
#include <string>

#include "base/files.h"
#include "model/backbone.h"
#include "model/ladder.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace rung::train {

// Which machine code and how many threads; shared by every verb that computes.
struct ComputeOptions {
  cpu::Context context;
  DType compute = DType::kF32;
};

struct TrainOptions {
  Path model, data, eval_data, out;
  ComputeOptions compute;
  model::BackboneOptions backbone;

  // The ladder. Zeros and empty: chosen from the model's shape.
  std::string taps = "";  // see model::ParseTaps
  int64_t rungs = 0, width = 0;
  model::Gate gate = model::Gate::kSum;
  model::TapNorm tap_norm = model::TapNorm::kStandardize;
  double output_scale = 0.0;  // 0: measured by calibration
  model::RungMemory rung_memory = model::RungMemory::kKeep;

  double epochs = 3.0;
  int64_t max_steps = 0;       // 0: by epochs
  double learning_rate = 0.0;  // 0: 3e-3 at width 128, scaled by 1/sqrt(width)
  Schedule schedule = Schedule::kCosine;
  double warmup_ratio = 0.06;
  OptimizerOptions optimizer;
  int64_t gradient_accumulation = 1;
  uint64_t seed = 42;
  int64_t eval_steps = 0, save_steps = 0, save_limit = 2;  // eval, save 0: at the end only
  bool resume = false;

  int64_t tokens = 512, max_length = 512;  // rows of a micro-batch; ids of one example
  bool raw = false, train_on_prompt = false;
  uint64_t memory_limit = 0;  // 0: what the machine has free
};

// The defaults that depend on the model: about five taps, evenly spaced, last included; one rung a tap; width
// about C / 4.5 in whole heads; MLP 8/3 of it, rounded to 16.
Result<model::LadderSpec> ResolveLadder(const TrainOptions& options, const model::Config& config);
double ResolveLearningRate(const TrainOptions& options, const model::LadderSpec& spec);

}  // namespace rung::train
