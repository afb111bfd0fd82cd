// Metadata of GGUF files. Keys and meanings: docs/formats/gguf.md.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>
#include <set>

#include "base/text.h"
#include "format/format.h"
#include "model/config_difference.h"
#include "model/families.h"
#include "model/model_tensors.h"
#include "model/weights.h"

namespace rung::model {
namespace {

// Keys that say nothing about the computation, or say again what the tensors say.
constexpr std::string_view kHarmless[] = {"vocab_size",        "tensor_data_layout",     "pooling_type",
                                          "expert_used_count", "rope.scaling.finetuned", "attention.causal"};

class GgufReader {
 public:
  GgufReader(const io::Gguf& gguf, const Family& family, std::string architecture)
      : gguf_(gguf), family_(family), architecture_(std::move(architecture)) {}

  Result<Config> Read() {
    SetSwitches(family_, &config_);
    ReadShape();
    ReadSwitches();
    ReadScales();
    ReadWindow();
    if (!config_.no_rope && config_.D > 0) ReadRope();
    if (!failure_.empty()) return Failure{failure_};
    return Validated(config_, gguf_.name());
  }

  // Keys of the architecture that Read did not ask for.
  std::vector<std::string> Unread() const {
    std::vector<std::string> keys;
    const std::string prefix = architecture_ + ".";
    for (const auto& [key, value] : gguf_.metadata()) {
      if (!key.starts_with(prefix) || asked_.contains(key)) continue;
      const std::string_view suffix = std::string_view(key).substr(prefix.size());
      if (config_.no_rope && suffix.starts_with("rope.")) continue;  // of what the model does not have
      if (std::find(std::begin(kHarmless), std::end(kHarmless), suffix) == std::end(kHarmless))
        keys.push_back(key);
    }
    return keys;
  }

 private:
  bool Is(std::string_view type) const { return family_.type == type; }

  void Fail(std::string message) {
    if (failure_.empty()) failure_ = fmt::format("{}: {}", gguf_.name(), message);
  }
  std::string Key(std::string_view suffix) {
    std::string key = fmt::format("{}.{}", architecture_, suffix);
    asked_.insert(key);
    return key;
  }
  bool Has(std::string_view suffix) { return gguf_.metadata().contains(Key(suffix)); }
  int64_t Int(std::string_view suffix, int64_t otherwise) {
    const std::string key = Key(suffix);
    if (!gguf_.metadata().contains(key)) return otherwise;
    const std::optional<int64_t> value = gguf_.GetInt(key);
    // A list has one number for each layer.
    if (!value) Fail(fmt::format("{} is not one whole number: not supported", key));
    return value.value_or(otherwise);
  }
  double Float(std::string_view suffix, double otherwise) {
    const std::string key = Key(suffix);
    if (!gguf_.metadata().contains(key)) return otherwise;
    const std::optional<double> value = gguf_.GetFloat(key);
    if (!value) Fail(fmt::format("{} is not a number", key));
    return value.value_or(otherwise);
  }

  void ReadShape();
  void ReadSwitches();
  void ReadScales();
  void ReadWindow();
  void ReadRope();
  void ReadScaling();
  void ReadFactors();
  void ReadDivisors(const char* name, std::vector<float>* divisors);

  const io::Gguf& gguf_;
  const Family& family_;
  std::string architecture_;
  Config config_;
  std::string failure_;
  std::set<std::string, std::less<>> asked_;
};

void GgufReader::ReadShape() {
  Config& c = config_;
  if (const std::string* name = gguf_.GetString("general.name")) c.name = *name;
  c.L = Int("block_count", 0);
  c.C = Int("embedding_length", 0);
  c.F = Int("feed_forward_length", 0);
  c.Hq = Int("attention.head_count", 0);
  c.Hkv = Int("attention.head_count_kv", c.Hq);
  c.D = Int("attention.key_length", c.Hq > 0 ? c.C / c.Hq : 0);
  if (Int("attention.value_length", c.D) != c.D)
    Fail("heads whose keys and values differ in size are not supported");
  c.context = Int("context_length", 2048);
  const bool layer_norm = family_.norm == nn::NormKind::kLayer;
  c.norm_eps = static_cast<float>(
      Float(layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon", 1e-5));
  if (const io::GgufTensor* embedding = gguf_.Find("token_embd.weight");
      embedding && embedding->dims.size() == 2) {
    c.V = embedding->dims[1];
  }
  if (const int64_t experts = Int("expert_count", 0); experts > 0) {
    if (failure_.empty()) failure_ = MixtureMessage(gguf_.name(), fmt::format("expert_count {}", experts));
  }
}

void GgufReader::ReadSwitches() {
  Config& c = config_;
  const auto has = [&](const char* first, const char* other) {
    return gguf_.Find(first) || gguf_.Find(other);
  };
  // What its converter does to weights: gains are whole, layers are (out, in), fused rows are q, k, v.
  c.norm_offset = 0.0f;
  c.transposed = false;
  if (c.qkv == nn::QkvRows::kInterleaved) c.qkv = nn::QkvRows::kStacked;
  c.rope.half = !family_.gguf_pairs;
  c.tied_head = gguf_.Find("output.weight") == nullptr;
  c.qkv_bias = has("blk.0.attn_q.bias", "blk.0.attn_qkv.bias");
  c.o_bias = has("blk.0.attn_output.bias", "blk.0.attn_output.bias");
  c.mlp_bias = has("blk.0.ffn_up.bias", "blk.0.ffn_down.bias");
  c.activation = *ParseActivation(family_.activation);
  if (Is("gpt_neox")) c.parallel = gguf_.GetBool(Key("use_parallel_residual")).value_or(true);
  if (Is("gpt2")) {
    const io::GgufTensor* positions = gguf_.Find("position_embd.weight");
    c.position_rows = positions && positions->dims.size() == 2 ? positions->dims[1] : c.context;
  }
  // llama.cpp's own numbers for these two.
  if (Is("smollm3")) {
    for (int64_t i = 3; i < c.L && i < 1024; i += 4) c.unrotated.push_back(i);
  }
  if (Is("granite")) c.no_rope = !gguf_.GetBool(Key("rope.scaling.finetuned")).value_or(true);
  if (!gguf_.GetBool(Key("attention.causal")).value_or(true)) Fail("attention.causal false is not supported");
}

void GgufReader::ReadScales() {
  Config& c = config_;
  const auto number = [&](const char* suffix, double otherwise) {
    return static_cast<float>(Float(suffix, otherwise));
  };
  if (Is("gemma") || Is("gemma2") || Is("gemma3_text")) {
    c.embedding_scale = static_cast<float>(std::sqrt(static_cast<double>(c.C)));
  }
  // llama.cpp knows the two models of 27B by their layers: their scores are scaled by C / Hq.
  const bool large = (Is("gemma2") && c.L == 46) || (Is("gemma3_text") && c.L == 62);
  if (large && c.Hq > 0) {
    c.score_scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(c.C) / static_cast<double>(c.Hq)));
  }
  if (Is("granite") || Is("llama") || Is("gemma2") || Is("gemma3_text")) {
    c.score_scale = number("attention.scale", static_cast<double>(c.score_scale));
  }
  if (Is("granite")) {
    // 0 is llama.cpp's word for none.
    const auto scale = [&](const char* suffix) {
      const float value = number(suffix, 1.0);
      return value == 0.0f ? 1.0f : value;
    };
    c.embedding_scale = scale("embedding_scale");
    c.residual_scale = scale("residual_scale");
    c.logit_scale = 1.0f / scale("logit_scale");
  }
  if (Is("gemma2")) c.score_cap = number("attn_logit_softcapping", 50.0);
  if (Is("gemma2") || Is("gemma3_text"))
    c.logit_cap = number("final_logit_softcapping", Is("gemma2") ? 30.0 : 0.0);
}

void GgufReader::ReadWindow() {
  Config& c = config_;
  c.window = Int("attention.sliding_window", Is("gemma2") ? 4096 : 0);
  if (c.window < 0) {
    Fail(fmt::format("{} {} is negative: a number of tokens is expected, or 0 for none",
                     Key("attention.sliding_window"), c.window));
  }
  // Every pattern-th layer is global; 0: none is. Files of later converters may list the layers.
  const int64_t usual = Is("gemma2") ? 2 : Is("gemma3_text") ? 6 : Is("olmo2") ? 4 : 0;
  const std::string key = Key("attention.sliding_window_pattern");
  if (const std::vector<int64_t>* list = gguf_.GetInts(key)) {
    if (static_cast<int64_t>(list->size()) < c.L) Fail(fmt::format("{} has {} entries", key, list->size()));
    for (int64_t i = 0; i < c.L && i < static_cast<int64_t>(list->size()); ++i) {
      if ((*list)[static_cast<size_t>(i)] != 0) c.windowed.push_back(i);
    }
    if (c.windowed.empty()) c.window = 0;
  } else {
    const int64_t pattern = Int("attention.sliding_window_pattern", usual);
    for (int64_t i = 0; pattern > 0 && i < c.L && i < 1024; ++i) {
      if (i % pattern < pattern - 1) c.windowed.push_back(i);
    }
    if (pattern > 0 && c.windowed.empty()) c.window = 0;
  }
  if (c.window == 0 || static_cast<int64_t>(c.windowed.size()) == c.L) c.windowed.clear();
}

void GgufReader::ReadRope() {
  Config& c = config_;
  c.rope.theta = Float("rope.freq_base", 10000.0);
  const int64_t rotary = Int("rope.dimension_count", c.D);
  c.rope.rotary = rotary == c.D ? 0 : rotary;
  if (rotary < 2 || rotary > c.D) {
    Fail(fmt::format("rope.dimension_count is {}, a head has {}", rotary, c.D));
    return;
  }
  const RopeConfig plain = c.rope;
  ReadScaling();
  ReadFactors();
  // Layers with a window beside global ones: their own base, never stretched.
  if (c.window > 0 && (Is("gemma3_text") || Is("olmo2"))) {
    RopeConfig local = plain;
    local.original_context = c.rope.original_context;
    local.theta = Float("rope.freq_base_swa", Is("gemma3_text") ? 10000.0 : plain.theta);
    if (!(local == c.rope)) c.local_rope = local;
  }
}

void GgufReader::ReadScaling() {
  RopeConfig& rope = config_.rope;
  const std::string* type = gguf_.GetString(Key("rope.scaling.type"));
  const double factor = Float("rope.scaling.factor", Float("rope.scale_linear", 1.0));
  const double attention =
      Float("rope.scaling.attn_factor", 1.0) * Float("rope.scaling.yarn_attn_factor", 1.0);
  const double original = Float("rope.scaling.original_context_length", static_cast<double>(config_.context));
  rope.original_context = original;
  const std::string kind = type ? *type : factor != 1.0 ? "linear" : "none";
  if (kind == "linear") {
    if (factor != 1.0) rope.scaling = RopeScaling::kLinear;
    rope.factor = factor;
  } else if (kind == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    rope.factor = factor;
    rope.beta_fast = Float("rope.scaling.yarn_beta_fast", 32.0);
    rope.beta_slow = Float("rope.scaling.yarn_beta_slow", 1.0);
    rope.magnitude = attention * (factor > 1.0 ? 0.1 * std::log(factor) + 1.0 : 1.0);
    if (const double extrapolated = Float("rope.scaling.yarn_ext_factor", 1.0); extrapolated != 1.0) {
      Fail(fmt::format("rope.scaling.yarn_ext_factor {} is not supported", extrapolated));
    }
  } else if (kind == "longrope") {
    rope.magnitude = attention;
  } else if (kind != "none") {
    Fail(fmt::format("rope.scaling.type \"{}\" is not known; known are: none, linear, yarn, longrope",
                     Printable(kind)));
  }
  if (kind == "none") rope.magnitude = attention;
}

void GgufReader::ReadFactors() {
  RopeConfig& rope = config_.rope;
  ReadDivisors("rope_freqs.weight", &rope.divisors);
  const bool has_short = gguf_.Find("rope_factors_short.weight"),
             has_long = gguf_.Find("rope_factors_long.weight");
  if (!has_short && !has_long) return;
  if (!has_short || !has_long || !rope.divisors.empty() || rope.scaling != RopeScaling::kNone) {
    Fail("rope_factors_short.weight, rope_factors_long.weight: both belong together, without other scaling");
    return;
  }
  rope.scaling = RopeScaling::kLongRope;
  ReadDivisors("rope_factors_short.weight", &rope.divisors);
  ReadDivisors("rope_factors_long.weight", &rope.long_divisors);
}

void GgufReader::ReadDivisors(const char* name, std::vector<float>* divisors) {
  const io::GgufTensor* tensor = gguf_.Find(name);
  if (!tensor) return;
  const int64_t half = config_.rotary() / 2;
  constexpr int kGgmlF32 = 0;
  if (tensor->type != kGgmlF32 || tensor->dims != std::vector<int64_t>{half}) {
    Fail(fmt::format("{} must be {} f32 numbers", name, half));
    return;
  }
  divisors->resize(static_cast<size_t>(half));
  format::Matrix row;
  row.rows = 1;
  row.cols = half;
  row.data = tensor->data.data();
  format::DecodeRow(row, 0, divisors->data());
  for (const float value : *divisors) {
    if (!(value > 0.0f)) Fail(fmt::format("{} must be positive", name));
  }
}

Result<const Family*> FamilyOf(const io::Gguf& gguf) {
  const std::string* architecture = gguf.GetString("general.architecture");
  if (!architecture)
    return Failure{fmt::format("{}: no general.architecture: not a model file", gguf.name())};
  if (IsMixture(*architecture)) {
    return Failure{MixtureMessage(gguf.name(), "general.architecture " + *architecture)};
  }
  if (const Family* family = FindArchitecture(*architecture)) return family;
  std::string known;
  for (const Family& row : Families()) {
    if (row.architecture.empty() || row.type == "mistral") continue;
    known += (known.empty() ? "" : ", ") + std::string(row.architecture);
  }
  return Failure{fmt::format("{}: unknown architecture \"{}\"; known are: {}", gguf.name(),
                             Printable(*architecture), known)};
}

// Names without the layer's number: "blk.*.attn_q_norm.weight".
std::string KindOf(const std::string& name) {
  constexpr std::string_view kLayer = "blk.";
  if (!name.starts_with(kLayer)) return name;
  const size_t end = name.find_first_not_of("0123456789", kLayer.size());
  return end == std::string::npos ? name : std::string(kLayer) + "*" + name.substr(end);
}

// -1: of no layer.
int64_t LayerOf(const std::string& name) {
  constexpr std::string_view kLayer = "blk.";
  int64_t layer = -1;
  if (name.starts_with(kLayer))
    std::from_chars(name.data() + kLayer.size(), name.data() + name.size(), layer);
  return layer;
}

// The kinds of tensors that are read of a layer, or stand outside of the layers.
std::set<std::string> KindsOf(const Config& config) {
  Config one = AsFolder(config);
  one.L = 1;
  std::set<std::string> kinds = {"rope_freqs.weight", "rope_factors_short.weight",
                                 "rope_factors_long.weight"};
  for (const ModelTensor& tensor : ModelTensors(one)) {
    if (!tensor.gguf.empty()) kinds.insert(KindOf(tensor.gguf));
  }
  return kinds;
}

// By kind, those that no part of the model reads; those of further layers are one kind.
std::map<std::string, std::vector<std::string>> UnusedTensors(const io::Gguf& gguf, const Config& config) {
  const std::set<std::string> kinds = KindsOf(config);
  std::map<std::string, std::vector<std::string>> unused;
  for (const io::GgufTensor& tensor : gguf.tensors()) {
    const std::string kind = KindOf(tensor.name);
    if (!kinds.contains(kind)) unused[kind].push_back(tensor.name);
    if (kinds.contains(kind) && LayerOf(tensor.name) >= config.L) unused["layers"].push_back(tensor.name);
  }
  return unused;
}

}  // namespace

Result<Config> ConfigFromGguf(const io::Gguf& gguf) {
  const Result<const Family*> family = FamilyOf(gguf);
  if (!family.ok()) return family.failure();
  return GgufReader(gguf, *family.value(), std::string(family.value()->architecture)).Read();
}

std::vector<std::string> ConfigWarnings(const io::Gguf& gguf) {
  const Result<const Family*> family = FamilyOf(gguf);
  if (!family.ok()) return {};
  GgufReader reader(gguf, *family.value(), std::string(family.value()->architecture));
  const Result<Config> config = reader.Read();
  if (!config.ok()) return {};
  std::vector<std::string> warnings;
  for (const std::string& key : reader.Unread()) {
    warnings.push_back(fmt::format("{}: metadata key {} is not known and may change what the model computes",
                                   gguf.name(), Printable(key)));
  }
  for (const auto& [kind, names] : UnusedTensors(gguf, config.value())) {
    const std::string more =
        names.size() > 1 ? fmt::format(" and {} more of its kind", names.size() - 1) : "";
    warnings.push_back(
        fmt::format("{}: tensor {}{}: no part of a {} model here, left out of what the model computes",
                    gguf.name(), Printable(names.front()), more, config.value().family));
  }
  return warnings;
}

}  // namespace rung::model
