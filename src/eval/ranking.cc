#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>

#include "base/clock.h"
#include "data/packer.h"
#include "eval/batch_runner.h"
#include "infer/answers.h"

namespace rung::eval {
namespace {

// Rows that are encoded before they are packed: several batches, so that few are short.
constexpr int64_t kBatchesAtOnce = 8;

// One record with one of its choices.
struct Candidate {
  size_t record = 0, choice = 0;
  double nats = 0.0;
  int64_t targets = 0;
};

// The completion that a record expects; empty when it has none.
std::string_view CompletionOf(const data::Record& record) {
  if (record.shape == data::Shape::kCompletion) return record.completion;
  if (record.shape == data::Shape::kMessages && record.messages.back().role == "assistant") {
    return record.messages.back().content;
  }
  return {};
}

std::optional<size_t> FindChoice(std::span<const std::string> choices, std::string_view text) {
  const std::string wanted = infer::Trimmed(text);
  for (size_t c = 0; c < choices.size(); ++c) {
    if (infer::Trimmed(choices[c]) == wanted) return c;
  }
  return std::nullopt;
}

// Which choice is right.
Result<size_t> RightChoice(const data::Record& record, std::span<const std::string> choices) {
  if (const auto found = FindChoice(choices, CompletionOf(record))) return *found;
  if (record.label.empty()) {
    return Failure{fmt::format("row {}: the completion \"{:.60}\" is none of the {} choices", record.row,
                               CompletionOf(record), choices.size())};
  }
  if (const auto found = FindChoice(choices, record.label)) return *found;
  size_t index = 0;
  const char* end = record.label.data() + record.label.size();
  const auto [stop, error] = std::from_chars(record.label.data(), end, index);
  if (error == std::errc() && stop == end && index < choices.size()) return index;
  return Failure{
      fmt::format("row {}: neither the completion nor the label \"{:.60}\" is one of the {} choices",
                  record.row, record.label, choices.size())};
}

// Candidates of many records, scored in batches.
class Ranker {
 public:
  Ranker(const Subject& subject, const RankOptions& options)
      : encoder_(subject.text.vocabulary(), {std::min(options.max_length, options.tokens + 1), true}),
        tokens_(options.tokens),
        runner_(subject) {}

  void Add(const data::Record& record, size_t index, std::span<const std::string> choices) {
    for (size_t c = 0; c < choices.size(); ++c) {
      const data::Record with = data::WithCompletion(record, choices[c]).OrThrow();
      Result<data::Example> encoded = encoder_.Encode(with);
      if (!encoded.ok()) {
        throw Error(ExitCode::kBadInput, fmt::format("row {}, choice \"{:.60}\": {}", record.row, choices[c],
                                                     encoded.failure().message));
      }
      data::Example example = std::move(encoded).value();
      example.record = static_cast<int64_t>(candidates_.size());
      waiting_rows_ += static_cast<int64_t>(example.ids.size()) - 1;
      waiting_.push_back(std::move(example));
      candidates_.push_back({index, c, 0.0, 0});
    }
    if (waiting_rows_ >= kBatchesAtOnce * tokens_) Flush();
  }

  void Flush() {
    const data::Examples waiting(waiting_);
    const data::EpochPlan plan = data::PlanInOrder(data::RowsOf(waiting), tokens_).OrThrow();
    for (size_t b = 0; b < plan.batches.size(); ++b) {
      Score(data::MakeBatch(plan, static_cast<int64_t>(b), waiting));
    }
    waiting_.clear();
    waiting_rows_ = 0;
  }

  const std::vector<Candidate>& candidates() const { return candidates_; }

 private:
  void Score(const data::Batch& batch) {
    const std::vector<float> losses = runner_.Losses(batch);
    size_t next = 0;
    for (size_t s = 0; s + 1 < batch.starts.size(); ++s) {
      Candidate& candidate = candidates_[static_cast<size_t>(batch.records[s])];
      for (int64_t row = batch.starts[s]; row < batch.starts[s + 1]; ++row) {
        if (batch.target[static_cast<size_t>(row)] < 0) continue;
        candidate.nats += static_cast<double>(losses[next++]);
        ++candidate.targets;
      }
    }
  }

  data::Encoder encoder_;
  int64_t tokens_;
  BatchRunner runner_;
  std::vector<data::Example> waiting_;
  int64_t waiting_rows_ = 0;
  std::vector<Candidate> candidates_;
};

double CostOf(const Candidate& candidate, bool per_token) {
  return per_token ? candidate.nats / static_cast<double>(candidate.targets) : candidate.nats;
}

}  // namespace

Accuracy ScoreRanking(const Subject& subject, std::span<const data::Record> records,
                      std::span<const std::string> choices, const RankOptions& options,
                      const OnProgress& on_progress) {
  const auto begin = std::chrono::steady_clock::now();
  const auto choices_of = [&](size_t i) {
    return choices.empty() ? std::span<const std::string>(records[i].choices) : choices;
  };
  Accuracy accuracy;
  std::vector<size_t> right(records.size());
  // Everything is checked before the work begins.
  for (size_t i = 0; i < records.size(); ++i) {
    if (choices_of(i).empty()) {
      throw Error(ExitCode::kBadInput, fmt::format("row {}: the record has no \"choices\"", records[i].row));
    }
    right[i] = RightChoice(records[i], choices_of(i)).OrThrow();
  }
  Ranker ranker(subject, options);
  for (size_t i = 0; i < records.size(); ++i) {
    ranker.Add(records[i], i, choices_of(i));
    if (on_progress && !on_progress(i + 1)) throw Error(ExitCode::kInterrupted, "interrupted");
  }
  ranker.Flush();

  std::vector<const Candidate*> best(records.size(), nullptr);
  for (const Candidate& candidate : ranker.candidates()) {
    const Candidate*& leader = best[candidate.record];
    if (!leader || CostOf(candidate, options.per_token) < CostOf(*leader, options.per_token))
      leader = &candidate;
  }
  for (size_t i = 0; i < records.size(); ++i) {
    accuracy.answers.push_back({static_cast<int64_t>(i), choices_of(i)[right[i]],
                                choices_of(i)[best[i]->choice], best[i]->choice == right[i]});
  }
  accuracy.seconds = SecondsSince(begin);
  return accuracy;
}

}  // namespace rung::eval
