#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "data/packer.h"
#include "eval/batch_runner.h"

namespace rung::eval {
namespace {

// Examples between two reports of progress: a few batches of the usual size.
constexpr size_t kReportEvery = 128;

}  // namespace

LossScore ScoreLoss(const Subject& subject, std::vector<data::Example> examples, int64_t tokens,
                    const OnProgress& on_progress) {
  const auto begin = std::chrono::steady_clock::now();
  BatchRunner runner(subject);
  LossScore score;
  double nats = 0.0, right = 0.0;
  for (size_t first = 0; first < examples.size(); first += kReportEvery) {
    const size_t end = std::min(examples.size(), first + kReportEvery);
    train::EncodedData part;
    part.examples = data::Examples(std::span(examples).subspan(first, end - first));
    part.rows = data::RowsOf(part.examples);
    Exec* ex = nullptr;
    // The same batches that EvaluateLoss makes.
    const data::EpochPlan plan = data::PlanInOrder(part.rows, tokens).OrThrow();
    for (size_t b = 0; b < plan.batches.size(); ++b) {
      ex = &runner.Reserve(data::MakeBatch(plan, static_cast<int64_t>(b), part.examples));
    }
    const train::EvalReport report =
        train::EvaluateLoss(*ex, subject.backbone, subject.adapter, part, tokens);
    nats += report.loss * static_cast<double>(report.targets);
    right += report.token_accuracy * static_cast<double>(report.targets);
    score.targets += report.targets;
    score.records += report.records;
    for (const int64_t rows : part.rows) score.rows += rows;
    if (on_progress && !on_progress(end)) throw Error(ExitCode::kInterrupted, "interrupted");
  }
  if (score.targets > 0) {
    score.loss = nats / static_cast<double>(score.targets);
    score.token_accuracy = right / static_cast<double>(score.targets);
  }
  score.seconds = SecondsSince(begin);
  return score;
}

}  // namespace rung::eval
