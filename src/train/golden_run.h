// For tests: a golden step run by this engine, and what it gave.
#pragma once

#include "train/golden_step.h"
#include "train/step.h"

namespace rung::train {

inline std::vector<float> Flat(const Tensor& tensor) {
  const float* data = In(tensor).as<float>();
  return {data, data + tensor.size()};
}

// Loss of each target and the flat gradient of their sum.
struct Outcome {
  std::vector<float> loss, gradient;
};

inline Outcome RunStep(const model::Backbone& backbone, model::Adapter& adapter,
                       const std::vector<data::Batch>& batches, const cpu::Context& context, DType compute,
                       uint64_t draw = 0) {
  Outcome outcome;
  const Tensor gradients = adapter.params().gradients;
  std::fill_n(Out{gradients}.as<float>(), gradients.size(), 0.0f);
  for (const data::Batch& batch : batches) {
    model::BatchInput input(batch);
    input.set_draw(draw);
    std::vector<float> loss(static_cast<size_t>(input.target_count()));
    model::PlanAndRun(context, compute, [&](Exec& ex) {
      Step(ex, backbone, &adapter, input, true, Out{View(loss.data(), 1, input.target_count())}, nullptr);
    });
    outcome.loss.insert(outcome.loss.end(), loss.begin(), loss.end());
  }
  outcome.gradient = Flat(gradients);
  return outcome;
}

// A trained tensor's gradient, as the last RunStep left it.
struct NamedGradient {
  std::string name;
  std::vector<float> values;
};
inline std::vector<NamedGradient> GradientsOf(const model::Adapter& adapter) {
  std::vector<NamedGradient> all;
  adapter.ForEachParam([&](nn::Param& param) { all.push_back({param.name, Flat(param.grad)}); });
  return all;
}

}  // namespace rung::train
