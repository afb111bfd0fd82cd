// For tests: training steps that PyTorch took (tests/data/{ladder,method,lora}), as adapters and batches.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "model/test_support.h"
#include "train/step.h"

namespace rung::train {

class GoldenStep {
 public:
  // "ladder/step_sum", "lora/lora_qwen3", ...
  explicit GoldenStep(const std::string& name) : golden_("tests/data/" + name + ".safetensors") {}

  const model::Golden& golden() const { return golden_; }
  std::string family() const { return Meta("family", "llama3"); }

  model::Backbone MakeBackbone(DType compute = DType::kF32,
                               model::Quantize quantize = model::Quantize::kNone) const {
    model::BackboneOptions options;
    options.recipe.matrices = quantize;
    options.compute = compute;
    options.positions = 128;
    return model::Backbone::Load("tests/data/families/" + family(), options).OrThrow();
  }

  data::Batch MakeBatch() const {
    data::Batch batch;
    batch.ids = golden_.Ints("ids");
    batch.target = golden_.Ints("target");
    for (const int32_t start : golden_.Ints("starts")) batch.starts.push_back(start);
    for (size_t s = 0; s + 1 < batch.starts.size(); ++s) {
      for (int64_t i = batch.starts[s]; i < batch.starts[s + 1]; ++i) {
        batch.position.push_back(static_cast<int32_t>(i - batch.starts[s]));
      }
    }
    return batch;
  }

  model::AdapterSpec Spec(const model::Config& config) const {
    model::AdapterSpec spec;
    if (golden_.Has("taps")) spec.ladder = Ladder();
    if (!Meta("r", "").empty()) spec.lora = Lora(config);
    return spec;
  }

  // With the golden's parameters and room for gradients.
  model::Adapter MakeAdapter(const model::Config& config) const {
    model::Adapter adapter = model::Adapter::Allocate(config, Spec(config), true, 128);
    const auto fill = [&](const std::string& name, const Tensor& tensor) {
      const std::vector<float> values = golden_.Floats(name);
      ASSERT_EQ(values.size(), static_cast<size_t>(tensor.size())) << name;
      std::copy(values.begin(), values.end(), Out{tensor}.as<float>());
    };
    adapter.ForEachParam([&](nn::Param& param) { fill(param.name, param.value); });
    adapter.ForEachBuffer([&](const std::string& name, Tensor& tensor) { fill(name, tensor); });
    return adapter;
  }

 private:
  std::string Meta(const std::string& key, const std::string& otherwise) const {
    const auto& metadata = golden_.file().metadata();
    const auto found = metadata.find(key);
    return found == metadata.end() ? otherwise : found->second;
  }
  int64_t Number(const std::string& key, const std::string& otherwise) const {
    return std::stoll(Meta(key, otherwise));
  }

  model::LadderSpec Ladder() const {
    model::LadderSpec spec;
    for (const int32_t tap : golden_.Ints("taps")) spec.taps.push_back(tap);
    spec.rungs = Number("rungs", "0");
    spec.S = Number("width", "32");
    spec.F = Number("inner", "0");
    spec.head_dim = Number("head_dim", "0");
    spec.heads = Number("heads", "0");
    spec.kv_heads = Number("kv_heads", "0");
    spec.rejoin = Number("rejoin", "0");
    std::stringstream pairs(Meta("rope_pairs", ""));
    for (std::string word; std::getline(pairs, word, ',');) spec.rope_pairs.push_back(std::stoll(word));
    const std::string gate = Meta("gate", "sum");
    spec.gate = gate == "sum"           ? model::Gate::kSum
                : gate == "interpolate" ? model::Gate::kInterpolate
                                        : model::Gate::kInterpolateVector;
    if (Meta("norm", "rms") == "layer") spec.norm = nn::NormKind::kLayer;
    spec.rotary = Meta("rotary", "true") == "true";
    if (Meta("block", "decoder") == "plain") spec.kind = model::RungKind::kPlain;
    if (Meta("tap_map", "project") == "pooled") spec.tap_map = model::TapMap::kPooled;
    if (Meta("tap_norm", "standardize") == "none") spec.tap_norm = model::TapNorm::kNone;
    spec.output_scale = golden_.Floats("output_scale")[0];
    return spec;
  }

  model::LoraSpec Lora(const model::Config& config) const {
    model::LoraSpec spec;
    spec.R = Number("r", "0");
    spec.alpha = std::stod(Meta("lora_alpha", "0"));
    spec.rank_stabilized = Meta("use_rslora", "false") == "true" || Meta("use_rslora", "") == "True";
    std::stringstream targets(Meta("target_modules", "")), layers(Meta("layers", "all"));
    std::vector<std::string> wanted;
    for (std::string word; std::getline(targets, word, ',');) wanted.push_back(word);
    for (const std::string& known : model::LoraTargets(config)) {
      if (std::find(wanted.begin(), wanted.end(), known) != wanted.end()) spec.targets.push_back(known);
    }
    if (Meta("layers", "all") == "all") {
      for (int64_t l = 0; l < config.L; ++l) spec.layers.push_back(l);
    } else {
      for (std::string word; std::getline(layers, word, ',');) spec.layers.push_back(std::stoll(word));
    }
    return spec;
  }

  model::Golden golden_;
};

// One sequence of a batch as a batch of its own.
inline data::Batch SequenceOf(const data::Batch& batch, size_t s) {
  data::Batch one;
  const auto begin = batch.starts[s], end = batch.starts[s + 1];
  one.ids.assign(batch.ids.begin() + begin, batch.ids.begin() + end);
  one.target.assign(batch.target.begin() + begin, batch.target.begin() + end);
  one.position.assign(batch.position.begin() + begin, batch.position.begin() + end);
  one.starts = {0, end - begin};
  return one;
}

}  // namespace rung::train
