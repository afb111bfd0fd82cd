#include "model/lora_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>

#include "base/text.h"
#include "io/json_fields.h"
#include "io/json_file.h"
#include "model/config_difference.h"

namespace rung::model {
namespace {

using nlohmann::json;

// "self_attn.q_proj, ...": every linear layer that may have a pair, for messages.
std::string ModuleNames() {
  std::string names;
  std::set<std::string> seen;
  for (const std::vector<LoraModule>& modules : LoraModules()) {
    for (const LoraModule& row : modules) {
      if (seen.insert(row.module).second) names += (names.empty() ? "" : ", ") + row.module;
    }
  }
  return names;
}

// Keys that are read, or that do not change what the pairs mean: how they were initialised (init_lora_weights
// says whether that changed the model), which modules were looked for (the tensors say which were found), and
// notes. Every other key is refused unless it says what PEFT says when nothing was asked for.
constexpr std::string_view kKnown[] = {"auto_mapping",
                                       "base_model_name_or_path",
                                       "bias",
                                       "corda_config",
                                       "eva_config",
                                       "exclude_modules",
                                       "fan_in_fan_out",
                                       "inference_mode",
                                       "init_lora_weights",
                                       "layers_pattern",
                                       "layers_to_transform",
                                       "loftq_config",
                                       "lora_alpha",
                                       "lora_dropout",
                                       "lora_ga_config",
                                       "peft_type",
                                       "peft_version",
                                       "qalora_group_size",
                                       "r",
                                       "revision",
                                       "target_modules",
                                       "task_type",
                                       "use_rslora"};

struct Advice {
  std::string_view key;
  const char* advice;
};
constexpr Advice kAdvice[] = {
    {"use_dora", "DoRA also trains magnitudes; train plain LoRA, or merge it with peft and load the result"},
    {"lora_bias", "biases of the pairs have no place here; train with lora_bias false"},
    {"modules_to_save", "whole modules were trained beside the pairs; train without them"},
    {"rank_pattern", "pairs have different ranks; train with one rank"},
    {"alpha_pattern", "pairs have different alphas; train with one alpha"},
    {"layer_replication", "train on the model as it is"},
    {"trainable_token_indices", "embeddings were trained; train without them"},
    {"target_parameters", "only linear layers can have pairs"}};

std::string Dump(const json& value) {
  constexpr size_t kShown = 80;
  std::string text = Printable(value.dump(-1, ' ', false, json::error_handler_t::replace));
  if (text.size() > kShown) text = text.substr(0, kShown) + "...";
  return text;
}

// What PEFT writes where nothing was asked for.
bool AsksForNothing(const json& value) {
  if (value.is_null() || value == json(false)) return true;
  if (value.is_structured() || value.is_string()) return value.empty() || value == json("");
  return false;
}

Status CheckKeys(const json& object, const std::string& where) {
  for (const auto& [key, value] : object.items()) {
    const bool known = std::find(std::begin(kKnown), std::end(kKnown), key) != std::end(kKnown);
    const bool idle = key == "megatron_core" && value == "megatron.core";  // of megatron_config
    if (known || idle || AsksForNothing(value)) continue;
    const auto* advice = std::find_if(std::begin(kAdvice), std::end(kAdvice),
                                      [&, &name = key](const Advice& row) { return row.key == name; });
    return Failure{fmt::format("{}: {} {} is not supported: {}", where, Printable(key), Dump(value),
                               advice != std::end(kAdvice)
                                   ? advice->advice
                                   : "it may change what the pairs mean; train plain LoRA")};
  }
  return Ok{};
}

// How the pairs began. Some ways subtract from the frozen weights: without that the pairs mean something
// else.
Status CheckInit(const json& init, const std::string& where) {
  if (init.is_null() || init.is_boolean()) return Ok{};
  const std::string text = init.is_string() ? Lowered(init.get<std::string>()) : std::string();
  if (text == "gaussian" || text == "eva" || text == "orthogonal") return Ok{};
  for (const char* changing : {"pissa", "olora", "corda", "loftq", "lora_ga"}) {
    if (!text.starts_with(changing)) continue;
    return Failure{fmt::format(
        "{}: init_lora_weights {} changes the model's own weights: save it converted to plain LoRA (peft: "
        "save_pretrained(path_initial_model_for_weight_conversion=...))",
        where, Dump(init))};
  }
  return Failure{
      fmt::format("{}: init_lora_weights {} is not supported: known are true, false, \"gaussian\", "
                  "\"eva\" and \"orthogonal\"",
                  where, Dump(init))};
}

Status CheckSupported(const json& object, const std::string& where) {
  if (Status keys = CheckKeys(object, where); !keys.ok()) return keys;
  if (const json bias = object.value("bias", json("none")); bias != "none") {
    return Failure{
        fmt::format("{}: bias {} is not supported: trained biases have no place here; train with "
                    "bias \"none\"",
                    where, Dump(bias))};
  }
  if (const json task = object.value("task_type", json()); !task.is_null() && task != "CAUSAL_LM") {
    return Failure{
        fmt::format("{}: task_type {} is not supported: the models here predict the next token, "
                    "\"CAUSAL_LM\"",
                    where, Dump(task))};
  }
  return CheckInit(object.value("init_lora_weights", json(true)), where);
}

// "base_model.model.model.layers.3.mlp.up_proj.lora_A.weight" is layer 3 and the module "mlp.up_proj".
struct Place {
  int64_t layer;
  size_t module;
};
std::optional<Place> PlaceOf(std::string_view name, const std::vector<LoraModule>& modules) {
  const std::string& before = modules.front().before;
  if (!name.starts_with(kPairPrefix) || !name.substr(kPairPrefix.size()).starts_with(before)) {
    return std::nullopt;
  }
  name.remove_prefix(kPairPrefix.size() + before.size());
  Place place{};
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), place.layer);
  if (error != std::errc() || place.layer < 0) return std::nullopt;
  name.remove_prefix(static_cast<size_t>(end - name.data()));
  if (!name.ends_with(".lora_A.weight") && !name.ends_with(".lora_B.weight")) return std::nullopt;
  name.remove_suffix(std::string_view(".lora_A.weight").size());
  for (place.module = 0; place.module < modules.size(); ++place.module) {
    if (name.starts_with('.') && name.substr(1) == modules[place.module].module) return place;
  }
  return std::nullopt;
}

// The kind of model whose layers all of these are; of none, the one that has most of them.
const std::vector<LoraModule>& ModulesOf(std::span<const std::string> tensors) {
  const std::vector<LoraModule>* best = &LoraModules().front();
  int64_t most = -1;
  for (const std::vector<LoraModule>& modules : LoraModules()) {
    const int64_t found = std::count_if(tensors.begin(), tensors.end(), [&](const std::string& name) {
      return PlaceOf(name, modules).has_value();
    });
    if (found > most) best = &modules;
    most = std::max(most, found);
  }
  return *best;
}

Status FindPlaces(std::span<const std::string> tensors, const std::string& weights, const std::string& where,
                  LoraSpec* spec) {
  const std::vector<LoraModule>& kind = ModulesOf(tensors);
  std::map<int64_t, std::set<size_t>> places;
  for (const std::string& name : tensors) {
    const std::optional<Place> place = PlaceOf(name, kind);
    if (!place) {
      return Failure{
          fmt::format("{}: tensor {:?} is no low-rank pair of a linear layer of a block; those are "
                      "{}; others (embeddings, the head) cannot have pairs here",
                      weights, name, ModuleNames())};
    }
    places[place->layer].insert(place->module);
  }
  if (places.empty()) return Failure{fmt::format("{}: no tensors beside it: nothing was trained", where)};
  const auto& [first, modules] = *places.begin();
  for (const auto& [layer, others] : places) {
    if (others != modules) {
      return Failure{
          fmt::format("{}: layers {} and {} have pairs beside different linear layers, which is not "
                      "supported: train with one list for all layers",
                      where, first, layer)};
    }
    spec->layers.push_back(layer);
  }
  for (const size_t module : modules) spec->targets.push_back(kind[module].target);
  return Ok{};
}

json Number(double value) {
  // PEFT writes 16, not 16.0.
  const bool whole = std::nearbyint(value) == value && std::abs(value) < 0x1p53;
  return whole ? json(static_cast<int64_t>(value)) : json(value);
}

}  // namespace

bool IsLoraTensor(std::string_view name) { return name.starts_with("base_model."); }

std::string MatrixOfPair(std::string_view name) {
  RUNG_CHECK(name.starts_with(kPairPrefix), "lora: the name of a pair");
  name = name.substr(0, name.rfind(".lora_"));
  return std::string(name.substr(kPairPrefix.size())) + ".weight";
}

bool HasRotaryRows(std::string_view name) {
  return name.ends_with(".q_proj.lora_B.weight") || name.ends_with(".k_proj.lora_B.weight");
}

std::string PeftConfigText(const LoraSpec& spec, const Config& config, const std::string& base_model) {
  std::vector<std::string> targets = spec.targets;
  std::sort(targets.begin(), targets.end());
  const bool all = static_cast<int64_t>(spec.layers.size()) == config.L;
  // The keys that PEFT has had since it knows use_rslora and use_dora: newer ones would make older ones warn.
  const json object = {{"alpha_pattern", json::object()},
                       {"auto_mapping", nullptr},
                       {"base_model_name_or_path", base_model},
                       {"bias", "none"},
                       {"fan_in_fan_out", AsFolder(config).transposed},  // GPT-2's layers are Conv1D
                       {"inference_mode", true},
                       {"init_lora_weights", true},
                       {"layers_pattern", nullptr},
                       {"layers_to_transform", all ? json(nullptr) : json(spec.layers)},
                       {"lora_alpha", Number(spec.alpha)},
                       {"lora_dropout", spec.dropout},
                       {"modules_to_save", nullptr},
                       {"peft_type", "LORA"},
                       {"r", spec.R},
                       {"rank_pattern", json::object()},
                       {"revision", nullptr},
                       {"target_modules", targets},
                       {"task_type", "CAUSAL_LM"},
                       {"use_dora", false},
                       {"use_rslora", spec.rank_stabilized}};
  return object.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<PeftAdapter> ParsePeftAdapter(std::string_view text, const std::string& where,
                                     std::span<const std::string> tensors, const std::string& weights) {
  Result<json> parsed = io::ParseJson(text, where);
  if (!parsed.ok()) return parsed.failure();
  const json& object = parsed.value();
  if (!object.is_object()) return Failure{fmt::format("{}: not a JSON object", where)};
  if (Status supported = CheckSupported(object, where); !supported.ok()) return supported.failure();
  PeftAdapter adapter;
  LoraSpec& spec = adapter.spec;
  io::JsonFields fields(object, where);
  // PEFT's own defaults for what is absent.
  spec.R = fields.GetOr<int64_t>("r", 8);
  spec.alpha = fields.GetOr("lora_alpha", 8.0);
  spec.dropout = fields.GetOr("lora_dropout", 0.0);
  spec.rank_stabilized = fields.GetOr("use_rslora", false);
  // PEFT writes null where it does not know.
  if (const json base = object.value("base_model_name_or_path", json()); !base.is_null()) {
    adapter.base_model = fields.Get<std::string>("base_model_name_or_path");
  }
  if (!fields.ok()) return fields.failure();
  if (Status found = FindPlaces(tensors, weights, where, &spec); !found.ok()) return found.failure();
  if (Status ok = CheckLoraSpec(spec, nullptr, where); !ok.ok()) return ok.failure();
  return adapter;
}

Status CheckLoraSpec(const LoraSpec& spec, const Config* config, const std::string& where) {
  // Far beyond any adapter; small enough that no extent overflows.
  constexpr int64_t kRank = 1 << 16, kLayers = 1 << 16;
  if (spec.R < 1 || spec.R > kRank) return Failure{fmt::format("{}: rank {} is out of range", where, spec.R)};
  if (!std::isfinite(spec.alpha) || spec.alpha == 0.0) {
    return Failure{fmt::format("{}: alpha {} is out of range", where, spec.alpha)};
  }
  if (!(spec.dropout >= 0.0 && spec.dropout < 1.0)) {
    return Failure{fmt::format("{}: dropout {} is not within 0 and 1", where, spec.dropout)};
  }
  const int64_t L = config ? config->L : kLayers;
  bool ascending = !spec.layers.empty() && spec.layers.front() >= 0;
  for (size_t i = 1; i < spec.layers.size(); ++i)
    ascending = ascending && spec.layers[i] > spec.layers[i - 1];
  if (!ascending) return Failure{fmt::format("{}: layers of pairs must ascend from 0", where)};
  if (spec.layers.back() >= L) {
    return Failure{
        fmt::format("{}: there are pairs in layer {}, this model has layers 0 to {}: give the model "
                    "it was trained for",
                    where, spec.layers.back(), L - 1)};
  }
  std::vector<std::string> known;
  if (config) {
    known = LoraTargets(*config);
  } else {
    for (const std::vector<LoraModule>& modules : LoraModules()) {
      for (const LoraModule& row : modules) {
        if (std::find(known.begin(), known.end(), row.target) == known.end()) known.push_back(row.target);
      }
    }
  }
  const std::set<std::string> distinct(spec.targets.begin(), spec.targets.end());
  if (spec.targets.empty() || distinct.size() != spec.targets.size()) {
    return Failure{fmt::format("{}: targets of pairs must be named, each once", where)};
  }
  for (const std::string& target : spec.targets) {
    if (std::find(known.begin(), known.end(), target) != known.end()) continue;
    return Failure{
        fmt::format("{}: pairs beside \"{}\", which is no linear layer of this model's blocks; those "
                    "are {}",
                    where, target, fmt::join(known, ", "))};
  }
  return Ok{};
}

}  // namespace rung::model
