// The record of a run, in its folder:
//
//   train_log.jsonl          one JSON object a line: steps, evaluations, events (docs/formats/train_log.md)
//   trainer_state.json       the same in Hugging Face's manner, replaced
//   events.out.tfevents.*    the same for TensorBoard
//
// The loop says what happens, once. A record that cannot be written does not end a run: a file's first
// failure is noted, writing is tried again with the next line.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "base/append_file.h"
#include "train/run.h"
#include "train/tensorboard.h"
#include "train/trainer_state.h"

namespace rung::train {

struct LogOptions {
  Path out;  // exists
  TrainerState::Settings state;
  // Steps of the checkpoint that the run goes on from; 0: it begins. The history up to there is taken from
  // the log that is there.
  int64_t resumed_step = 0;
  double earlier_seconds = 0.0;                  // spent by then
  std::function<void(const std::string&)> note;  // for the user: what cannot be written. May be empty.
};

class RunLog {
 public:
  explicit RunLog(const LogOptions& options);

  void Plan(const MemoryPlan& plan);
  void Step(const StepReport& step);
  void Eval(const EvalReport& eval);
  // A kind of RunEvent (train/history.h) and one line of text.
  void Event(const char* kind, const std::string& text);
  // An evaluation was the best so far; its adapter is in `folder`, relative to the run's.
  void Best(double metric, int64_t step, const std::string& folder);
  // A checkpoint was written: what was recorded up to here is made durable.
  void Saved(const Path& checkpoint);
  // The result is in its folder: trainer_state.json says that the run is finished.
  void Complete();
  // Also of a run that was interrupted; its seconds are those since it was begun or resumed.
  void Finish(const RunResult& result);

  // The text of trainer_state.json as it stands, for a checkpoint's folder.
  std::string StateText() const { return state_.Text(); }

 private:
  void TakeUpHistory();
  void OpenFiles();
  void Line(const std::string& text);
  void WriteState();
  void Scalars(int64_t step, std::span<const Scalar> scalars);
  // Notes the first failure of a file; `noted` is that file's.
  void Check(const Status& status, bool* noted);
  double Seconds() const;

  LogOptions options_;
  TrainerState state_;
  std::optional<AppendFile> lines_;
  std::optional<EventFile> events_;
  bool lines_noted_ = false, events_noted_ = false, state_noted_ = false;
  int64_t step_ = 0;  // the last one done

  std::chrono::steady_clock::time_point started_;
};

}  // namespace rung::train
