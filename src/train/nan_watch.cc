#include "train/nan_watch.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <vector>

#include "train/step.h"
#include "train/trainer.h"

namespace rung::train {

std::optional<FiniteWatch::Finding> WatchMicroBatch(Exec& ex, const model::Backbone& backbone,
                                                    const model::Adapter& adapter, const data::Batch& batch,
                                                    uint64_t draw) {
  model::BatchInput input(batch);
  input.set_draw(draw);
  std::vector<float> loss(static_cast<size_t>(input.target_count()));
  FiniteWatch watch;
  ex.set_watch(&watch);
  Step(ex, backbone, &adapter, input, true, Out{View(loss.data(), 1, input.target_count())}, nullptr);
  ex.set_watch(nullptr);
  return watch.first();
}

std::string DamagedParameter(const model::Adapter& adapter) {
  std::string found;
  adapter.ForEachParam([&](const nn::Param& param) {
    const int64_t count = found.empty() ? CountNotFinite(param.value) : 0;
    if (count > 0) {
      found = fmt::format("{}: {} of {} numbers are not finite", param.name, count, param.value.size());
    }
  });
  return found;
}

std::string Trainer::WatchSkippedStep() {
  const data::EpochPlan plan = EpochOf(tried_.epoch);
  // The weights are those of the first attempt, and so is every micro-batch.
  ops::Zero(*exec_, Out{adapter_->params().gradients});
  std::string text = "every operation of it was finite, the norm of its gradient was not";
  for (int64_t b = tried_.begin; b < tried_.end; ++b) {
    const data::Batch batch = data::MakeBatch(plan, b, data_.examples);
    Reserve(PlanStep(options_.compute.context, options_.compute.compute, *backbone_, &*adapter_, batch, true)
                .peak.bytes);
    const std::optional<FiniteWatch::Finding> found =
        WatchMicroBatch(*exec_, *backbone_, *adapter_, batch,
                        DrawOf(position_.step - 1, b - tried_.begin, options_.gradient_accumulation));
    if (!found) continue;
    text = fmt::format("the first was {} (operation {} of micro-batch {} of {})", found->text(),
                       found->launch, b - tried_.begin + 1, tried_.end - tried_.begin);
    break;
  }
  ops::Zero(*exec_, Out{adapter_->params().gradients});
  const std::string parameter = DamagedParameter(*adapter_);
  return parameter.empty() ? text : fmt::format("{}; of the adapter, {}", text, parameter);
}

std::string WaysOn(const Path& out) {
  const std::vector<int64_t> steps = CheckpointSteps(out);
  if (steps.empty()) return "";
  std::string text = fmt::format(
      "; --resume --resume-force, with another --learning-rate or data, goes on from checkpoint-{}",
      steps.back());
  if (steps.size() == 1) return text;
  std::vector<std::string> earlier;
  const size_t most = 5, from = steps.size() - 1 - std::min(most, steps.size() - 1);
  for (size_t i = from; i + 1 < steps.size(); ++i) earlier.push_back(fmt::format("checkpoint-{}", steps[i]));
  return text +
         fmt::format(
             "\nearlier ones are {}: to go on from one of them, delete those after it, or rename them, "
             "as to checkpoint-{}.old",
             fmt::join(earlier, ", "), steps.back());
}

void Trainer::StopNotFinite(const std::string& what) {
  std::string text = fmt::format("{} (step {}): {}", what, position_.step, WatchSkippedStep());
  const Path& out = options_.out;
  if (skipped_ == position_.step) {
    text +=
        "\nnothing was learned and nothing is saved: check the model (rung verify) and the data, or lower "
        "--learning-rate";
  } else if (CountNotFinite(adapter_->params().values) > 0) {
    text += "\nthe weights are damaged and not saved: lower --learning-rate" + WaysOn(out);
  } else if (Status saved = Save(); !saved.ok()) {
    text += fmt::format("\nthe weights before it are not saved: {}", saved.failure().message) + WaysOn(out);
  } else {
    text += fmt::format(
        "\nthe weights before it are saved in {}/checkpoint-{}: lower --learning-rate, or check the data",
        out.string(), position_.step);
    text += WaysOn(out);
  }
  RetryBest(true);
  throw Error(ExitCode::kNonFinite, text);
}

}  // namespace rung::train
