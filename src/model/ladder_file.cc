#include "model/ladder_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cmath>
#include <map>
#include <nlohmann/json.hpp>

#include "io/json_fields.h"
#include "io/json_file.h"
#include "model/lora_file.h"

namespace rung::model {
namespace {

using nlohmann::json;

constexpr int kVersion = 2;

template <class E, size_t n>
E GetNamed(io::JsonFields& fields, const char* key, const Named<E> (&table)[n]) {
  const auto text = fields.Get<std::string>(key);
  if (const std::optional<E> value = ValueIn(table, text)) return *value;
  fields.Fail(fmt::format("{} {:?} is not known; known are: {}", key, text, fmt::join(NamesIn(table), ", ")));
  return table[0].value;
}

json BaseModel(const AdapterInfo& info) {
  return {{"family", info.family},
          {"num_hidden_layers", info.L},
          {"hidden_size", info.C},
          {"vocab_size", info.V}};
}

// What both files may have.
void AddOptional(const AdapterInfo& info, json* object) {
  if (!info.chat_template.empty()) (*object)["chat_template"] = info.chat_template;
  if (info.template_time) (*object)["chat_template_time"] = *info.template_time;
  const BaseFormats& formats = info.base_formats;
  if (formats.empty()) return;
  json weights = {{"blocks", formats.blocks}, {"embedding", formats.embedding}, {"digest", formats.digest}};
  if (!formats.head.empty()) weights["head"] = formats.head;
  (*object)["base_weights"] = weights;
}

Result<BaseFormats> ReadBaseFormats(const json& object, const std::string& where) {
  io::JsonFields fields(object, where + ": base_weights");
  BaseFormats formats;
  formats.blocks = fields.Get<std::map<std::string, int64_t>>("blocks");
  formats.embedding = fields.Get<std::string>("embedding");
  formats.digest = fields.Get<std::string>("digest");
  if (fields.Has("head")) formats.head = fields.Get<std::string>("head");
  if (!fields.ok()) return fields.failure();
  return formats;
}

// What both files say.
Status ReadCommon(io::JsonFields& fields, const std::string& where, AdapterInfo* info) {
  const auto version = fields.Get<int64_t>("format_version");
  const auto base = fields.Get<json>("base_model");
  if (fields.Has("chat_template")) info->chat_template = fields.Get<std::string>("chat_template");
  if (fields.Has("chat_template_time")) info->template_time = fields.Get<int64_t>("chat_template_time");
  const json weights = fields.Has("base_weights") ? fields.Get<json>("base_weights") : json();
  if (!fields.ok()) return fields.failure();
  if (version != kVersion) {
    return Failure{fmt::format("{}: format_version {} is not {}: written by another version of rung", where,
                               version, kVersion)};
  }
  io::JsonFields shape(base, where);
  info->family = shape.Get<std::string>("family");
  info->L = shape.Get<int64_t>("num_hidden_layers");
  info->C = shape.Get<int64_t>("hidden_size");
  info->V = shape.Get<int64_t>("vocab_size");
  if (!shape.ok()) return shape.failure();
  if (!weights.is_null()) {
    Result<BaseFormats> formats = ReadBaseFormats(weights, where);
    if (!formats.ok()) return formats.failure();
    info->base_formats = std::move(formats).value();
  }
  if (info->L > 0 && info->C > 0 && info->V > 0) return Ok{};
  return Failure{fmt::format("{}: base_model has sizes below 1", where)};
}

json LoraJson(const LoraSpec& spec) {
  return {{"r", spec.R},
          {"alpha", spec.alpha},
          {"dropout", spec.dropout},
          {"rslora", spec.rank_stabilized},
          {"targets", spec.targets},
          {"layers", spec.layers}};
}

Result<LoraSpec> ReadLora(const json& object, const std::string& where) {
  io::JsonFields fields(object, where + ": lora");
  LoraSpec spec;
  spec.R = fields.Get<int64_t>("r");
  spec.alpha = fields.Get<double>("alpha");
  spec.dropout = fields.Get<double>("dropout");
  spec.rank_stabilized = fields.Get<bool>("rslora");
  spec.targets = fields.Get<std::vector<std::string>>("targets");
  spec.layers = fields.Get<std::vector<int64_t>>("layers");
  if (!fields.ok()) return fields.failure();
  if (Status ok = CheckLoraSpec(spec, nullptr, where); !ok.ok()) return ok.failure();
  return spec;
}

LadderSpec ReadLadder(io::JsonFields& fields) {
  LadderSpec spec;
  spec.kind = GetNamed(fields, "kind", kRungKindNames);
  spec.taps = fields.Get<std::vector<int64_t>>("taps");
  spec.rungs = fields.Get<int64_t>("rungs");
  spec.S = fields.Get<int64_t>("width");
  spec.F = fields.Get<int64_t>("mlp_width");
  spec.heads = fields.Get<int64_t>("heads");
  spec.kv_heads = fields.Get<int64_t>("kv_heads");
  spec.head_dim = fields.Get<int64_t>("head_dim");
  spec.gate = GetNamed(fields, "gate", kGateNames);
  spec.tap_norm = GetNamed(fields, "tap_norm", kTapNormNames);
  spec.tap_map = GetNamed(fields, "tap_map", kTapMapNames);
  if (fields.Has("rung_norm")) spec.norm = GetNamed(fields, "rung_norm", kRungNormNames);
  if (fields.Has("rung_positions")) spec.rotary = GetNamed(fields, "rung_positions", kRungPositionNames);
  spec.rejoin = fields.Get<int64_t>("rejoin");
  spec.output_scale = fields.Get<float>("output_scale");
  if (fields.Has("rope_pairs")) spec.rope_pairs = fields.Get<std::vector<int64_t>>("rope_pairs");
  return spec;
}

// Ranges far beyond any ladder, and small enough that no extent overflows.
Status CheckRanges(const LadderSpec& spec, int64_t L, const std::string& where) {
  constexpr int64_t kRungs = 4096, kWidth = 1 << 16, kMlp = 1 << 18, kHeads = 4096;
  struct Extent {
    const char* what;
    int64_t value, least, most;
  };
  const auto taps = static_cast<int64_t>(spec.taps.size());
  const Extent extents[] = {{"taps: their number", taps, 1, kRungs},
                            {"rungs", spec.rungs, taps, kRungs},
                            {"width", spec.S, 1, kWidth},
                            {"mlp_width", spec.F, 1, kMlp},
                            {"head_dim", spec.head_dim, 2, kWidth},
                            {"heads", spec.heads, 1, kHeads},
                            {"kv_heads", spec.kv_heads, 1, kHeads},
                            {"rejoin", spec.rejoin, 0, L - 1}};
  for (const Extent& extent : extents) {
    if (extent.value >= extent.least && extent.value <= extent.most) continue;
    return Failure{fmt::format("{}: {} is {}, not within {} and {}", where, extent.what, extent.value,
                               extent.least, extent.most)};
  }
  const auto refuse = [&](const std::string& why) { return Failure{fmt::format("{}: {}", where, why)}; };
  for (size_t j = 0; j < spec.taps.size(); ++j) {
    const int64_t tap = spec.taps[j];
    if (tap < 0 || tap >= L || (j > 0 && tap <= spec.taps[j - 1])) {
      return refuse(fmt::format("taps must ascend and be layers 0 to {}", L - 1));
    }
  }
  if (spec.heads % spec.kv_heads != 0) return refuse("heads must be a multiple of kv_heads");
  if (spec.head_dim % 2 != 0) return refuse("head_dim must be even");
  if (spec.kind == RungKind::kPlain && (spec.heads * spec.head_dim != spec.S || !spec.rope_pairs.empty())) {
    return refuse("the heads of plain rungs fill the width, and have no rope_pairs");
  }
  if (!spec.rope_pairs.empty() && !spec.rotary) return refuse("rope_pairs of rungs without RoPE");
  if (!spec.rope_pairs.empty() && static_cast<int64_t>(spec.rope_pairs.size()) != spec.head_dim / 2) {
    return refuse(fmt::format("rope_pairs has {} entries, head_dim {} asks for {}", spec.rope_pairs.size(),
                              spec.head_dim, spec.head_dim / 2));
  }
  if (!std::isfinite(spec.output_scale)) return refuse("output_scale is not a number");
  return Ok{};
}

}  // namespace

std::string LadderConfigText(const AdapterInfo& info) {
  const LadderSpec& spec = *info.spec.ladder;
  const nn::BlockShape shape = spec.block();  // with the numbers of heads that 0 stands for
  json object = {{"peft_type", "LADDER"},
                 {"task_type", "CAUSAL_LM"},
                 {"format_version", kVersion},
                 {"base_model_name_or_path", info.base_model},
                 {"base_model", BaseModel(info)},
                 {"kind", NameIn(kRungKindNames, spec.kind)},
                 {"taps", spec.taps},
                 {"rungs", spec.rungs},
                 {"width", spec.S},
                 {"mlp_width", spec.F},
                 {"heads", shape.Hq},
                 {"kv_heads", shape.Hkv},
                 {"head_dim", spec.head_dim},
                 {"gate", NameIn(kGateNames, spec.gate)},
                 {"tap_norm", NameIn(kTapNormNames, spec.tap_norm)},
                 {"tap_map", NameIn(kTapMapNames, spec.tap_map)},
                 {"rejoin", spec.rejoin},
                 {"output_scale", spec.output_scale}};
  if (spec.kind == RungKind::kDecoder) {
    object["rung_norm"] = NameIn(kRungNormNames, spec.norm);
    object["rung_positions"] = NameIn(kRungPositionNames, spec.rotary);
  }
  if (!spec.rope_pairs.empty()) object["rope_pairs"] = spec.rope_pairs;
  if (info.spec.lora) object["lora"] = LoraJson(*info.spec.lora);
  AddOptional(info, &object);
  return object.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<AdapterInfo> ParseLadderConfig(std::string_view text, const std::string& where) {
  Result<json> parsed = io::ParseJson(text, where);
  if (!parsed.ok()) return parsed.failure();
  const json& object = parsed.value();
  io::JsonFields fields(object, where);
  AdapterInfo info;
  if (Status common = ReadCommon(fields, where, &info); !common.ok()) return common.failure();
  info.base_model = fields.Get<std::string>("base_model_name_or_path");
  info.spec.ladder = ReadLadder(fields);
  if (!fields.ok()) return fields.failure();
  if (Status ok = CheckRanges(*info.spec.ladder, info.L, where); !ok.ok()) return ok.failure();
  if (fields.Has("lora")) {
    Result<LoraSpec> lora = ReadLora(object["lora"], where);
    if (!lora.ok()) return lora.failure();
    info.spec.lora = std::move(lora).value();
  }
  return info;
}

std::string BesideText(const AdapterInfo& info) {
  json object = {{"format_version", kVersion}, {"base_model", BaseModel(info)}};
  AddOptional(info, &object);
  return object.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

Result<AdapterInfo> ParseBesideText(std::string_view text, const std::string& where) {
  Result<json> parsed = io::ParseJson(text, where);
  if (!parsed.ok()) return parsed.failure();
  io::JsonFields fields(parsed.value(), where);
  AdapterInfo info;
  if (Status common = ReadCommon(fields, where, &info); !common.ok()) return common.failure();
  return info;
}

Status CheckLadderFits(const LadderSpec& spec, const Config& config, const std::string& where) {
  for (const int64_t pair : spec.rope_pairs) {
    if (pair >= 0 && pair < config.rotary() / 2) continue;
    return Failure{fmt::format("{}: rope_pairs names pair {}, this model's heads have pairs 0 to {}", where,
                               pair, config.rotary() / 2 - 1)};
  }
  if (spec.tap_map == TapMap::kPooled && spec.S > config.C) {
    return Failure{fmt::format("{}: width {}: pooled taps cannot be wider than the model's {}", where, spec.S,
                               config.C)};
  }
  return Ok{};
}

}  // namespace rung::model
