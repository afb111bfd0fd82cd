// What evaluations during a run decide: which adapter is kept, and when the run ends early. The rules are
// Hugging Face's (load_best_model_at_end, EarlyStoppingCallback).
#pragma once

#include <functional>
#include <optional>
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
// What evaluations depend on, where they change the result of the run.
void AddEvaluation(const TrainOptions& options, const std::string& eval_data, Settings* settings);
// Refuses what has no meaning: an early end, or a best one, without evaluations.
Status CheckEvaluation(const TrainOptions& options);

// The first `limit` (0: all) held-out records that expect an answer, one read after another.
std::vector<infer::Question> LoadQuestions(const TrainOptions& options, const model::ModelText& text,
                                           int64_t limit);

// <out>/best/: an adapter folder, evaluation.json that says which, and checksums. Replaced as a whole.
inline constexpr const char* kBestFolder = "best";
struct BestFolder {
  Path folder;
  EvalMetric metric = EvalMetric::kLoss;
};
// `save`: writes the adapter into a folder.
Status SaveBest(const BestFolder& best, double value, int64_t step,
                const std::function<Status(const Path&)>& save);
// Fails unless the folder is whole and is that of this step, saying what is wrong.
Status CheckBest(const BestFolder& best, int64_t step);

}  // namespace rung::train
