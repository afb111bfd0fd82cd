// The state of a run between its steps: of RunTraining, whose parts are several files.
#pragma once

#include <chrono>
#include <optional>
#include <span>

#include "infer/answers.h"
#include "model/prune.h"
#include "train/evaluation.h"
#include "train/identity.h"
#include "train/log.h"
#include "train/run.h"
#include "train/run_lock.h"
#include "train/save_schedule.h"
#include "train/state_cache.h"

namespace rung::train {

class Trainer {
 public:
  Trainer(const TrainOptions& options, const RunEvents& events, const std::atomic<bool>& interrupt);

  // Reads everything but the weights, prints the plan, refuses what does not fit. When it finds that the run
  // is finished it stops there: nothing is to be started.
  void Prepare();
  const std::optional<FinishedRun>& finished() const { return finished_; }
  int64_t resumed_step() const { return finished_ ? finished_->steps : checkpoint_.state.position.step; }
  // Prepare, without a trace in the output folder.
  RunPreview Preview();
  // Loads the weights, begins or resumes.
  void Start();
  RunResult Loop();
  void Stopped(const std::string& reason);  // by an error: records it

 private:
  RunBegin Begin() const;
  void ReadShape();
  void ReadData();
  void HashModel();  // once
  data::EpochPlan EpochOf(int64_t epoch) const;
  void CountSteps();
  void SetSteps(int64_t total);
  void Plan();
  void CheckTapCache();
  void LookAtFolder();  // decides, before anything is loaded or written, whether this run may go on in it
  void FindCheckpoint();
  void CheckDisk() const;
  void CompareSettings();    // as far as they are known
  void NoteOtherSettings();  // than those of the finished run
  bool AsksForMore() const;  // than the finished run has done
  void GoOn();               // with the finished run
  bool Lock();               // false: there is no such folder
  void MakeFolder();
  // Rungs that begin as pruned blocks of the backbone.
  std::vector<data::Example> FisherExamples() const;
  void PlanImportance(const model::Backbone& shape);
  model::PrunedSelection SelectRungs() const;
  void MakeAdapter();
  void OpenStateCache();
  void ResumeOrBegin();
  // The micro-batches of a step. The sum of losses; nothing: interrupted, and the position is as before.
  std::optional<double> Accumulate(const data::EpochPlan& plan, int64_t end, int64_t* targets, int64_t* rows);
  // False: states from the tap cache were damaged and the gradients so far are void.
  bool RunMicroBatch(const data::Batch& batch, double* loss_sum);
  // One micro-batch in planned memory; `crossing` as in model::PassInput. Losses of its targets.
  std::vector<float> RunPlanned(const data::Batch& batch, const model::CrossingIo* crossing);
  void Reserve(size_t bytes);  // makes the arena at least this large; between steps only
  StepReport Update(double loss_sum, int64_t targets);
  void Measure(double seconds, int64_t rows, StepReport* report);  // adds its speed, and where the run stands
  RunResult Finish(bool interrupted);
  void AfterStep(const StepReport& report);
  std::string WatchSkippedStep();  // runs it once more and says what it began with
  [[noreturn]] void StopNotFinite(const std::string& what);
  void LoadHeldOut();
  // limit 0: unknown.
  void PlanAnswers(const model::Backbone& shape, const model::Adapter& planned, uint64_t limit);
  // Gives the arena back meanwhile. Nothing: interrupted.
  std::optional<std::vector<std::string>> Answer(std::span<const infer::Question> questions,
                                                 const infer::AnswerShape& shape,
                                                 const model::Adapter* adapter);
  bool EvaluationDue() const;
  // These return false when interrupted: the evaluation is still to be done.
  bool Evaluate();
  bool AnswerExactly(EvalReport* report);
  void KeepBest(double value);
  void RetryBest(bool last);  // that a disk refused, if any was; `last`: whatever comes of it is said
  Measured MeasuredNow() const;
  void ResumeBest();                      // as far as it can be compared with what this run measures
  void LoadBest();                        // at the end, where it is wanted
  void AnswerSamples(const char* stage);  // "before" training or "after"; never why a run fails
  RunState State() const;
  model::AdapterOrigin Origin() const;
  Status Save();
  Status SaveAdapterTo(const Path& folder) const;
  void SaveAndNote();  // the run is worth more than one checkpoint: a failure is said and tried again later
  void SaveAtEnd(bool interrupted);  // a disk that refuses it is given time; throws Error after that
  void OpenLog();
  void Note(const std::string& line) const;
  train::Settings Settings() const;

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
  mutable std::optional<RunLog> log_;
  mutable std::vector<std::string> early_notes_;  // from before there was a log
  std::unique_ptr<StateCache> cache_;
  // Of the held-out records: those to be answered exactly; the first of them are the samples.
  std::vector<infer::Question> questions_;
  int64_t samples_ = 0;
  infer::AnswerShape exact_shape_, sample_shape_;
  std::optional<BestEvaluation> best_;
  BestFolder best_folder_;
  std::optional<double> last_value_;  // of the last evaluation in this process, as saved_step_ of its saves
  int64_t evaluated_step_ = 0, saved_step_ = 0, adapter_step_ = 0;  // adapter_step_: of the result
  RunPosition position_;
  struct {
    int64_t epoch = 0, begin = 0, end = 0;
  } tried_;            // micro-batches of the last step, whatever became of it
  uint64_t draw_ = 0;  // of the micro-batch's dropout masks
  std::optional<RunLock> lock_;
  std::optional<FinishedRun> finished_;  // that --resume found
  bool preview_ = false;                 // nothing is written
  Status probed_ = Ok{};                 // whether the folder can be written to
  Checkpoint checkpoint_;
  ResumeReport resumed_;
  std::optional<SaveSchedule> saves_;
  uint32_t epochs_ = 1;  // the last one may be run in part
  int64_t total_steps_ = 0, warmup_steps_ = 0, skipped_ = 0, skipped_in_row_ = 0, first_step_ = 0;
  double base_rate_ = 0.0, peak_flops_ = 0.0, last_loss_ = 0.0, step_flops_ = 0.0;
  double waiting_seconds_ = 0.0;  // making the batches of a step
  double earlier_seconds_ = 0.0;  // of the earlier parts of a resumed run
  double epoch_done_ = 0.0;       // passes over the data, with a fraction
  int64_t total_tokens_ = 0;      // rows of all steps, earlier parts included
  std::chrono::steady_clock::time_point started_;
};

}  // namespace rung::train
