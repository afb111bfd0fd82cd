#include "model/lora.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "base/text.h"

namespace rung::model {
namespace {

// One linear layer of a block: PEFT's path of it, its shape, and its place in BlockLoras.
struct Target {
  const char* name;
  const char* module;
  int64_t out, in;
  const nn::Lora* nn::BlockLoras::*place;
};

std::vector<Target> TargetsOf(const Config& c) {
  const int64_t q = c.Hq * c.D, kv = c.Hkv * c.D;
  std::vector<Target> targets = {{"q_proj", "self_attn", q, c.C, &nn::BlockLoras::q},
                                 {"k_proj", "self_attn", kv, c.C, &nn::BlockLoras::k},
                                 {"v_proj", "self_attn", kv, c.C, &nn::BlockLoras::v},
                                 {"o_proj", "self_attn", c.C, q, &nn::BlockLoras::o}};
  if (c.block().gated) targets.push_back({"gate_proj", "mlp", c.F, c.C, &nn::BlockLoras::gate});
  targets.push_back({"up_proj", "mlp", c.F, c.C, &nn::BlockLoras::up});
  targets.push_back({"down_proj", "mlp", c.C, c.F, &nn::BlockLoras::down});
  return targets;
}

nn::Param Matrix(std::string name, int64_t rows, int64_t cols) {
  nn::Param param;
  param.name = std::move(name);
  param.value = View(static_cast<float*>(nullptr), rows, cols);
  return param;
}

std::string Trimmed(const std::string& text) {
  const size_t begin = text.find_first_not_of(' ');
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(' ') + 1 - begin);
}

}  // namespace

float LoraSpec::scale() const {
  const auto r = static_cast<double>(R);
  return static_cast<float>(rank_stabilized ? alpha / std::sqrt(r) : alpha / r);
}

std::vector<std::string> LoraTargets(const Config& config) {
  std::vector<std::string> names;
  for (const Target& target : TargetsOf(config)) names.emplace_back(target.name);
  return names;
}

Result<std::vector<std::string>> ParseTargets(const std::string& text, const Config& config) {
  const std::vector<std::string> known = LoraTargets(config);
  if (text.empty() || text == "all" || text == "all-linear") return known;
  std::vector<std::string> chosen;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string name = Trimmed(text.substr(begin, end - begin));
    if (std::find(known.begin(), known.end(), name) == known.end()) {
      return Failure{fmt::format("--lora-targets {}: no linear layer \"{}\"; this model has {}", text, name,
                                 fmt::join(known, ", ")),
                     ExitCode::kUsage};
    }
    chosen.push_back(name);
    begin = end + 1;
  }
  // In the model's order, each once.
  std::vector<std::string> ordered;
  for (const std::string& name : known) {
    if (std::find(chosen.begin(), chosen.end(), name) != chosen.end()) ordered.push_back(name);
  }
  return ordered;
}

LoraSet::LoraSet(const Config& config, const LoraSpec& spec)
    : spec_(spec), paired_head_(config.rope.half ? 0 : config.D) {
  RUNG_CHECK(!spec.layers.empty() && !spec.targets.empty(), "lora: at least one layer and one target");
  RUNG_CHECK(spec.R > 0, "lora: the rank is positive");
  layers_.resize(static_cast<size_t>(config.L));
  for (const int64_t layer : spec.layers) {
    auto block = std::make_unique<nn::BlockLoras>();
    for (const Target& target : TargetsOf(config)) {
      if (std::find(spec.targets.begin(), spec.targets.end(), target.name) == spec.targets.end()) continue;
      auto pair = std::make_unique<nn::Lora>();
      const std::string name =
          fmt::format("base_model.model.model.layers.{}.{}.{}", layer, target.module, target.name);
      pair->a = Matrix(name + ".lora_A.weight", spec.R, target.in);
      pair->b = Matrix(name + ".lora_B.weight", target.out, spec.R);
      pair->scale = spec.scale();
      pair->dropout = static_cast<float>(spec.dropout);
      pair->stream = static_cast<uint32_t>(pairs_.size());
      (*block).*target.place = pair.get();
      pairs_.push_back(std::move(pair));
    }
    layers_[static_cast<size_t>(layer)] = std::move(block);
  }
}

const nn::BlockLoras* LoraSet::layer(int64_t layer) const {
  return layers_[static_cast<size_t>(layer)].get();
}

void LoraSet::ForEachParam(const nn::VisitParam& visit) {
  for (const std::unique_ptr<nn::Lora>& pair : pairs_) {
    visit(pair->a);
    visit(pair->b);
  }
}

void LoraSet::Initialize(uint64_t seed) {
  for (const std::unique_ptr<nn::Lora>& pair : pairs_) {
    pair->seed = seed;
    // Substreams of their own, behind those of the parameters of a ladder.
    const Rng rng(seed, Stream::kInit, (uint32_t{1} << 16) + pair->stream);
    const float bound = 1.0f / std::sqrt(static_cast<float>(pair->a.value.cols()));
    float* out = Out{pair->a.value}.as<float>();
    for (int64_t i = 0; i < pair->a.value.size(); ++i) {
      out[i] = bound * (2.0f * rng.Uniform(static_cast<uint64_t>(i)) - 1.0f);
    }
  }
}

}  // namespace rung::model
