#include <fmt/format.h>

#include <algorithm>

#include "data/jsonl.h"
#include "train/run.h"
#include "train/step.h"

namespace rung::train {
namespace {

void Grow(const EncodedData& data, const data::EpochPlan& plan, BatchShape* largest) {
  for (const std::vector<int64_t>& batch : plan.batches) {
    BatchShape shape{0, 0, static_cast<int64_t>(batch.size())};
    for (const int64_t index : batch) {
      shape.tokens += data.rows[static_cast<size_t>(index)];
      shape.targets += data.examples[static_cast<size_t>(index)].target_count();
    }
    largest->tokens = std::max(largest->tokens, shape.tokens);
    largest->targets = std::max(largest->targets, shape.targets);
    largest->sequences = std::max(largest->sequences, shape.sequences);
  }
}

}  // namespace

EncodedData LoadData(const Path& path, const model::ModelText& text, const TrainOptions& options) {
  const std::vector<data::Record> records = data::ReadJsonl(path).OrThrow();
  const data::Encoder encoder(text.vocabulary(), {options.max_length, !options.train_on_prompt});
  EncodedData encoded;
  encoded.examples = encoder.EncodeAll(records, path.string(), &encoded.report).OrThrow();
  encoded.rows = data::RowsOf(encoded.examples);
  return encoded;
}

BatchShape LargestTrainingBatch(const EncodedData& data, const TrainOptions& options, int64_t steps) {
  BatchShape largest;
  int64_t micro_batches = steps * options.gradient_accumulation;
  for (uint32_t epoch = 0; micro_batches > 0; ++epoch) {
    const data::EpochPlan plan = data::PlanEpoch(data.rows, options.tokens, options.seed, epoch).OrThrow();
    Grow(data, plan, &largest);
    // The last step of an epoch may be short of micro-batches.
    const auto whole = static_cast<int64_t>(plan.batches.size()) + options.gradient_accumulation - 1;
    micro_batches -= whole / options.gradient_accumulation * options.gradient_accumulation;
  }
  return largest;
}

BatchShape LargestEvaluationBatch(const EncodedData& data, int64_t tokens) {
  BatchShape largest;
  Grow(data, data::PlanInOrder(data.rows, tokens).OrThrow(), &largest);
  return largest;
}

EvalReport EvaluateLoss(Exec& ex, const model::Backbone& backbone, const model::Ladder* ladder,
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
    Step(ex, backbone, ladder, input, false, Out{View(loss.data(), 1, M)}, &best_out);
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
