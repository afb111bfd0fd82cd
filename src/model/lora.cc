#include "model/lora.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "base/text.h"
#include "model/block_linears.h"
#include "model/config_difference.h"
#include "model/families.h"
#include "model/lora_file.h"
#include "model/weights.h"

namespace rung::model {
namespace {

// A linear layer of a block: the pattern of its module, and what --lora-targets calls it.
struct Target {
  std::string pattern, name;
  BlockLinear linear;
};

std::string LastWord(const std::string& path) { return path.substr(path.rfind('.') + 1); }
std::string LastTwoWords(const std::string& path) {
  const size_t last = path.rfind('.');
  return path.substr(path.rfind('.', last - 1) + 1);
}

std::vector<Target> TargetsOf(const Config& config) {
  const Names& names = HfNames(config);
  std::vector<Target> targets;
  for (const BlockLinear& linear : BlockLinears(config)) {
    const std::string& pattern = names.*linear.name;
    targets.push_back({pattern, LastWord(pattern), linear});
  }
  for (Target& target : targets) {
    const auto same = [&](const Target& other) {
      return LastWord(other.pattern) == LastWord(target.pattern);
    };
    if (std::count_if(targets.begin(), targets.end(), same) > 1) target.name = LastTwoWords(target.pattern);
  }
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

const std::vector<std::vector<LoraModule>>& LoraModules() {
  static const std::vector<std::vector<LoraModule>> all = [] {
    std::vector<std::vector<LoraModule>> lists;
    for (const Family& family : Families()) {
      Config config;
      SetSwitches(family, &config);
      std::vector<LoraModule> modules;
      for (const Target& target : TargetsOf(config)) {
        const size_t at = target.pattern.find("{}");
        modules.push_back({target.pattern.substr(0, at), target.pattern.substr(at + 3), target.name});
      }
      if (std::find(lists.begin(), lists.end(), modules) == lists.end()) lists.push_back(modules);
    }
    return lists;
  }();
  return all;
}

Result<std::vector<std::string>> ParseTargets(const std::string& text, const Config& config) {
  const std::vector<std::string> known = LoraTargets(config);
  if (text.empty() || text == "all" || text == "all-linear") return known;
  std::vector<std::string> chosen;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string name = Trimmed(text.substr(begin, end - begin));
    const size_t before = chosen.size();
    for (const std::string& target : known) {
      if (target == name || target.ends_with("." + name)) chosen.push_back(target);
    }
    if (chosen.size() == before) {
      return UsageFailure(fmt::format("--lora-targets {}: no linear layer \"{}\"; this model has {}", text,
                                      name, fmt::join(known, ", ")));
    }
    begin = end + 1;
  }
  // In the model's order, each once.
  std::vector<std::string> ordered;
  for (const std::string& name : known) {
    if (std::find(chosen.begin(), chosen.end(), name) != chosen.end()) ordered.push_back(name);
  }
  return ordered;
}

LoraSet::LoraSet(const Config& config, const LoraSpec& spec) : spec_(spec) {
  RUNG_CHECK(!spec.layers.empty() && !spec.targets.empty(), "lora: at least one layer and one target");
  RUNG_CHECK(spec.R > 0, "lora: the rank is positive");
  if (!config.rope.half) rotary_.pairs = config.D;
  if (config.qkv == nn::QkvRows::kStacked && AsFolder(config).qkv != config.qkv) {
    fused_.shape = {3 * config.Hq * config.D};
    fused_.fused_heads = config.Hq;
  }
  layers_.resize(static_cast<size_t>(config.L));
  for (const int64_t layer : spec.layers) {
    auto block = std::make_unique<nn::BlockLoras>();
    for (const Target& target : TargetsOf(config)) {
      if (std::find(spec.targets.begin(), spec.targets.end(), target.name) == spec.targets.end()) continue;
      auto pair = std::make_unique<nn::Lora>();
      const std::string name = std::string(kPairPrefix) + Names::Layer(target.pattern, layer);
      pair->a = Matrix(name + ".lora_A.weight", spec.R, target.linear.cols);
      pair->b = Matrix(name + ".lora_B.weight", target.linear.rows, spec.R);
      pair->scale = spec.scale();
      pair->dropout = static_cast<float>(spec.dropout);
      pair->stream = static_cast<uint32_t>(pairs_.size());
      (*block).*target.linear.pair = pair.get();
      pairs_.push_back(std::move(pair));
    }
    layers_[static_cast<size_t>(layer)] = std::move(block);
  }
}

const nn::BlockLoras* LoraSet::layer(int64_t layer) const {
  return layers_[static_cast<size_t>(layer)].get();
}

int64_t LoraSet::FileRow(std::string_view name, int64_t row) const {
  if (HasRotaryRows(name)) return rotary_.FolderPlace(row);
  return name.ends_with(".query_key_value.lora_B.weight") ? fused_.FolderPlace(row) : row;
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
