// A training run: from options to an adapter folder.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/encode.h"
#include "data/packer.h"
#include "model/model.h"
#include "train/checkpoint.h"
#include "train/model_hash.h"
#include "train/options.h"
#include "train/out_folder.h"
#include "train/plan.h"

namespace rung::train {

struct StepReport {
  int64_t step = 0, total_steps = 0;  // step counts from 1
  double epoch = 0.0;                 // fraction of epochs done
  double loss = 0.0;                  // nats per target token of this step
  double learning_rate = 0.0, grad_norm = 0.0;
  double tokens_per_second = 0.0, peak_share = 0.0, seconds_left = 0.0;
  int64_t targets = 0;
  int64_t tokens = 0, total_tokens = 0;  // rows of this step and of all steps so far, targets or not
  double waiting = 0.0;                  // share of the step's time in which its batches were made
  double flops = 0.0;                    // arithmetic of the step
  double seconds = 0.0;                  // since the run began, earlier parts of a resumed run included
  uint64_t resident_bytes = 0;           // of the process, after the step
  bool skipped = false;                  // gradient was not finite: nothing was changed
};

struct EvalReport {
  int64_t step = 0, records = 0, targets = 0;
  double loss = 0.0;            // nats per target token
  double token_accuracy = 0.0;  // share of target tokens that are the most probable one
  double epoch = 0.0;           // as StepReport::epoch
  double seconds = 0.0;         // that the evaluation took
  // Share of `answers` questions that were answered exactly; nothing: none were asked.
  std::optional<double> exact_match = {};
  int64_t answers = 0;
  bool best = false;  // so far, by the run's metric
};

// A held-out record, answered by the frozen model and by the trained one. Plain text.
struct Sample {
  std::string prompt, expected, before, after;
};

// Where a resumed run goes on.
struct ResumeReport {
  Path checkpoint;
  int64_t step = 0;
  std::vector<std::string> differences;  // that --resume-force passed over: see Differences
  std::vector<std::string> damaged;      // why newer checkpoints were passed over
};

// What is known before the first step. Identities as in train/identity.h; that of the evaluation data is
// empty where there are none.
struct RunBegin {
  ModelHash model;
  std::string data, eval_data;
  int64_t steps = 0, warmup_steps = 0;  // of the whole run
  double learning_rate = 0.0;           // at its peak
  ResumeReport resume;                  // its step 0: from the beginning
};

// Whom the run tells what happens. Every member may be empty.
struct RunEvents {
  std::function<void(const MemoryPlan&, const model::AdapterSpec&, const model::Config&)> on_plan;
  std::function<void(const RunBegin&)> on_begin;  // the output folder is there and locked
  std::function<void(const StepReport&)> on_step;
  std::function<void(const EvalReport&)> on_eval;
  std::function<void(const ResumeReport&)> on_resume;
  std::function<void(const std::vector<Sample>&)> on_samples;  // at the end
  std::function<void(const std::string&)> on_note;             // one line for the user
  // While data is encoded: bytes of its files that are done, and all.
  std::function<void(uint64_t done, uint64_t total)> on_encoding;
};

struct RunResult {
  int64_t steps = 0, skipped_steps = 0;  // of the whole run, earlier parts included
  bool interrupted = false;
  // It was finished before, and this one did nothing: `steps` are those of then. Nothing else is set.
  std::optional<FinishedRun> finished_before = {};
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
// How these files are read, but for the name of the encoder and who is told.
data::DatasetOptions DatasetOf(std::span<const data::DataFile> files, data::Part part,
                               const DataOptions& options);
// Throws Error, with kInterrupted when `interrupt`, which may be nullptr, becomes true.
EncodedData LoadData(std::span<const data::DataFile> files, data::Part part, const model::ModelText& text,
                     const TrainOptions& options, const RunEvents& events = {},
                     const std::atomic<bool>* interrupt = nullptr);

// Loss over a whole data set, in order. The slab of `ex` must hold PlanStep(learn = false) of the largest
// batch. `interrupt`, which may be nullptr: when it becomes true the report is of no use.
EvalReport EvaluateLoss(Exec& ex, const model::Backbone& backbone, const model::Adapter* adapter,
                        const EncodedData& data, int64_t tokens,
                        const std::atomic<bool>* interrupt = nullptr);

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

// Throws Error. `interrupt`: when it becomes true the micro-batch in work is finished, a step that is not
// whole is dropped, a checkpoint saved, and the run returns with interrupted set. A run that resumes a
// finished one, and asks for no more than it did, does nothing.
RunResult RunTraining(const TrainOptions& options, const RunEvents& events,
                      const std::atomic<bool>& interrupt);

// A run up to its first step: reads its data, plans, looks for disk and checkpoints, and throws Error where
// RunTraining would, also for a folder that it could not make, write to or lock. Leaves nothing behind.
struct RunPreview {
  RunBegin begin;                                       // its model is not hashed unless the run would resume
  std::optional<FinishedRun> finished_before = {};      // nothing else is known then
  int64_t examples = 0, eval_examples = 0, epochs = 0;  // of an epoch; epochs begun
  uint64_t planned_bytes = 0;
};
RunPreview PreviewTraining(const TrainOptions& options, const RunEvents& events);

}  // namespace rung::train
