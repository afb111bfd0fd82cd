#include <fmt/format.h>

#include "cli/choice.h"
#include "cli/train_flags.h"
#include "train/evaluation.h"

namespace rung::cli {

void AddEvaluationFlags(CLI::App& app, TrainFlags* flags) {
  train::TrainOptions& o = flags->options;
  app.add_option("--eval-metric", flags->eval_metric,
                 "which evaluation is the best: loss, token_accuracy, exact_match (answers are generated)")
      ->capture_default_str()
      ->check(CLI::IsMember(NamesIn(train::kEvalMetricNames)));
  app.add_option("--eval-limit", o.eval.limit, "first so many held-out records; 0: all")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--eval-slots", o.eval.slots, "answers generated at once for exact_match")
      ->capture_default_str()
      ->check(CLI::Range(1, 1024));
  app.add_option("--early-stopping-patience", o.eval.patience,
                 "end the run after so many evaluations in a row without enough improvement; 0: never")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--early-stopping-threshold", o.eval.threshold, "what is enough, of the metric")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option(
         "--load-best", flags->load_best,
         "end with the adapter of the best evaluation; default: where --eval-steps evaluates on the way")
      ->expected(0, 1)
      ->default_str("true")  // when no value is given
      ->check(CLI::IsMember({"true", "false"}))
      ->option_text("[true|false]");
  app.add_option("--samples", o.eval.samples,
                 "held-out records that the model answers before and after training; 0: none")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
  app.add_option("--max-skipped", o.max_skipped,
                 "end the run after so many steps in a row whose loss or gradient is not finite")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 30));
  app.add_flag("--nan-watch", o.nan_watch,
               "at the first such step, look for the operation that it began with");
}

void ResolveEvaluation(const TrainFlags& flags, train::TrainOptions* options) {
  options->eval.metric = Chosen(train::kEvalMetricNames, "--eval-metric", flags.eval_metric);
  if (!flags.load_best.empty()) options->eval.load_best = flags.load_best == "true";
  Status meaningful = train::CheckEvaluation(*options);
  if (!meaningful.ok()) throw Error(meaningful.failure().code, meaningful.failure().message);
}

}  // namespace rung::cli
