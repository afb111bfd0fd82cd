#include "convert/gguf_metadata.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "convert/folder_config.h"
#include "model/config_difference.h"
#include "model/model_tensors.h"

namespace rung::convert {
namespace {

class Keys {
 public:
  explicit Keys(std::string architecture) : architecture_(std::move(architecture)) {}

  void Int(const char* key, int64_t value) { Put(key, static_cast<uint32_t>(value)); }
  void Float(const char* key, double value) { Put(key, static_cast<float>(value)); }
  void Bool(const char* key, bool value) { Put(key, value); }
  void Text(const char* key, const std::string& value) { Put(key, value); }
  io::GgufFields fields;

 private:
  void Put(const char* key, io::GgufField value) {
    fields.emplace_back(fmt::format("{}.{}", architecture_, key), std::move(value));
  }
  std::string architecture_;
};

using model::IsNear;
using model::ScoreScale;

// What YaRN's attention factor is where nobody says (arXiv 2309.00071).
double YarnMagnitude(double factor) { return factor > 1.0 ? 0.1 * std::log(factor) + 1.0 : 1.0; }

void AddRope(const model::Config& c, Keys* keys) {
  if (c.no_rope) return;
  const model::RopeConfig& rope = c.rope;
  keys->Int("rope.dimension_count", c.rotary());
  keys->Float("rope.freq_base", rope.theta);
  if (c.local_rope) keys->Float("rope.freq_base_swa", c.local_rope->theta);
  switch (rope.scaling) {
    case model::RopeScaling::kNone:
    case model::RopeScaling::kLlama3:  // a tensor says it
      break;
    case model::RopeScaling::kLinear:
      keys->Text("rope.scaling.type", "linear");
      keys->Float("rope.scaling.factor", rope.factor);
      break;
    case model::RopeScaling::kYarn:
      keys->Text("rope.scaling.type", "yarn");
      keys->Float("rope.scaling.factor", rope.factor);
      keys->Int("rope.scaling.original_context_length", std::llround(rope.original_context));
      if (!IsNear(rope.magnitude, YarnMagnitude(rope.factor))) {
        keys->Float("rope.scaling.attn_factor", rope.magnitude / YarnMagnitude(rope.factor));
      }
      if (rope.beta_fast != 32.0) keys->Float("rope.scaling.yarn_beta_fast", rope.beta_fast);
      if (rope.beta_slow != 1.0) keys->Float("rope.scaling.yarn_beta_slow", rope.beta_slow);
      break;
    case model::RopeScaling::kLongRope:
      keys->Text("rope.scaling.type", "longrope");
      keys->Int("rope.scaling.original_context_length", std::llround(rope.original_context));
      keys->Float("rope.scaling.attn_factor", rope.magnitude);
      break;
  }
}

// What single families have.
void AddFamily(const model::Config& c, Keys* keys) {
  if (c.window > 0) keys->Int("attention.sliding_window", c.window);
  if (c.score_cap > 0.0f) keys->Float("attn_logit_softcapping", static_cast<double>(c.score_cap));
  if (c.logit_cap > 0.0f) keys->Float("final_logit_softcapping", static_cast<double>(c.logit_cap));
  if (!IsNear(ScoreScale(c), 1.0 / std::sqrt(static_cast<double>(c.D)))) {
    keys->Float("attention.scale", ScoreScale(c));
  }
  if (c.family == "granite") {
    keys->Float("attention.scale", ScoreScale(c));
    keys->Float("embedding_scale", static_cast<double>(c.embedding_scale));
    keys->Float("residual_scale", static_cast<double>(c.residual_scale));
    keys->Float("logit_scale", 1.0 / static_cast<double>(c.logit_scale));
  }
  if (c.family == "gpt_neox") keys->Bool("use_parallel_residual", c.parallel);
}

// One key is given once.
void DropRepeated(io::GgufFields* fields) {
  for (size_t i = 0; i < fields->size(); ++i) {
    const auto same = [&](const auto& field) { return field.first == (*fields)[i].first; };
    fields->erase(std::remove_if(fields->begin() + static_cast<std::ptrdiff_t>(i) + 1, fields->end(), same),
                  fields->end());
  }
}

}  // namespace

io::GgufFields GgufMetadata(const model::Config& c, const std::string& name) {
  const std::string architecture(model::GgufArchitecture(c));
  io::GgufFields fields = {{"general.architecture", architecture},
                           {"general.type", std::string("model")},
                           {"general.name", name},
                           {"general.quantization_version", uint32_t{2}}};
  Keys keys(architecture);
  keys.Int("block_count", c.L);
  keys.Int("context_length", c.context);
  keys.Int("embedding_length", c.C);
  keys.Int("feed_forward_length", c.F);
  keys.Int("vocab_size", c.V);
  keys.Int("attention.head_count", c.Hq);
  keys.Int("attention.head_count_kv", c.Hkv);
  keys.Int("attention.key_length", c.D);
  keys.Int("attention.value_length", c.D);
  keys.Float(
      c.norm == nn::NormKind::kRms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
      static_cast<double>(c.norm_eps));
  AddRope(c, &keys);
  AddFamily(c, &keys);
  DropRepeated(&keys.fields);
  fields.insert(fields.end(), keys.fields.begin(), keys.fields.end());
  return fields;
}

uint32_t GgufFileType(format::Format format) {
  switch (format) {
    case format::Format::kF32:
      return 0;
    case format::Format::kF16:
      return 1;
    case format::Format::kQ4_0:
      return 2;
    case format::Format::kQ4_1:
      return 3;
    case format::Format::kQ8_0:
      return 7;
    case format::Format::kQ5_0:
      return 8;
    case format::Format::kQ5_1:
      return 9;
    case format::Format::kBf16:
      return 32;
    case format::Format::kMxfp4:
      return 38;
    default:
      return 1024;  // "guessed"
  }
}

std::vector<std::pair<std::string, std::vector<float>>> RopeTensors(const model::Config& config) {
  const model::RopeConfig& rope = config.rope;
  if (config.no_rope) return {};
  if (rope.scaling == model::RopeScaling::kLlama3) return {{"rope_freqs.weight", Llama3Divisors(config)}};
  if (rope.scaling == model::RopeScaling::kLongRope) {
    return {{"rope_factors_long.weight", rope.long_divisors}, {"rope_factors_short.weight", rope.divisors}};
  }
  if (!rope.divisors.empty()) return {{"rope_freqs.weight", rope.divisors}};
  return {};
}

}  // namespace rung::convert
