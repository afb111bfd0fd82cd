#include "train/evaluation.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "data/dataset.h"
#include "data/reader.h"
#include "io/json_fields.h"
#include "io/json_file.h"
#include "train/checksums.h"

namespace rung::train {
namespace {

constexpr uint64_t kEvaluationLimit = uint64_t{1} << 16;

// Adds the questions of one file. False: there are enough.
bool AddQuestions(const data::DataFile& file, const TrainOptions& options, const data::Encoder& encoder,
                  const text::Tokenizer& tokenizer, int64_t limit, std::vector<infer::Question>* questions) {
  const DataOptions& o = options.data_options;
  const std::unique_ptr<data::RowReader> reader =
      data::RowReader::Open(file.path, o.read.sample_by).OrThrow();
  data::FileCheck check(reader->name(), o.read.max_bad_rows);
  data::RawRow row;
  while (reader->Next(&row).OrThrow()) {
    const std::optional<data::Record> record =
        check.Take(data::RecordOfRow(row, *reader, o.read), row.row, nullptr);
    if (!record) continue;
    if (o.valid_fraction > 0.0 && !data::IsHeldOut(data::ContentHash(*record), o.valid_fraction)) continue;
    std::optional<infer::Question> question = infer::Ask(encoder, tokenizer, *record);
    if (question) questions->push_back(std::move(*question));
    if (limit > 0 && static_cast<int64_t>(questions->size()) >= limit) return false;
  }
  return true;
}

}  // namespace

bool IsBetter(EvalMetric metric, double value, double than) {
  return metric == EvalMetric::kLoss ? value < than : value > than;
}

double ValueOf(const EvalReport& report, EvalMetric metric) {
  switch (metric) {
    case EvalMetric::kLoss:
      return report.loss;
    case EvalMetric::kTokenAccuracy:
      return report.token_accuracy;
    case EvalMetric::kExactMatch:
      break;
  }
  return report.exact_match.value();
}

bool TakeEvaluation(const EvalOptions& options, double value, int64_t step,
                    std::optional<BestEvaluation>* best) {
  if (!*best) {
    if (std::isfinite(value)) *best = BestEvaluation{value, step, 0};
    return best->has_value();
  }
  BestEvaluation& b = **best;
  const bool better = std::isfinite(value) && IsBetter(options.metric, value, b.metric);
  const bool enough = better && std::abs(value - b.metric) > options.threshold;
  b.evaluations_since = enough ? 0 : b.evaluations_since + 1;
  if (better) b.metric = value, b.step = step;
  return better;
}

bool StopsEarly(const EvalOptions& options, const std::optional<BestEvaluation>& best) {
  return options.patience > 0 && best && best->evaluations_since >= options.patience;
}

bool LoadsBest(const TrainOptions& options, bool has_eval_data) {
  return has_eval_data && options.eval_steps > 0 && options.eval.load_best.value_or(true);
}

void AddEarlyStopping(const EvalOptions& options, Settings* settings) {
  if (options.patience == 0) return;
  settings->emplace("early_stopping_patience", fmt::format("{}", options.patience));
  settings->emplace("early_stopping_threshold", fmt::format("{}", options.threshold));
}

void AddEvaluation(const TrainOptions& options, const std::string& eval_data, Settings* settings) {
  const EvalOptions& eval = options.eval;
  const bool best = LoadsBest(options, true);
  if (!best && eval.patience == 0) return;
  const auto add = [&](const char* key, const auto& value) {
    settings->emplace(key, fmt::format("{}", value));
  };
  add("eval_data", eval_data);
  add("eval_steps", options.eval_steps);
  add("eval_metric", NameOf(eval.metric));
  add("eval_limit", eval.limit);
  if (eval.metric == EvalMetric::kExactMatch) add("eval_slots", eval.slots);
  add("load_best", best);
  AddEarlyStopping(eval, settings);
}

Status CheckEvaluation(const TrainOptions& options) {
  const EvalOptions& eval = options.eval;
  const bool data = !options.eval_data.empty() || options.data_options.valid_fraction > 0.0;
  const char* evaluates =
      "needs evaluations on the way: give --eval-steps, and --eval-data or --valid-fraction";
  if (eval.patience > 0 && (!data || options.eval_steps == 0)) {
    return UsageFailure(fmt::format("--early-stopping-patience {}", evaluates));
  }
  if (eval.threshold != 0.0 && eval.patience == 0) {
    return UsageFailure("--early-stopping-threshold is of --early-stopping-patience");
  }
  if (!std::isfinite(eval.threshold) || eval.threshold < 0.0) {
    return UsageFailure("--early-stopping-threshold must be a finite number, 0 or more");
  }
  if (eval.load_best.value_or(false) && (!data || options.eval_steps == 0)) {
    return UsageFailure(fmt::format("--load-best {}", evaluates));
  }
  if (eval.metric != EvalMetric::kLoss && !data) {
    return UsageFailure(
        fmt::format("--eval-metric {} is of held-out records: give --eval-data or --valid-fraction",
                    NameOf(eval.metric)));
  }
  return Ok{};
}

std::vector<infer::Question> LoadQuestions(const TrainOptions& options, const model::ModelText& text,
                                           int64_t limit) {
  const data::Encoder encoder(text.vocabulary(), {});
  std::vector<infer::Question> questions;
  const bool split = options.data_options.valid_fraction > 0.0;
  for (const data::DataFile& file : split ? options.data : options.eval_data) {
    if (!AddQuestions(file, options, encoder, text.tokenizer, limit, &questions)) break;
  }
  return questions;
}

Status SaveBest(const Path& folder, const SavedBest& best, const std::function<Status(const Path&)>& save) {
  return WriteFolder(folder, [&](const Path& unfinished) -> Status {
    if (Status saved = save(unfinished); !saved.ok()) return saved;
    const nlohmann::ordered_json which = {
        {"step", best.step}, {"metric", best.of.metric}, {"value", best.value}, {"eval_data", best.of.data}};
    return WriteTextFile(unfinished / kEvaluation, which.dump(2) + "\n");
  });
}

Status BestFolder::Keep(const SavedBest& best, std::span<const float> values,
                        const std::function<bool()>& may, const Save& save) {
  values_ = std::vector<float>();  // {} would keep its memory
  Status saved = SaveBest(folder_, best, save);
  if (!saved.ok() && may()) {
    best_ = best;
    values_.assign(values.begin(), values.end());
  }
  return saved;
}

Status BestFolder::Retry(std::span<float> values, const Save& save) {
  RUNG_CHECK(values.size() == values_.size(), "the best adapter that waits has another size");
  std::swap_ranges(values_.begin(), values_.end(), values.begin());
  Status saved = SaveBest(folder_, best_, save);
  std::swap_ranges(values_.begin(), values_.end(), values.begin());
  if (saved.ok()) values_ = std::vector<float>();
  return saved;
}

Result<SavedBest> ReadBest(const Path& folder) {
  const Status verified = VerifyChecksums(folder, {"adapter_model.safetensors", kEvaluation});
  if (!verified.ok()) return verified.failure();
  const Path file = folder / kEvaluation;
  Result<nlohmann::json> which = io::ReadJson(file, kEvaluationLimit);
  if (!which.ok()) return which.failure();
  io::JsonFields fields(which.value(), file.string());
  SavedBest best{fields.Get<double>("value"),
                 fields.Count("step"),
                 {fields.Get<std::string>("metric"), fields.GetOr<std::string>("eval_data", "")}};
  if (!std::isfinite(best.value)) fields.Fail("value is not finite");
  if (!fields.ok()) return fields.failure();
  return best;
}

}  // namespace rung::train
