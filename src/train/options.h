// What a training run is asked to do. Names follow Hugging Face's; `rung train --help` documents each.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/names.h"
#include "data/data_files.h"
#include "data/encode.h"
#include "data/reader.h"
#include "data/token_cache.h"
#include "model/adapter.h"
#include "model/backbone.h"
#include "train/method_options.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace rung::train {

// Which machine code and how many threads; shared by every verb that computes.
struct ComputeOptions {
  cpu::Context context;
  DType compute = DType::kF32;
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
inline constexpr Named<EvalMetric> kEvalMetricNames[] = {{"loss", EvalMetric::kLoss},
                                                         {"token_accuracy", EvalMetric::kTokenAccuracy},
                                                         {"exact_match", EvalMetric::kExactMatch}};
static_assert(NamesAll(kEvalMetricNames, EvalMetric::kExactMatch));
inline const char* NameOf(EvalMetric metric) { return NameIn(kEvalMetricNames, metric); }

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
// How many layers below the top of L a ladder of these options enters the stream; 0: after the last one.
int64_t RejoinOf(const TrainOptions& options, int64_t L);
// Where nobody says: the forms of the paper and of its authors' prototype do not.
inline bool RejoinsByDefault(const TrainOptions& options) {
  return options.method == Method::kLadder && options.ladder.kind == model::RungKind::kDecoder;
}
// A ladder: 3e-3 at width 128, scaled by 1/sqrt(width). Low-rank pairs: 1e-3 at hidden size 576, scaled by
// 1/sqrt(hidden size).
double ResolveLearningRate(const TrainOptions& options, const model::AdapterSpec& spec,
                           const model::Config& config);

}  // namespace rung::train
