// trainer_state.json: the run so far, as Hugging Face's Trainer writes it (transformers.TrainerState).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "train/run.h"

namespace rung::train {

inline constexpr const char* kTrainerState = "trainer_state.json";

class TrainerState {
 public:
  // The log_history of the file has about as many entries of steps at most.
  static constexpr int64_t kEntries = 1000;

  struct Settings {
    int64_t total_steps = 0, eval_steps = 0, save_steps = 0;
    double epochs = 0.0;
  };
  explicit TrainerState(const Settings& settings);

  // In the order in which they happen. Losses and norms of `logging_steps` steps become one entry, their mean
  // over steps that were not skipped.
  void Add(const StepReport& step);
  void Add(const EvalReport& eval);
  // `folder` of the best adapter, relative to the run's.
  void SetBest(double metric, int64_t step, const std::string& folder);
  void Finish(double seconds);  // of the whole run

  std::string Text() const;  // JSON, keys sorted, as load_from_json reads it

 private:
  struct Entry {
    int64_t step = 0;
    double epoch = 0.0;
    double loss = 0.0, grad_norm = 0.0, learning_rate = 0.0;  // of steps
    std::optional<EvalReport> eval;
  };
  struct Window {
    int64_t steps = 0;
    double loss = 0.0, grad_norm = 0.0;  // sums
  };
  struct Best {
    double metric = 0.0;
    int64_t step = 0;
    std::string folder;
  };
  Settings settings_;
  int64_t logging_steps_ = 1;
  StepReport last_;
  Window window_, all_;
  double flops_ = 0.0;
  std::vector<Entry> entries_;
  std::optional<Best> best_;
  std::optional<double> seconds_;
};

// What the trainer_state.json of `out` says of a run that is finished; nothing: it is of one that is not.
Result<std::optional<FinishedRun>> ReadFinished(const Path& out);

}  // namespace rung::train
