// config.json of Hugging Face folders.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "base/half.h"
#include "base/text.h"
#include "io/json_file.h"
#include "model/families.h"
#include "model/hf_rope.h"

namespace rung::model {
namespace {

using nlohmann::json;

std::string Dump(const json& value) {
  return Printable(value.dump(-1, ' ', false, json::error_handler_t::replace));
}

class HfReader {
 public:
  // `outer`: the whole file; `object`: the part that describes the language model.
  HfReader(const json& outer, const json& object, const Family& family, const std::string& where)
      : outer_(outer), object_(object), family_(family), where_(where) {}

  Result<Config> Read() {
    SetSwitches(family_, &config_);
    ReadShape();
    ReadSwitches();
    ReadScales();
    ReadWindow();
    if (failure_.empty() && config_.D > 0 && !family_.no_rope) ReadRope();
    if (!failure_.empty()) return Failure{failure_};
    return Validated(std::move(config_), where_);
  }

 private:
  using Keys = std::initializer_list<const char*>;

  bool Is(std::string_view type) const { return family_.type == type; }
  bool IsGemma() const { return family_.type.starts_with("gemma"); }
  bool IsGemma3() const { return family_.type.starts_with("gemma3"); }

  void Fail(std::string message) {
    if (failure_.empty()) failure_ = std::move(message);
  }

  // The first of the keys that is there and not null.
  const json* Find(Keys keys, const char** found = nullptr) const {
    for (const char* key : keys) {
      const auto it = object_.find(key);
      if (it == object_.end() || it->is_null()) continue;
      if (found) *found = key;
      return &*it;
    }
    return nullptr;
  }
  int64_t Int(Keys keys, int64_t otherwise) {
    const char* key = "";
    const json* value = Find(keys, &key);
    if (!value) return otherwise;
    if (value->is_number_integer()) return value->get<int64_t>();
    // 4096.0 is written where a division made it.
    if (value->is_number_float() && std::nearbyint(value->get<double>()) == value->get<double>() &&
        std::abs(value->get<double>()) < 0x1p53) {
      return static_cast<int64_t>(value->get<double>());
    }
    Fail(fmt::format("{}: {} {} is not a whole number", where_, key, Dump(*value)));
    return otherwise;
  }
  double Number(Keys keys, double otherwise) {
    const char* key = "";
    const json* value = Find(keys, &key);
    if (!value) return otherwise;
    if (value->is_number()) return value->get<double>();
    Fail(fmt::format("{}: {} {} is not a number", where_, key, Dump(*value)));
    return otherwise;
  }
  bool Bool(const char* key, bool otherwise) {
    const json* value = Find({key});
    if (!value) return otherwise;
    if (value->is_boolean()) return value->get<bool>();
    Fail(fmt::format("{}: {} {} is not true or false", where_, key, Dump(*value)));
    return otherwise;
  }
  // What would change the computation in a way that is not known here.
  void Refuse(const char* key, bool allowed) {
    const json* value = Find({key});
    if (!value || *value == json(allowed)) return;
    Fail(fmt::format("{}: {} {} is not supported for {}", where_, key, Dump(*value), family_.type));
  }

  void RefuseCap(const char* key) {
    if (Number({key}, 0.0) == 0.0) return;
    Fail(fmt::format("{}: {} {} is not supported for {}", where_, key, Dump(object_[key]), family_.type));
  }

  void ReadShape();
  void ReadSwitches();
  void ReadOpt();
  void ReadActivation();
  void ReadScales();
  void ReadWindow();
  void ReadRope();
  void ReadGemma3Rope(const json* object);
  RopeSurroundings Around(std::string key) const;
  std::vector<int64_t> WindowedLayers(int64_t default_pattern);

  const json &outer_, &object_;
  const Family& family_;
  const std::string& where_;
  Config config_;
  std::string failure_;
};

void HfReader::ReadShape() {
  Config& c = config_;
  const auto name = outer_.find("_name_or_path");
  if (name != outer_.end() && name->is_string()) c.name = name->get<std::string>();
  c.L = Int({"num_hidden_layers", "n_layer"}, 0);
  c.C = Int({"hidden_size", "n_embd"}, 0);
  constexpr int64_t kFar = int64_t{1} << 40;  // beyond what is accepted, safe to calculate with
  const bool fourfold = Is("gpt2") && c.C > 0 && c.C < kFar;
  c.F = Int({"intermediate_size", "ffn_dim", "n_inner"}, fourfold ? 4 * c.C : 0);
  c.Hq = Int({"num_attention_heads", "n_head"}, family_.heads);
  c.Hkv = Int({"num_key_value_heads"}, family_.kv_heads > 0 ? family_.kv_heads : c.Hq);
  const int64_t even_share = c.Hq > 0 ? c.C / c.Hq : 0;
  c.D = Int({"head_dim"}, family_.head_size > 0 ? family_.head_size : even_share);
  c.V = Int({"vocab_size"}, family_.vocabulary);
  c.context = Int({"max_position_embeddings", "n_positions", "n_ctx"}, family_.context);
  if (c.context > kFar) Fail(fmt::format("{}: a context of {} tokens", where_, c.context));
  c.context = std::min(c.context, kFar);
  c.norm_eps = static_cast<float>(Number({"rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"},
                                         static_cast<double>(family_.norm_eps)));
  // A model of images and text says it for all of itself.
  const auto tied = outer_.find("tie_word_embeddings");
  c.tied_head = tied != outer_.end() && tied->is_boolean() ? tied->get<bool>()
                                                           : Bool("tie_word_embeddings", family_.tied_head);
}

void HfReader::ReadActivation() {
  const char* key = "";
  const json* value = Is("gemma2") || IsGemma3() ? Find({"hidden_activation"}, &key)
                                                 : Find({"hidden_act", "activation_function"}, &key);
  std::string name =
      value && value->is_string() ? value->get<std::string>() : std::string(family_.activation);
  // The first Gemma files say "gelu" where they mean its approximation, as transformers knows.
  if (Is("gemma") && name == "gelu") name = "gelu_pytorch_tanh";
  const std::optional<cpu::Activation> activation = ParseActivation(name);
  if (!activation || (value && !value->is_string())) {
    Fail(fmt::format("{}: {} {} is not known; known are: {}", where_, key, value ? Dump(*value) : name,
                     KnownActivations()));
    return;
  }
  config_.activation = *activation;
}

void HfReader::ReadOpt() {
  Config& c = config_;
  constexpr int64_t kFirstPosition = 2;  // rows before it were meant for padding
  c.first_position = kFirstPosition;
  c.position_rows = c.context + kFirstPosition;
  const int64_t width = Int({"word_embed_proj_dim"}, c.C);
  c.E = width == c.C ? 0 : width;
  c.norms = Bool("do_layer_norm_before", true);
  c.norm_after_sum = !c.norms;
  c.final_norm = c.norms && !Bool("_remove_final_layer_norm", false);
  c.qkv_bias = c.o_bias = c.mlp_bias = Bool("enable_bias", true);
  Refuse("layer_norm_elementwise_affine", true);
}

void HfReader::ReadSwitches() {
  Config& c = config_;
  ReadActivation();
  if (Is("opt")) ReadOpt();
  if (Is("gpt2")) {
    c.position_rows = c.context;
    if (!Bool("scale_attn_weights", true)) c.score_scale = 1.0f;
    Refuse("scale_attn_by_inverse_layer_idx", false);
    Refuse("add_cross_attention", false);
  }
  if (Is("gpt_neox")) {
    c.parallel = Bool("use_parallel_residual", true);
    c.qkv_bias = c.o_bias = Bool("attention_bias", true);
  }
  const bool has_bias_key =
      Is("llama") || Is("qwen3") || Is("granite") || Is("smollm3") || Is("olmo2") || IsGemma();
  if (has_bias_key) c.qkv_bias = c.o_bias = Bool("attention_bias", false);
  // Files of Qwen2 say it of the biases that the family has anyway.
  if (!has_bias_key && !Is("gpt_neox") && !Is("qwen2")) Refuse("attention_bias", false);
  if (Is("llama") || Is("granite") || Is("smollm3")) {
    c.mlp_bias = Bool("mlp_bias", false);
  } else {
    Refuse("mlp_bias", false);
  }
  Refuse("use_bidirectional_attention", false);
  Refuse("is_encoder_decoder", false);
  for (const char* key : {"num_local_experts", "num_experts", "n_routed_experts"}) {
    if (Int({key}, 0) > 0) Fail(MixtureMessage(where_, fmt::format("{} {}", key, Dump(object_[key]))));
  }
}

void HfReader::ReadScales() {
  Config& c = config_;
  const auto number = [&](const char* key, double otherwise) {
    return static_cast<float>(Number({key}, otherwise));
  };
  if (IsGemma()) {
    // transformers multiplies in the type of the embedding.
    c.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(c.C)));
    const json& at = outer_.contains("dtype") || outer_.contains("torch_dtype") ? outer_ : object_;
    const json type = at.contains("dtype") ? at["dtype"] : at.value("torch_dtype", json());
    if (type == "bfloat16") c.embedding_scale = ToFloat(ToBf16(c.embedding_scale));
    if (type == "float16") c.embedding_scale = ToFloat(ToF16(c.embedding_scale));
  }
  if (Is("gemma2") || IsGemma3()) {
    const double scalar = Number({"query_pre_attn_scalar"}, 256.0);
    if (!(scalar > 0.0)) Fail(fmt::format("{}: query_pre_attn_scalar {} is not positive", where_, scalar));
    c.score_scale = scalar == static_cast<double>(c.D) ? 0.0f : static_cast<float>(1.0 / std::sqrt(scalar));
  }
  const auto cap = [&](const char* key, double otherwise) {
    const auto it = object_.find(key);
    return it != object_.end() && it->is_null() ? 0.0f : number(key, otherwise);
  };
  if (Is("gemma2")) {
    c.score_cap = cap("attn_logit_softcapping", 50.0);
    c.logit_cap = cap("final_logit_softcapping", 30.0);
  }
  if (Is("gemma3_text")) c.logit_cap = cap("final_logit_softcapping", 0.0);
  // Keys that transformers has and does not use.
  if (IsGemma3()) RefuseCap("attn_logit_softcapping");
  if (Is("gemma3")) RefuseCap("final_logit_softcapping");
  if (Is("granite")) {
    c.embedding_scale = number("embedding_multiplier", 1.0);
    c.residual_scale = number("residual_multiplier", 1.0);
    c.score_scale = number("attention_multiplier", 1.0);
    const double scaling = Number({"logits_scaling"}, 1.0);
    if (!(scaling > 0.0)) Fail(fmt::format("{}: logits_scaling {} is not positive", where_, scaling));
    c.logit_scale = static_cast<float>(1.0 / scaling);
  }
}

// Of layer_types, or every layer but each default_pattern-th; 0: none by default.
std::vector<int64_t> HfReader::WindowedLayers(int64_t default_pattern) {
  std::vector<int64_t> layers;
  const json* types = Find({"layer_types"});
  if (!types) {
    for (int64_t i = 0; default_pattern > 0 && i < config_.L && i < 1024; ++i) {
      if ((i + 1) % default_pattern != 0) layers.push_back(i);
    }
    return layers;
  }
  if (!types->is_array() || static_cast<int64_t>(types->size()) != config_.L) {
    Fail(fmt::format("{}: layer_types is not a list of {} words", where_, config_.L));
    return layers;
  }
  for (size_t i = 0; i < types->size(); ++i) {
    const json& type = (*types)[i];
    if (type == "sliding_attention") {
      layers.push_back(static_cast<int64_t>(i));
    } else if (type != "full_attention") {
      Fail(fmt::format("{}: layer_types {} is not known; known are: full_attention, sliding_attention",
                       where_, Dump(type)));
    }
  }
  return layers;
}

void HfReader::ReadWindow() {
  Config& c = config_;
  const bool everywhere = Is("mistral") || Is("phi3");
  const auto it = object_.find("sliding_window");
  int64_t window = it != object_.end() && it->is_null() ? 0 : Int({"sliding_window"}, family_.window);
  if (Is("smollm3")) {
    const int64_t interval = Int({"no_rope_layer_interval"}, 4);
    const json* list = Find({"no_rope_layers"});
    if (list && (!list->is_array() || static_cast<int64_t>(list->size()) < c.L)) {
      Fail(fmt::format("{}: no_rope_layers is not a list of {} numbers", where_, c.L));
      return;
    }
    for (int64_t i = 0; i < c.L && i < 1024; ++i) {  // 1: RoPE, 0: none
      const bool turns =
          list ? (*list)[static_cast<size_t>(i)] != json(0) : interval < 1 || (i + 1) % interval != 0;
      if (!turns) c.unrotated.push_back(i);
    }
  }
  if (Is("qwen2") || Is("qwen3") || Is("smollm3")) {
    if (!Bool("use_sliding_window", false)) window = 0;
    if (window == 0) return;
    c.windowed = WindowedLayers(0);
    if (!Find({"layer_types"}) && Is("smollm3")) c.windowed = c.unrotated;
    if (!Find({"layer_types"}) && !Is("smollm3")) {
      // Layers from max_window_layers on have the window.
      for (int64_t i = std::max<int64_t>(0, Int({"max_window_layers"}, 28)); i < c.L && i < 1024; ++i) {
        c.windowed.push_back(i);
      }
    }
  } else if (Is("gemma2")) {
    c.windowed = WindowedLayers(2);
  } else if (IsGemma3()) {
    c.windowed = WindowedLayers(Int({"sliding_window_pattern", "_sliding_window_pattern"}, 6));
  } else if (!everywhere) {
    if (!WindowedLayers(0).empty())
      Fail(fmt::format("{}: layer_types is not supported for {}", where_, family_.type));
    return;
  }
  if (everywhere ? window == 0 : c.windowed.empty()) window = 0;
  if (window < 0) {
    Fail(fmt::format("{}: sliding_window {} is negative: a number of tokens is expected, or null for none",
                     where_, window));
    return;
  }
  c.window = window;
  if (window == 0 || static_cast<int64_t>(c.windowed.size()) == c.L) c.windowed.clear();
}

RopeSurroundings HfReader::Around(std::string key) const {
  RopeSurroundings around{where_, std::move(key), config_.context, 0, config_.D, Is("phi3")};
  if (const json* original = Find({"original_max_position_embeddings"});
      original && original->is_number_integer()) {
    around.original_context = original->get<int64_t>();
  } else if (Is("phi3")) {
    around.original_context = 4096;
  }
  return around;
}

void HfReader::ReadRope() {
  RopeConfig& rope = config_.rope;
  rope.theta = Number({"rope_theta", "rotary_emb_base"}, rope.theta);
  const char* key = "rope_parameters";
  const json* object = Find({"rope_parameters", "rope_scaling"}, &key);
  const RopeSurroundings around = Around(key);
  const double part = Number({"partial_rotary_factor", "rotary_pct"}, Is("gpt_neox") ? 0.25 : 1.0);
  const bool partial = Is("gpt_neox") || Is("phi3");
  if (!partial && part != 1.0) {
    Fail(fmt::format("{}: partial_rotary_factor {} is not supported for {}", where_, part, family_.type));
  }
  if (Status rotary = SetRotary(part, around, &rope); !rotary.ok()) Fail(rotary.failure().message);
  if (IsGemma3()) return ReadGemma3Rope(object);
  if (!object) return;
  if (Status read = ReadRopeObject(*object, around, &rope); !read.ok()) Fail(read.failure().message);
  if (!partial && rope.rotary != 0) {
    Fail(fmt::format("{}: partial_rotary_factor is not supported for {}", where_, family_.type));
  }
}

// Layers with a window have plain RoPE of their own base. `object`: one description for the others, or two by
// the kind of layer; nullptr: none.
void HfReader::ReadGemma3Rope(const json* object) {
  RopeConfig local;
  local.theta = Number({"rope_local_base_freq"}, local.theta);
  const auto read = [&](const json& from, const char* key, RopeConfig* rope) {
    if (Status status = ReadRopeObject(from, Around(key), rope); !status.ok()) Fail(status.failure().message);
  };
  const bool nested = object && object->is_object() &&
                      (object->contains("full_attention") || object->contains("sliding_attention"));
  if (nested) {
    const json full = object->value("full_attention", json()),
               sliding = object->value("sliding_attention", json());
    if (!full.is_null()) read(full, "rope_parameters.full_attention", &config_.rope);
    if (!sliding.is_null()) read(sliding, "rope_parameters.sliding_attention", &local);
  } else if (object) {
    read(*object, "rope_scaling", &config_.rope);
  }
  if (config_.window > 0 && !(local == config_.rope)) config_.local_rope = local;
}

}  // namespace

Result<Config> ParseHfConfig(std::string_view text, const std::string& name) {
  Result<json> parsed = io::ParseJson(text, name);
  if (!parsed.ok()) return parsed.failure();
  const json& object = parsed.value();
  if (!object.is_object()) return Failure{fmt::format("{}: not a JSON object", name)};
  const auto type = object.find("model_type");
  if (type == object.end() || !type->is_string()) {
    return Failure{fmt::format("{}: no \"model_type\": is this a model's config.json?", name)};
  }
  const auto family_name = type->get<std::string>();
  if (IsMixture(family_name)) return Failure{MixtureMessage(name, "model_type " + family_name)};
  const Family* family = FindFamily(family_name);
  if (!family) {
    return Failure{fmt::format("{}: unknown architecture \"{}\"; known are: {}", name, Printable(family_name),
                               KnownFamilies())};
  }
  if (family_name != "gemma3") return HfReader(object, object, *family, name).Read();
  const auto language = object.find("text_config");
  if (language == object.end() || !language->is_object()) {
    return Failure{fmt::format("{}: no \"text_config\": the language model of a \"gemma3\" model", name)};
  }
  return HfReader(object, *language, *family, name).Read();
}

}  // namespace rung::model
