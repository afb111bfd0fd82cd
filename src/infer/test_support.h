// For tests of this room and those above: small models with a ladder that does something.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/rng.h"
#include "infer/session.h"
#include "kernels/cpu/isa.h"
#include "model/adapter.h"
#include "model/backbone.h"

namespace rung::infer {

inline model::Backbone LoadSmall(const std::string& path, DType compute, int64_t positions = 0) {
  model::BackboneOptions options;
  options.recipe.matrices = model::Quantize::kNone;
  options.compute = compute;
  options.positions = positions;
  return model::Backbone::Load(path, options).OrThrow();
}

// Two taps, three rungs, every parameter random: unlike a fresh ladder it changes the model's output.
inline model::AdapterSpec LadderAdapterSpec(const model::Config& config) {
  model::LadderSpec spec;
  spec.taps = {0, config.L - 1};
  spec.rungs = 3;
  spec.S = 32;
  spec.F = 48;
  spec.head_dim = 16;
  spec.gate = model::Gate::kInterpolate;
  spec.output_scale = 0.5f;
  return {spec, {}};
}
inline model::Adapter RandomAdapter(const model::Config& config, const model::AdapterSpec& spec,
                                    uint64_t seed = 7) {
  model::Adapter adapter = model::Adapter::Make(config, spec, seed, false, config.context);
  uint32_t substream = 100;
  adapter.ForEachParam([&](nn::Param& param) {
    const Rng rng(seed, Stream::kInit, substream++);
    const bool zero_at_start =
        param.name == "up.weight" || param.name.ends_with(".alpha") || param.name.ends_with("lora_B.weight");
    if (!zero_at_start) return;
    float* value = Out{param.value}.as<float>();
    for (int64_t i = 0; i < param.value.size(); ++i) value[i] = rng.Uniform(static_cast<uint64_t>(i)) - 0.5f;
  });
  return adapter;
}
inline model::Adapter RandomLadder(const model::Config& config, uint64_t seed = 7) {
  return RandomAdapter(config, LadderAdapterSpec(config), seed);
}
// A ladder that rejoins one layer below the top, with low-rank pairs on that layer.
inline model::Adapter RandomRejoining(const model::Config& config) {
  model::AdapterSpec spec = LadderAdapterSpec(config);
  spec.ladder->taps = {0};
  spec.ladder->rejoin = 1;
  spec.lora = model::LoraSpec{4, 8.0, 0.0, false, model::LoraTargets(config), {config.L - 1}};
  return RandomAdapter(config, spec);
}

// One thread: small products gain nothing from more, and on a busy machine threads wait for each other.
inline cpu::Context TestContext() { return {cpu::BestIsa(), 1}; }

// (V) after the last id.
inline std::vector<float> LastLogits(const model::Backbone& backbone, const model::Adapter* adapter,
                                     const std::vector<int32_t>& ids) {
  Session session(TestContext(), DType::kF32, backbone, adapter, 1, backbone.positions());
  const Advance all{0, ids};
  const Tensor logits = session.Step({&all, 1});
  const float* data = In(logits).as<float>();
  return {data, data + logits.cols()};
}
// Largest difference over the largest magnitude wanted.
inline double Apart(const std::vector<float>& got, const std::vector<float>& want) {
  EXPECT_EQ(got.size(), want.size());
  double apart = 0.0, largest = 0.0;
  for (size_t i = 0; i < std::min(got.size(), want.size()); ++i) {
    apart = std::max(apart, std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i])));
    largest = std::max(largest, std::abs(static_cast<double>(want[i])));
  }
  return apart / largest;
}

}  // namespace rung::infer
