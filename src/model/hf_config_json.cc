// config.json from a Config: the way back of hf_config.cc.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/half.h"
#include "model/config_difference.h"
#include "model/families.h"
#include "model/shapes.h"

namespace rung::model {
namespace {

using Json = nlohmann::ordered_json;

// The double that a person writes for this float: 1e-06, not 9.999999974752427e-07.
double ShortestDouble(float value) {
  const std::string text = fmt::format("{}", value);
  double number = 0.0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

// x such that float(1 / x) is `value`, as a person writes it where that goes.
double ShortestInverse(float value) {
  const double plain = ShortestDouble(1.0f / value);
  return static_cast<float>(1.0 / plain) == value ? plain : 1.0 / static_cast<double>(value);
}

class HfWriter {
 public:
  explicit HfWriter(const Config& config) : c_(config), family_(*FindFamily(config.family)) {}

  Result<Json> Write() {
    json_ = {{"architectures", {family_.model_class}},
             {"model_type", Is("gemma3") ? "gemma3_text" : c_.family}};
    WriteShape();
    WriteSwitches();
    WriteScales();
    WriteWindow();
    if (!family_.no_rope) WriteRope();
    json_["tie_word_embeddings"] = c_.tied_head;
    json_["initializer_range"] = 0.02;
    json_["use_cache"] = true;
    json_["pad_token_id"] = nullptr;  // some families have one by default, beyond a small vocabulary
    json_["torch_dtype"] = Type();
    if (Is("gemma3")) {
      json_.erase("architectures");
      json_ = {{"architectures", {family_.model_class}},
               {"model_type", "gemma3"},
               {"text_config", json_},
               {"tie_word_embeddings", c_.tied_head},
               {"torch_dtype", Type()}};
    }
    if (!c_.name.empty()) json_["_name_or_path"] = c_.name;
    if (!failure_.empty()) return Failure{failure_};
    return json_;
  }

 private:
  bool Is(std::string_view type) const { return family_.type == type; }
  bool IsGemma() const { return family_.type.starts_with("gemma"); }
  bool IsGemma3() const { return family_.type.starts_with("gemma3"); }
  void Refuse(std::string_view what) {
    if (failure_.empty()) failure_ = fmt::format("config.json of {} has no words for {}", family_.type, what);
  }

  void WriteShape();
  void WriteSwitches();
  void WriteScales();
  void WriteWindow();
  void WriteLayerTypes();
  void WriteRope();
  Json Scaling() const;
  const char* Type() const;
  const char* ActivationName() const;

  const Config& c_;
  const Family& family_;
  Json json_;
  std::string failure_;
};

// Gemma's embedding is multiplied in this type.
const char* HfWriter::Type() const {
  const auto exact = static_cast<float>(std::sqrt(static_cast<double>(c_.C)));
  if (!IsGemma() || c_.embedding_scale == ToFloat(ToBf16(exact))) return "bfloat16";
  return c_.embedding_scale == exact ? "float32" : "float16";
}

const char* HfWriter::ActivationName() const {
  switch (c_.activation) {
    case cpu::Activation::kSilu:
      return "silu";
    case cpu::Activation::kGelu:
      return "gelu";
    case cpu::Activation::kGeluTanh:
      return Is("gpt2") ? "gelu_new" : "gelu_pytorch_tanh";
    case cpu::Activation::kRelu:
      return "relu";
  }
  return "";
}

void HfWriter::WriteShape() {
  const bool gpt2 = Is("gpt2"), opt = Is("opt");
  json_[gpt2 ? "n_embd" : "hidden_size"] = c_.C;
  json_[gpt2 ? "n_inner" : opt ? "ffn_dim" : "intermediate_size"] = c_.F;
  json_[gpt2 ? "n_layer" : "num_hidden_layers"] = c_.L;
  json_[gpt2 ? "n_head" : "num_attention_heads"] = c_.Hq;
  if (!gpt2 && !opt && !Is("gpt_neox")) {
    json_["num_key_value_heads"] = c_.Hkv;
    json_["head_dim"] = c_.D;
  } else if (c_.Hkv != c_.Hq || c_.D * c_.Hq != c_.C) {
    Refuse(fmt::format("{} heads, {} for keys and values, {} wide, of a hidden size of {}", c_.Hq, c_.Hkv,
                       c_.D, c_.C));
  }
  json_["vocab_size"] = c_.V;
  json_[gpt2 ? "n_positions" : "max_position_embeddings"] = c_.context;
  const char* eps = gpt2                              ? "layer_norm_epsilon"
                    : c_.norm == nn::NormKind::kLayer ? "layer_norm_eps"
                                                      : "rms_norm_eps";
  json_[eps] = ShortestDouble(c_.norm_eps);
  const bool hidden_activation = Is("gemma2") || IsGemma3();
  json_[hidden_activation ? "hidden_activation"
        : gpt2 || opt     ? "activation_function"
                          : "hidden_act"] = ActivationName();
}

void HfWriter::WriteSwitches() {
  if (Is("opt")) {
    json_["word_embed_proj_dim"] = c_.embedding_width();
    json_["do_layer_norm_before"] = c_.norms;
    if (c_.norms && !c_.final_norm) json_["_remove_final_layer_norm"] = true;
    json_["enable_bias"] = c_.qkv_bias;
  } else if (Is("gpt2")) {
    if (c_.score_scale == 1.0f) json_["scale_attn_weights"] = false;
  } else if (Is("gpt_neox")) {
    json_["use_parallel_residual"] = c_.parallel;
    json_["attention_bias"] = c_.qkv_bias;
  } else if (!Is("qwen2") && !Is("mistral") && !Is("phi3")) {
    json_["attention_bias"] = c_.qkv_bias;
  }
  if (Is("llama") || Is("granite") || Is("smollm3")) json_["mlp_bias"] = c_.mlp_bias;
}

void HfWriter::WriteScales() {
  const auto cap = [](float value) { return value > 0.0f ? Json(ShortestDouble(value)) : Json(nullptr); };
  if (Is("gemma2") || IsGemma3()) {
    const double scale = static_cast<double>(c_.score_scale);
    json_["query_pre_attn_scalar"] = scale == 0.0 ? c_.D : std::llround(1.0 / (scale * scale));
    json_["final_logit_softcapping"] = cap(c_.logit_cap);
  }
  if (Is("gemma2")) json_["attn_logit_softcapping"] = cap(c_.score_cap);
  if (Is("granite")) {
    json_["embedding_multiplier"] = ShortestDouble(c_.embedding_scale);
    json_["residual_multiplier"] = ShortestDouble(c_.residual_scale);
    json_["attention_multiplier"] = ShortestDouble(c_.score_scale);
    json_["logits_scaling"] = ShortestInverse(c_.logit_scale);
  }
}

void HfWriter::WriteLayerTypes() {
  Json types = Json::array();
  for (int64_t layer = 0; layer < c_.L; ++layer) {
    types.push_back(c_.has_window(layer) ? "sliding_attention" : "full_attention");
  }
  json_["layer_types"] = types;
}

void HfWriter::WriteWindow() {
  const Json window = c_.window > 0 ? Json(c_.window) : Json(nullptr);
  if (Is("smollm3")) {
    Json turns = Json::array();
    for (int64_t layer = 0; layer < c_.L; ++layer) turns.push_back(c_.has_rope(layer) ? 1 : 0);
    json_["no_rope_layers"] = turns;
  }
  if (Is("mistral") || Is("phi3")) {
    json_["sliding_window"] = window;
  } else if (Is("gemma2") || IsGemma3()) {
    json_["sliding_window"] = c_.window > 0 ? window : Json(family_.window);
    WriteLayerTypes();
  } else if (c_.window > 0) {
    if (!Is("qwen2") && !Is("qwen3") && !Is("smollm3")) {
      return Refuse(fmt::format("an attention window of {} tokens", c_.window));
    }
    json_["sliding_window"] = window;
    json_["use_sliding_window"] = true;
    WriteLayerTypes();
  }
}

void HfWriter::WriteRope() {
  const RopeConfig& rope = c_.rope;
  if (!rope.half) return Refuse("RoPE of interleaved pairs");
  if (!rope.divisors.empty() && rope.scaling != RopeScaling::kLongRope) {
    return Refuse(rope.scaling == RopeScaling::kNone ? "divisors of RoPE's frequencies (rope_freqs.weight)"
                                                     : "divisors of RoPE's frequencies (rope_freqs.weight) "
                                                       "beside another scaling");
  }
  if (!(rope.original_context >= 1.0 && rope.original_context < 0x1p40)) {
    return Refuse(fmt::format("an original context of {} tokens", rope.original_context));
  }
  json_[Is("gpt_neox") ? "rotary_emb_base" : "rope_theta"] = rope.theta;
  const double part = static_cast<double>(c_.rotary()) / static_cast<double>(c_.D);
  if (Is("gpt_neox")) json_["rotary_pct"] = part;
  if (Is("phi3")) {
    json_["partial_rotary_factor"] = part;
    if (rope.scaling == RopeScaling::kLongRope) {
      json_["original_max_position_embeddings"] = static_cast<int64_t>(rope.original_context);
    }
  }
  if (IsGemma3()) json_["rope_local_base_freq"] = c_.local_rope ? c_.local_rope->theta : rope.theta;
  if (const Json scaling = Scaling(); !scaling.is_null()) json_["rope_scaling"] = scaling;
}

Json HfWriter::Scaling() const {
  const RopeConfig& rope = c_.rope;
  const auto original = static_cast<int64_t>(rope.original_context);
  switch (rope.scaling) {
    case RopeScaling::kNone:
      return nullptr;
    case RopeScaling::kLinear:
      return {{"rope_type", "linear"}, {"factor", rope.factor}};
    case RopeScaling::kLlama3:
      return {{"rope_type", "llama3"},
              {"factor", rope.factor},
              {"low_freq_factor", rope.low_factor},
              {"high_freq_factor", rope.high_factor},
              {"original_max_position_embeddings", original}};
    case RopeScaling::kYarn: {
      Json yarn = {{"rope_type", "yarn"},
                   {"factor", rope.factor},
                   {"original_max_position_embeddings", original},
                   {"attention_factor", rope.magnitude},
                   {"beta_fast", rope.beta_fast},
                   {"beta_slow", rope.beta_slow}};
      if (!rope.truncate) yarn["truncate"] = false;
      return yarn;
    }
    case RopeScaling::kLongRope: {
      Json stretch = {{"rope_type", "longrope"},
                      {"attention_factor", rope.magnitude},
                      {"short_factor", Json::array()},
                      {"long_factor", Json::array()}};
      if (!Is("phi3")) stretch["original_max_position_embeddings"] = original;
      for (const float factor : rope.divisors) stretch["short_factor"].push_back(ShortestDouble(factor));
      for (const float factor : rope.long_divisors) stretch["long_factor"].push_back(ShortestDouble(factor));
      return stretch;
    }
  }
  return nullptr;
}

}  // namespace

Result<std::string> HfConfigJson(const Config& config) {
  if (!FindFamily(config.family)) return Failure{fmt::format("config.json: {} is not known", config.family)};
  Config said = config;
  // GGUF files of Mistral models say "llama".
  if (config.family == "llama" && config.window > 0) said.family = "mistral";
  const Family& family = *FindFamily(said.family);
  if (said.norm_offset != family.norm_offset || said.transposed != family.transposed) {
    return Failure{
        fmt::format("config.json of {} has no words for weights as GGUF files have them", said.family)};
  }
  const Result<Json> json = HfWriter(said).Write();
  if (!json.ok()) return json.failure();
  // A name may be any bytes.
  const std::string text = json.value().dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  // As who opens the folder will take it.
  const Result<Config> got = ParseHfConfig(text, "config.json");
  if (!got.ok()) return got.failure();
  const std::string difference = ConfigDifference(said, got.value());
  if (difference.empty()) return text;
  return Failure{fmt::format("config.json of {} would say otherwise: {}", said.family, difference)};
}

}  // namespace rung::model
