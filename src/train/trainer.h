// The state of a run between its steps. Made by RunTraining; a header of its own only because the pieces are
// tested.
#pragma once

#include <chrono>
#include <optional>
#include <span>

#include "model/prune.h"
#include "train/identity.h"
#include "train/log.h"
#include "train/run.h"
#include "train/state_cache.h"

namespace rung::train {

class Trainer {
 public:
  Trainer(const TrainOptions& options, const RunEvents& events, const std::atomic<bool>& interrupt);

  // Reads everything but the weights, prints the plan, refuses what does not fit.
  void Prepare();
  // Loads the weights, begins or resumes.
  void Start();
  RunResult Loop();

 private:
  void CountSteps();
  void Plan();
  void CheckDisk();
  void ReportEncoding(std::span<const data::DataFile> files, const EncodedData& data) const;
  // Decides, before anything is loaded or written, whether this run may go on in its folder.
  void FindCheckpoint();
  void MakeFolder();
  // Rungs that begin as pruned blocks of the backbone.
  std::vector<data::Example> FisherExamples() const;
  void PlanImportance(const model::Backbone& shape);
  model::PrunedSelection SelectRungs() const;
  void MakeAdapter();
  void OpenStateCache();
  void ResumeOrBegin();
  // The micro-batches of one optimizer step, from the current position. Returns the sum of losses.
  double Accumulate(const data::EpochPlan& plan, int64_t end, int64_t* targets, int64_t* rows);
  // False: states from the tap cache were damaged and the gradients so far are void.
  bool RunMicroBatch(const data::Batch& batch, double* loss_sum);
  // One micro-batch in planned memory; `crossing` as in model::PassInput. Losses of its targets.
  std::vector<float> RunPlanned(const data::Batch& batch, const model::CrossingIo* crossing);
  // Makes the arena at least this large. Between steps only.
  void Reserve(size_t bytes);
  StepReport Update(double loss_sum, int64_t targets);
  RunResult Finish(bool interrupted);
  void AfterStep(const StepReport& report);
  void Evaluate();
  Status Save();
  void
  SaveAndNote();  // the run is worth more than one checkpoint: a failure is said, the next save tries again
  void SyncCache();
  void Note(const std::string& line) const;
  std::string Fingerprint() const;

  const TrainOptions& options_;
  const RunEvents& events_;
  const std::atomic<bool>& interrupt_;

  model::Config config_;
  RunIdentity identity_;
  model::AdapterSpec spec_;
  std::unique_ptr<model::ModelText> text_;
  EncodedData data_, eval_data_;
  MemoryPlan plan_;
  uint64_t slab_bytes_ = 0;

  std::optional<model::Backbone> backbone_;
  std::optional<model::Adapter> adapter_;
  std::optional<Optimizer> optimizer_;
  std::unique_ptr<Slab> slab_;
  std::optional<Exec> exec_;
  std::optional<RunLog> log_;
  std::unique_ptr<StateCache> cache_;

  RunPosition position_;
  uint64_t draw_ = 0;  // of the micro-batch's dropout masks
  Checkpoint checkpoint_;
  uint32_t epochs_ = 1;  // the last one may be run in part
  int64_t total_steps_ = 0, warmup_steps_ = 0, skipped_ = 0, skipped_in_row_ = 0, first_step_ = 0;
  double base_rate_ = 0.0, peak_flops_ = 0.0, last_loss_ = 0.0, step_flops_ = 0.0;
  std::chrono::steady_clock::time_point started_, saved_;
};

}  // namespace rung::train
