#include <fmt/format.h>

#include <algorithm>

#include "data/jsonl.h"
#include "train/run.h"
#include "train/step.h"

namespace rung::train {
EncodedData LoadData(const Path& path, const model::ModelText& text, const TrainOptions& options) {
  const std::vector<data::Record> records = data::ReadJsonl(path).OrThrow();
  const data::Encoder encoder(text.vocabulary(), {options.max_length, !options.train_on_prompt});
  EncodedData encoded;
  encoded.examples = encoder.EncodeAll(records, path.string(), &encoded.report).OrThrow();
  encoded.rows = data::RowsOf(encoded.examples);
  return encoded;
}

void FindLargestBatch(const ComputeOptions& compute, const model::Backbone& backbone,
                      const model::Adapter& adapter, const EncodedData& data, const data::EpochPlan& plan,
                      bool learn, int64_t most, LargestBatch* largest) {
  for (size_t b = 0; b < plan.batches.size() && largest->planned < most; ++b, ++largest->planned) {
    data::Batch batch = data::MakeBatch(plan, static_cast<int64_t>(b), data.examples);
    const StepPlan step = PlanStep(compute.context, compute.compute, backbone, &adapter, batch, learn);
    if (step.peak.bytes <= largest->bytes) continue;
    largest->bytes = step.peak.bytes;
    largest->batch = std::move(batch);
  }
}

EvalReport EvaluateLoss(Exec& ex, const model::Backbone& backbone, const model::Adapter* adapter,
                        const EncodedData& data, int64_t tokens) {
  const data::EpochPlan plan = data::PlanInOrder(data.rows, tokens).OrThrow();
  EvalReport report;
  report.records = static_cast<int64_t>(data.examples.size());
  double sum = 0.0;
  int64_t right = 0;
  for (size_t b = 0; b < plan.batches.size(); ++b) {
    const data::Batch batch = data::MakeBatch(plan, static_cast<int64_t>(b), data.examples);
    const model::BatchInput input(batch);
    const int64_t M = input.target_count();
    std::vector<float> loss(static_cast<size_t>(M));
    std::vector<int32_t> best(static_cast<size_t>(M));
    const Out best_out{View(best.data(), 1, M)};
    Step(ex, backbone, adapter, input, false, Out{View(loss.data(), 1, M)}, &best_out);
    const int32_t* target = In(input.target()).as<int32_t>();
    for (int64_t m = 0; m < M; ++m) {
      sum += static_cast<double>(loss[static_cast<size_t>(m)]);
      right += best[static_cast<size_t>(m)] == target[m];
    }
    report.targets += M;
  }
  report.loss = sum / static_cast<double>(report.targets);
  report.token_accuracy = static_cast<double>(right) / static_cast<double>(report.targets);
  return report;
}

}  // namespace rung::train
