#include <fmt/format.h>

#include <algorithm>

#include "train/identity.h"
#include "train/run.h"
#include "train/step.h"

namespace rung::train {

data::DatasetOptions DatasetOf(std::span<const data::DataFile> files, data::Part part,
                               const DataOptions& options) {
  data::DatasetOptions wanted;
  wanted.files = {files.begin(), files.end()};
  wanted.read = options.read;
  wanted.part = part;
  wanted.valid_fraction = options.valid_fraction;
  wanted.cache_is_default = !options.cache.has_value();
  wanted.cache = options.cache ? *options.cache : data::DefaultCache(files);
  wanted.cache_limit = options.cache_limit;
  return wanted;
}

EncodedData LoadData(std::span<const data::DataFile> files, data::Part part, const model::ModelText& text,
                     const TrainOptions& options, const RunEvents& events,
                     const std::atomic<bool>* interrupt) {
  const data::Encoder encoder(
      text.vocabulary(), {options.max_length, !options.train_on_prompt, options.data_options.mask_history,
                          options.data_options.truncation, options.data_options.special_tokens});
  data::DatasetOptions wanted = DatasetOf(files, part, options.data_options);
  wanted.threads = options.compute.context.threads;
  wanted.on_progress = events.on_encoding;
  wanted.interrupt = interrupt;
  if (!wanted.cache.empty()) {
    wanted.encoder_identity = TextIdentity(options.model, text.chat_identity());
  }
  data::Dataset dataset = data::LoadDataset(wanted, encoder).OrThrow();
  EncodedData encoded;
  encoded.examples = std::move(dataset.examples);
  encoded.rows = data::RowsOf(encoded.examples);
  encoded.report = std::move(dataset.report);
  encoded.notes = std::move(dataset.notes);
  for (const std::string& row : dataset.bad_rows) encoded.notes.push_back("left out: " + row);
  if (!dataset.cache_file.empty()) {
    encoded.notes.push_back(
        fmt::format("tokens {} {}", dataset.cached ? "read from" : "kept in", dataset.cache_file.string()));
  }
  return encoded;
}

void FindLargestBatch(const ComputeOptions& compute, const model::Backbone& backbone,
                      const model::Adapter& adapter, const EncodedData& data, const data::EpochPlan& plan,
                      bool learn, int64_t most, LargestBatch* largest) {
  for (size_t b = 0; b < plan.batches.size() && largest->planned < most; ++b, ++largest->planned) {
    data::Batch batch = data::MakeBatch(plan, static_cast<int64_t>(b), data.examples);
    data.examples.Prefetch({});
    const StepPlan step = PlanStep(compute.context, compute.compute, backbone, &adapter, batch, learn);
    if (step.peak.bytes <= largest->bytes) continue;
    largest->bytes = step.peak.bytes;
    largest->batch = std::move(batch);
  }
}

EvalReport EvaluateLoss(Exec& ex, const model::Backbone& backbone, const model::Adapter* adapter,
                        const EncodedData& data, int64_t tokens, const std::atomic<bool>* interrupt) {
  const data::EpochPlan plan = data::PlanInOrder(data.rows, tokens).OrThrow();
  EvalReport report;
  report.records = data.examples.size();
  double sum = 0.0;
  int64_t right = 0;
  for (size_t b = 0; b < plan.batches.size() && !(interrupt && interrupt->load()); ++b) {
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
