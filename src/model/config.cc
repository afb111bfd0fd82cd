#include "model/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numbers>

#include "base/text.h"
#include "io/json_file.h"

namespace rung::model {
namespace {

using nlohmann::json;

// One row per family: what its configuration file does not say.
struct FamilyRow {
  std::string_view name;  // model_type of config.json, general.architecture of GGUF
  bool qkv_bias, qk_norm;
  bool gguf_half;  // GGUF keeps Hugging Face's order of q and k rows
};
// GGUF files of Mistral models name themselves "llama".
constexpr std::array<FamilyRow, 4> kFamilies = {{
    {"llama", false, false, false},
    {"mistral", false, false, false},
    {"qwen2", true, false, true},
    {"qwen3", false, true, true},
}};

Result<FamilyRow> FindFamily(std::string_view name, const std::string& where) {
  for (const FamilyRow& row : kFamilies) {
    if (row.name == name) return row;
  }
  return Failure{fmt::format("{}: unknown architecture \"{}\"; known are: {}", where, name, KnownFamilies())};
}

Result<Config> Validated(Config config, const std::string& where) {
  // Far beyond any model, small enough that the count of all parameters does not overflow.
  constexpr int64_t kLayers = 1024, kHeads = int64_t{1} << 16, kHead = 4096, kWidth = int64_t{1} << 20,
                    kRows = int64_t{1} << 24;
  struct Extent {
    const char* what;
    int64_t value, most;
  };
  const Extent extents[] = {{"layers", config.L, kLayers},           {"hidden size", config.C, kWidth},
                            {"MLP size", config.F, kWidth},          {"attention heads", config.Hq, kHeads},
                            {"key/value heads", config.Hkv, kHeads}, {"head size", config.D, kHead},
                            {"vocabulary", config.V, kRows},         {"context", config.context, kRows}};
  for (const Extent& extent : extents) {
    if (extent.value <= 0 || extent.value > extent.most) {
      return Failure{fmt::format("{}: {} is {}: missing, or not within 1 and {}", where, extent.what,
                                 extent.value, extent.most)};
    }
  }
  if (config.Hq % config.Hkv != 0) {
    return Failure{fmt::format("{}: {} attention heads are not a multiple of {} key/value heads", where,
                               config.Hq, config.Hkv)};
  }
  if (config.D % 2 != 0 || config.C % 2 != 0 || config.F % 2 != 0) {
    return Failure{fmt::format("{}: head size {}, hidden size {} and MLP size {} must be even", where,
                               config.D, config.C, config.F)};
  }
  if (!(config.norm_eps > 0.0f) || !(config.rope.theta > 0.0) || !(config.rope.linear_factor > 0.0)) {
    return Failure{fmt::format("{}: norm epsilon, rope theta and factor must be positive", where)};
  }
  return config;
}

template <class T>
T Get(const json& object, const char* key, T fallback) {
  const auto it = object.find(key);
  if (it == object.end()) return fallback;
  if constexpr (std::is_same_v<T, bool>) {
    return it->is_boolean() ? it->get<bool>() : fallback;
  } else {
    return it->is_number() ? it->get<T>() : fallback;
  }
}

Status ReadRopeScaling(const json& object, const std::string& where, RopeConfig* rope) {
  // Newer files keep theta and scaling together in rope_parameters.
  const char* key = object.contains("rope_parameters") ? "rope_parameters" : "rope_scaling";
  const auto it = object.find(key);
  if (it == object.end() || it->is_null()) return Ok{};
  if (!it->is_object()) return Failure{fmt::format("{}: {} is not an object", where, key)};
  const json& scaling = *it;
  rope->theta = Get(scaling, "rope_theta", rope->theta);
  const json type_value =
      scaling.contains("rope_type") ? scaling["rope_type"] : scaling.value("type", json("default"));
  if (!type_value.is_string()) return Failure{fmt::format("{}: the type in {} is not a text", where, key)};
  const auto type = type_value.get<std::string>();
  if (type == "default") return Ok{};
  if (type == "linear") {
    rope->linear_factor = Get(scaling, "factor", 1.0);
    return Ok{};
  }
  if (type == "llama3") {
    rope->factor = Get(scaling, "factor", 8.0);
    rope->low_factor = Get(scaling, "low_freq_factor", 1.0);
    rope->high_factor = Get(scaling, "high_freq_factor", 4.0);
    rope->original_context = Get(scaling, "original_max_position_embeddings", 8192.0);
    return Ok{};
  }
  return Failure{fmt::format("{}: {} of type \"{}\" is not known; known are: default, linear, llama3", where,
                             key, type)};
}

}  // namespace

std::string KnownFamilies() {
  std::string names;
  for (const FamilyRow& row : kFamilies) names += (names.empty() ? "" : ", ") + std::string(row.name);
  return names;
}

nn::BlockShape Config::block() const {
  nn::BlockShape shape;
  shape.C = C;
  shape.Hq = Hq;
  shape.Hkv = Hkv;
  shape.D = D;
  shape.F = F;
  shape.activation = activation;
  shape.gated = gated_mlp;
  shape.qk_norm = qk_norm;
  return shape;
}

int64_t Config::parameter_count() const {
  const int64_t qkv = D * (Hq + 2 * Hkv);
  const int64_t attention =
      C * (qkv + Hq * D) + (qkv_bias || bias_everywhere ? qkv : 0) + (qk_norm ? 2 * D : 0);
  const int64_t mlp = (gated_mlp ? 3 : 2) * C * F;
  // Of o, the MLP and two norms; a bias of a norm is as wide as its gain.
  const int64_t biases = bias_everywhere ? C + (gated_mlp ? 2 : 1) * F + C + 2 * C : 0;
  const int64_t final_norm = bias_everywhere ? 2 * C : C;
  return L * (attention + mlp + 2 * C + biases) + final_norm + V * C * (tied_head ? 1 : 2) +
         position_rows * C;
}

Result<Config> ParseHfConfig(std::string_view text, const std::string& name) {
  Result<json> parsed = io::ParseJson(text, name);
  if (!parsed.ok()) return parsed.failure();
  const json& object = parsed.value();
  if (!object.is_object()) return Failure{fmt::format("{}: not a JSON object", name)};
  const auto type = object.find("model_type");
  if (type == object.end() || !type->is_string()) {
    return Failure{fmt::format("{}: no \"model_type\": is this a model's config.json?", name)};
  }
  Result<FamilyRow> family = FindFamily(type->get<std::string>(), name);
  if (!family.ok()) return family.failure();

  Config config;
  config.family = family.value().name;
  config.name = object.contains("_name_or_path") && object["_name_or_path"].is_string()
                    ? object["_name_or_path"].get<std::string>()
                    : "";
  config.L = Get<int64_t>(object, "num_hidden_layers", 0);
  config.C = Get<int64_t>(object, "hidden_size", 0);
  config.F = Get<int64_t>(object, "intermediate_size", 0);
  config.Hq = Get<int64_t>(object, "num_attention_heads", 0);
  config.Hkv = Get<int64_t>(object, "num_key_value_heads", config.Hq);
  config.D = Get<int64_t>(object, "head_dim", config.Hq > 0 ? config.C / config.Hq : 0);
  config.V = Get<int64_t>(object, "vocab_size", 0);
  config.context = Get<int64_t>(object, "max_position_embeddings", 2048);
  config.norm_eps = Get(object, "rms_norm_eps", 1e-6f);
  config.rope.theta = Get(object, "rope_theta", 10000.0);
  config.tied_head = Get(object, "tie_word_embeddings", false);
  config.qkv_bias = family.value().qkv_bias || Get(object, "attention_bias", false);
  config.qk_norm = family.value().qk_norm;
  // Qwen writes a window that is switched off; Mistral writes one that is on.
  if (config.family == "mistral" || Get(object, "use_sliding_window", false)) {
    config.window = Get<int64_t>(object, "sliding_window", 0);
  }
  const std::string activation = object.contains("hidden_act") && object["hidden_act"].is_string()
                                     ? object["hidden_act"].get<std::string>()
                                     : "silu";
  if (activation != "silu") {
    return Failure{fmt::format("{}: hidden_act \"{}\" is not known for {}; known is: silu", name, activation,
                               config.family)};
  }
  if (Get(object, "mlp_bias", false)) return Failure{fmt::format("{}: mlp_bias is not supported", name)};
  if (Get(object, "attention_bias", false) && config.family != "qwen2") {
    return Failure{fmt::format("{}: attention_bias is not supported for {}", name, config.family)};
  }
  if (Status scaling = ReadRopeScaling(object, name, &config.rope); !scaling.ok()) return scaling.failure();
  return Validated(std::move(config), name);
}

Result<Config> ConfigFromGguf(const io::Gguf& gguf) {
  const std::string* architecture = gguf.GetString("general.architecture");
  if (!architecture)
    return Failure{fmt::format("{}: no general.architecture: not a model file", gguf.name())};
  Result<FamilyRow> family = FindFamily(*architecture, gguf.name());
  if (!family.ok()) return family.failure();

  const auto key = [&](const char* suffix) { return *architecture + "." + suffix; };
  const auto integer = [&](const char* suffix, int64_t fallback) {
    return gguf.GetInt(key(suffix)).value_or(fallback);
  };
  Config config;
  config.family = family.value().name;
  if (const std::string* name = gguf.GetString("general.name")) config.name = *name;
  config.L = integer("block_count", 0);
  config.C = integer("embedding_length", 0);
  config.F = integer("feed_forward_length", 0);
  config.Hq = integer("attention.head_count", 0);
  config.Hkv = integer("attention.head_count_kv", config.Hq);
  config.D = integer("attention.key_length", config.Hq > 0 ? config.C / config.Hq : 0);
  config.context = integer("context_length", 2048);
  config.norm_eps = static_cast<float>(gguf.GetFloat(key("attention.layer_norm_rms_epsilon")).value_or(1e-5));
  config.rope.theta = gguf.GetFloat(key("rope.freq_base")).value_or(10000.0);
  config.rope.half = family.value().gguf_half;
  config.qkv_bias = family.value().qkv_bias;
  config.qk_norm = family.value().qk_norm;
  config.tied_head = gguf.Find("output.weight") == nullptr;
  config.window = integer("attention.sliding_window", 0);
  if (const io::GgufTensor* embedding = gguf.Find("token_embd.weight");
      embedding && embedding->dims.size() == 2) {
    config.V = embedding->dims[1];
  }
  if (const std::string* scaling = gguf.GetString(key("rope.scaling.type")); scaling && *scaling != "none") {
    if (*scaling != "linear") {
      return Failure{fmt::format("{}: rope.scaling.type \"{}\" is not known; known are: none, linear",
                                 gguf.name(), *scaling)};
    }
    config.rope.linear_factor = gguf.GetFloat(key("rope.scaling.factor")).value_or(1.0);
  }
  if (integer("attention.value_length", config.D) != config.D ||
      integer("rope.dimension_count", config.D) != config.D) {
    return Failure{fmt::format(
        "{}: heads whose keys, values and rotary part differ in size are not supported", gguf.name())};
  }
  if (integer("expert_count", 0) > 0) {
    return Failure{fmt::format("{}: mixture-of-experts models are not supported", gguf.name())};
  }
  return Validated(std::move(config), gguf.name());
}

RopeAngles MakeRopeAngles(const Config& config, int64_t positions) {
  const RopeConfig& rope = config.rope;
  const int64_t half = config.D / 2;
  std::vector<double> frequency(static_cast<size_t>(half));
  for (int64_t i = 0; i < half; ++i) {
    double f = std::pow(rope.theta, -2.0 * static_cast<double>(i) / static_cast<double>(config.D)) /
               rope.linear_factor;
    if (rope.factor != 1.0) {
      const double wavelength = 2.0 * std::numbers::pi / f;
      const double low = rope.original_context / rope.low_factor,
                   high = rope.original_context / rope.high_factor;
      if (wavelength > low) {
        f /= rope.factor;
      } else if (wavelength > high) {
        const double smooth =
            (rope.original_context / wavelength - rope.low_factor) / (rope.high_factor - rope.low_factor);
        f = (1.0 - smooth) * f / rope.factor + smooth * f;
      }
    }
    if (!rope.divisors.empty()) f /= static_cast<double>(rope.divisors[static_cast<size_t>(i)]);
    frequency[static_cast<size_t>(i)] = f;
  }
  RopeAngles angles;
  angles.cos.reserve(static_cast<size_t>(positions * half));
  angles.sin.reserve(static_cast<size_t>(positions * half));
  for (int64_t p = 0; p < positions; ++p) {
    for (const double f : frequency) {
      angles.cos.push_back(static_cast<float>(std::cos(static_cast<double>(p) * f)));
      angles.sin.push_back(static_cast<float>(std::sin(static_cast<double>(p) * f)));
    }
  }
  return angles;
}

}  // namespace rung::model
