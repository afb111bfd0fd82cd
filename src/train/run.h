// A training run: from options to an adapter folder.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/encode.h"
#include "data/packer.h"
#include "model/model.h"
#include "train/checkpoint.h"
#include "train/options.h"
#include "train/plan.h"

namespace rung::train {

struct StepReport {
  int64_t step = 0, total_steps = 0;  // step counts from 1
  double epoch = 0.0;                 // fraction of epochs done
  double loss = 0.0;                  // nats per target token of this step
  double learning_rate = 0.0, grad_norm = 0.0;
  double tokens_per_second = 0.0, peak_share = 0.0, seconds_left = 0.0;
  int64_t targets = 0;
  bool skipped = false;  // gradient was not finite: nothing was changed
};

struct EvalReport {
  int64_t step = 0, records = 0, targets = 0;
  double loss = 0.0;            // nats per target token
  double token_accuracy = 0.0;  // share of target tokens that are the most probable one
};

// Whom the run tells what happens. Every member may be empty.
struct RunEvents {
  std::function<void(const MemoryPlan&, const model::AdapterSpec&, const model::Config&)> on_plan;
  std::function<void(const StepReport&)> on_step;
  std::function<void(const EvalReport&)> on_eval;
  std::function<void(const std::string&)> on_note;  // one line for the user
};

struct RunResult {
  int64_t steps = 0, skipped_steps = 0;
  bool interrupted = false;
  double train_loss = 0.0;  // of the last step
  double seconds = 0.0;
  uint64_t planned_bytes = 0, resident_peak = 0;
};

// A data set as ids, with what encoding it said.
struct EncodedData {
  data::Examples examples;
  std::vector<int64_t> rows;  // of each example in a batch
  data::EncodeReport report;
  std::vector<std::string> notes;  // for the user: rows left out, the cache that was used
};
EncodedData LoadData(std::span<const data::DataFile> files, data::Part part, const model::ModelText& text,
                     const TrainOptions& options);

// Loss over a whole data set, in order. The slab of `ex` must hold PlanStep(learn = false) of the largest
// batch.
EvalReport EvaluateLoss(Exec& ex, const model::Backbone& backbone, const model::Adapter* adapter,
                        const EncodedData& data, int64_t tokens);

// The batch that needs the largest arena of those looked at so far.
struct LargestBatch {
  data::Batch batch;
  size_t bytes = 0;
  int64_t planned = 0;  // batches looked at
};
// Plans the step of every batch of `plan`, up to `most` in all. What a batch needs depends on how its rows
// fall into sequences, in no simple way: planning it is the only exact answer, and takes a tenth of a
// millisecond.
void FindLargestBatch(const ComputeOptions& compute, const model::Backbone& backbone,
                      const model::Adapter& adapter, const EncodedData& data, const data::EpochPlan& plan,
                      bool learn, int64_t most, LargestBatch* largest);
// Training batches that are planned before a run; a later one that needs more gets a larger slab.
inline constexpr int64_t kPlannedBatches = 10000;

// Throws Error. `interrupt`: when it becomes true the current step is finished, a checkpoint saved,
// and the run returns with interrupted set.
RunResult RunTraining(const TrainOptions& options, const RunEvents& events,
                      const std::atomic<bool>& interrupt);

}  // namespace rung::train
