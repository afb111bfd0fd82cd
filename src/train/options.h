// What a training run is asked to do. Names follow Hugging Face's; `rung train --help` documents each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "data/data_files.h"
#include "data/encode.h"
#include "data/reader.h"
#include "data/token_cache.h"
#include "model/adapter.h"
#include "model/backbone.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace rung::train {

// Which machine code and how many threads; shared by every verb that computes.
struct ComputeOptions {
  cpu::Context context;
  DType compute = DType::kF32;
};

// What is trained. xladder is a ladder whose taps are the top layers, with as many free rungs behind them.
enum class Method : uint8_t { kLadder, kXladder, kLora };
Result<Method> ParseMethod(const std::string& name);
const char* NameOf(Method method);

// Where a ladder's rungs begin: random numbers, or the backbone's own weights, the most important kept, by
// magnitude or by Fisher information over some training samples.
enum class LadderInit : uint8_t { kRandom, kPruned, kFisher };

// Zeros and empty: chosen from the model's shape.
struct LadderOptions {
  std::string taps = "";  // see model::ParseLayers
  int64_t rungs = 0;
  int64_t delta = 0;   // xladder: tapped top layers
  double width = 0.0;  // up to 1: a fraction of the model's
  int64_t heads = 0;   // of a rung
  model::RungKind kind = model::RungKind::kDecoder;
  model::Gate gate = model::Gate::kSum;
  model::TapNorm tap_norm = model::TapNorm::kStandardize;
  model::TapMap tap_map = model::TapMap::kFull;
  // Of decoder rungs; nothing: the backbone's own.
  std::optional<nn::NormKind> norm;
  std::optional<bool> rotary;
  std::optional<int64_t> rejoin;  // nothing: see ResolveAdapter
  double output_scale = 1.0;      // factor of the measured scale
  LadderInit init = LadderInit::kRandom;
  int64_t fisher_samples = 64;
};

struct LoraOptions {
  int64_t r = 0;  // 0: 64 for method lora, none beside a ladder
  double alpha = 16.0, dropout = 0.0;
  bool rank_stabilized = false;
  std::string targets = "all", layers = "";  // layers empty: all, or those above a ladder's joining point
};

// How data is read and made into examples.
struct DataOptions {
  data::ReadOptions read;
  data::Truncation truncation = data::Truncation::kLeft;
  bool mask_history = false;
  bool special_tokens = false;  // as of data::EncodeOptions
  double valid_fraction = 0.0;  // of the training records, held out for evaluation; 0: none
  std::optional<Path> cache;    // of tokens; an empty path: none; nothing: data::DefaultCache
  uint64_t cache_limit = data::kCacheLimit;
};

// What decides which evaluation is the best.
enum class EvalMetric : uint8_t { kLoss, kTokenAccuracy, kExactMatch };
Result<EvalMetric> ParseEvalMetric(const std::string& name);
const char* NameOf(EvalMetric metric);  // "loss", "token_accuracy", "exact_match"

struct EvalOptions {
  EvalMetric metric = EvalMetric::kLoss;
  int64_t limit = 0;       // held-out examples of an evaluation, the first ones; 0: all
  int64_t slots = 8;       // answers generated at once
  int64_t patience = 0;    // evaluations in a row without enough improvement that end the run; 0: none do
  double threshold = 0.0;  // what is enough, of the metric
  std::optional<bool> load_best;  // nothing: where there are evaluations during training
  int64_t samples = 3;            // held-out records answered before and after training
};

struct TrainOptions {
  Path model, out;
  std::vector<data::DataFile> data, eval_data;
  DataOptions data_options;
  ComputeOptions compute;
  model::BackboneOptions backbone;

  Method method = Method::kLadder;
  LadderOptions ladder;
  LoraOptions lora;
  model::MemoryPolicy policy;
  Path tap_cache;  // empty: none
  uint64_t tap_cache_limit = uint64_t{20} << 30;

  double epochs = 3.0;
  int64_t max_steps = 0;       // 0: by epochs
  double learning_rate = 0.0;  // 0: see ResolveLearningRate
  Schedule schedule = Schedule::kCosine;
  double warmup_ratio = 0.06;
  std::optional<int64_t> warmup_steps;  // instead of the ratio
  OptimizerOptions optimizer;
  int64_t gradient_accumulation = 1;
  uint64_t seed = 42;
  int64_t eval_steps = 0;  // 0: at the end only
  EvalOptions eval;
  int64_t max_skipped = 10;  // steps in a row with a loss or gradient that is not finite that end the run
  bool nan_watch = false;    // look for the operation that began it at the first such step
  // Checkpoints, by whichever comes first; 0: not by these.
  int64_t save_steps = 0;
  double save_minutes = 10.0;
  int64_t save_limit = 2;
  bool resume = false;
  bool resume_force = false;  // though settings, model or data differ

  int64_t tokens = 512, max_length = 512;  // rows of a micro-batch; ids of one example
  bool raw = false, train_on_prompt = false;
  std::string chat_template = "";  // in place of the model's own; empty: that
  // The time that the template shows, as of model::LoadText; nothing: today. A resumed run keeps its own.
  std::optional<int64_t> template_time = std::nullopt;
  uint64_t memory_limit = 0;  // 0: what the machine has free
};

// What a method's defaults become for a model of L layers. A ladder: rejoins floor(4 L / 15) layers below the
// top (0 for xladder and plain rungs: the paper's and its authors' forms); about five taps below that point,
// evenly spaced, last included (or the top five, for xladder, with ten rungs); one rung a tap; width about
// C / 4.5 in whole heads; MLP 8/3 of it, rounded to 16. Low-rank pairs: every linear layer but the head, in
// every layer. Why these: docs/adr/0004, docs/results/methods.md.
Result<model::AdapterSpec> ResolveAdapter(const TrainOptions& options, const model::Config& config);
// A ladder: 3e-3 at width 128, scaled by 1/sqrt(width). Low-rank pairs: 1e-3 at hidden size 576, scaled by
// 1/sqrt(hidden size).
double ResolveLearningRate(const TrainOptions& options, const model::AdapterSpec& spec,
                           const model::Config& config);

}  // namespace rung::train
