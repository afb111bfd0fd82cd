// What evaluations during a run decide: which adapter is kept, and when the run ends early. The rules are
// Hugging Face's (load_best_model_at_end, EarlyStoppingCallback).
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "infer/answers.h"
#include "train/checkpoint.h"
#include "train/run.h"

namespace rung::train {

// What the options' metric makes of a report. exact_match must be there when it is asked for.
double ValueOf(const EvalReport& report, EvalMetric metric);

// Takes the evaluation after `step` into account. True: it is the best so far (any improvement counts; of
// equals the first). Evaluations that do not improve on the best by more than the threshold are counted for
// StopsEarly, those that are not finite too. What `best` holds is all that later decisions depend on: a
// checkpoint keeps it.
bool TakeEvaluation(const EvalOptions& options, double value, int64_t step,
                    std::optional<BestEvaluation>* best);
bool StopsEarly(const EvalOptions& options, const std::optional<BestEvaluation>& best);
// Whether the run ends with the adapter of its best evaluation.
bool LoadsBest(const TrainOptions& options, bool has_eval_data);
// When the run ends early, where it may.
void AddEarlyStopping(const EvalOptions& options, Settings* settings);
// What evaluations depend on, that included, where they change the result of the run.
void AddEvaluation(const TrainOptions& options, const std::string& eval_data, Settings* settings);
// Refuses what has no meaning: an early end, or a best one, without evaluations.
Status CheckEvaluation(const TrainOptions& options);

// The first `limit` (0: all) held-out records that expect an answer, one read after another.
std::vector<infer::Question> LoadQuestions(const TrainOptions& options, const model::ModelText& text,
                                           int64_t limit);

// <out>/best/: an adapter folder, evaluation.json that says which, and checksums. Replaced as a whole.
inline constexpr const char* kBestFolder = "best";
inline constexpr const char* kEvaluation = "evaluation.json";
struct SavedBest {
  double value = 0.0;
  int64_t step = 0;
  Measured of;
};
// `save`: writes the adapter into a folder.
Status SaveBest(const Path& folder, const SavedBest& best, const std::function<Status(const Path&)>& save);
// Reads every byte; fails unless the folder is whole, saying what is wrong.
Result<SavedBest> ReadBest(const Path& folder);

// Gives best/ what is best, as often as it takes: an adapter that a disk refused waits in memory.
class BestFolder {
 public:
  using Save = std::function<Status(const Path&)>;  // writes the adapter, with the values it has
  explicit BestFolder(Path folder) : folder_(std::move(folder)) {}

  // The adapter as it is. What waited is given up. Where that fails it is kept for Retry, if it `may` be,
  // which is asked then.
  Status Keep(const SavedBest& best, std::span<const float> values, const std::function<bool()>& may,
              const Save& save);
  // What waits; `values` are the adapter's, other ones while it is written. Something must wait.
  Status Retry(std::span<float> values, const Save& save);
  bool waits() const { return !values_.empty(); }
  const SavedBest& best() const { return best_; }  // that waits, as its values
  std::span<const float> values() const { return values_; }
  const Path& folder() const { return folder_; }

 private:
  Path folder_;
  SavedBest best_;
  std::vector<float> values_;  // empty: nothing waits
};
bool IsBetter(EvalMetric metric, double value, double than);

}  // namespace rung::train
