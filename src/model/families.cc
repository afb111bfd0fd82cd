#include "model/families.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace rung::model {
namespace {

using nn::NormKind;
using nn::QkNorm;
using nn::QkvRows;

// GGUF files of Mistral models name themselves "llama": that row comes first.
constexpr std::array<Family, 15> kFamilies = {{
    {.type = "llama", .architecture = "llama", .model_class = "LlamaForCausalLM", .gguf_pairs = true},
    {.type = "mistral",
     .architecture = "llama",
     .model_class = "MistralForCausalLM",
     .gguf_pairs = true,
     .context = 131072,
     .window = 4096},
    {.type = "qwen2",
     .architecture = "qwen2",
     .model_class = "Qwen2ForCausalLM",
     .qkv_bias = true,
     .context = 32768,
     .window = 4096},
    {.type = "qwen3",
     .architecture = "qwen3",
     .model_class = "Qwen3ForCausalLM",
     .qk_norm = QkNorm::kHead,
     .head_size = 128,
     .context = 32768,
     .window = 4096},
    {.type = "smollm3",
     .architecture = "smollm3",
     .model_class = "SmolLM3ForCausalLM",
     .gguf_pairs = true,
     .tied_head = true,
     .theta = 2e6,
     .context = 32768},
    {.type = "granite", .architecture = "granite", .model_class = "GraniteForCausalLM", .gguf_pairs = true},
    {.type = "olmo2",
     .architecture = "olmo2",
     .model_class = "Olmo2ForCausalLM",
     .norms = false,
     .output_norms = true,
     .qk_norm = QkNorm::kWide,
     .norm_eps = 1e-5},
    {.type = "phi3",
     .architecture = "phi3",
     .model_class = "Phi3ForCausalLM",
     .qkv = QkvRows::kStacked,
     .fused_gate_up = true,
     .norm_eps = 1e-5,
     .context = 4096},
    {.type = "gemma",
     .architecture = "gemma",
     .model_class = "GemmaForCausalLM",
     .norm_offset = 1.0f,
     .tied_head = true,
     .activation = "gelu_pytorch_tanh",
     .head_size = 256,
     .context = 8192},
    {.type = "gemma2",
     .architecture = "gemma2",
     .model_class = "Gemma2ForCausalLM",
     .norm_offset = 1.0f,
     .output_norms = true,
     .tied_head = true,
     .activation = "gelu_pytorch_tanh",
     .head_size = 256,
     .context = 8192,
     .window = 4096},
    {.type = "gemma3_text",
     .architecture = "gemma3",
     .model_class = "Gemma3ForCausalLM",
     .norm_offset = 1.0f,
     .output_norms = true,
     .qk_norm = QkNorm::kHead,
     .tied_head = true,
     .activation = "gelu_pytorch_tanh",
     .theta = 1e6,
     .head_size = 256,
     .context = 131072,
     .heads = 8,
     .kv_heads = 4,
     .vocabulary = 262208,
     .window = 4096},
    // The language model inside a model of images and text; GGUF files hold it alone.
    {.type = "gemma3",
     .architecture = "",
     .model_class = "Gemma3ForConditionalGeneration",
     .norm_offset = 1.0f,
     .output_norms = true,
     .qk_norm = QkNorm::kHead,
     .tied_head = true,
     .activation = "gelu_pytorch_tanh",
     .theta = 1e6,
     .head_size = 256,
     .context = 131072,
     .heads = 8,
     .kv_heads = 4,
     .vocabulary = 262208,
     .window = 4096},
    {.type = "opt",
     .architecture = "",
     .model_class = "OPTForCausalLM",
     .norm = NormKind::kLayer,
     .norm_bias = true,
     .gated = false,
     .qkv_bias = true,
     .o_bias = true,
     .mlp_bias = true,
     .no_rope = true,
     .tied_head = true,
     .activation = "relu",
     .norm_eps = 1e-5},
    {.type = "gpt2",
     .architecture = "gpt2",
     .model_class = "GPT2LMHeadModel",
     .norm = NormKind::kLayer,
     .norm_bias = true,
     .qkv = QkvRows::kStacked,
     .gated = false,
     .qkv_bias = true,
     .o_bias = true,
     .mlp_bias = true,
     .transposed = true,
     .no_rope = true,
     .tied_head = true,
     .activation = "gelu_new",
     .norm_eps = 1e-5,
     .context = 1024},
    {.type = "gpt_neox",
     .architecture = "gptneox",
     .model_class = "GPTNeoXForCausalLM",
     .norm = NormKind::kLayer,
     .norm_bias = true,
     .qkv = QkvRows::kInterleaved,
     .gated = false,
     .qkv_bias = true,
     .o_bias = true,
     .mlp_bias = true,
     .activation = "gelu",
     .norm_eps = 1e-5},
}};

constexpr std::string_view kMixtures[] = {
    "mixtral",     "qwen2_moe", "qwen3_moe",      "qwen3_next",  "olmoe",        "phimoe",
    "granitemoe",  "deepseek",  "deepseek2",      "deepseek_v2", "deepseek_v3",  "gpt_oss",
    "gpt-oss",     "dbrx",      "jetmoe",         "llama4",      "llama4_text",  "ernie4_5_moe",
    "glm4_moe",    "minimax",   "hunyuan_v1_moe", "qwen2moe",    "qwen3moe",     "granitemoehybrid",
    "bailing_moe", "grok-1",    "grok",           "dots1",       "ernie4_5-moe", "hunyuan-moe",
    "glm4moe",     "arctic"};

}  // namespace

std::span<const Family> Families() { return kFamilies; }

const Family* FindFamily(std::string_view type) {
  for (const Family& row : Families()) {
    if (row.type == type) return &row;
  }
  return nullptr;
}

const Family* FindArchitecture(std::string_view architecture) {
  for (const Family& row : Families()) {
    if (!architecture.empty() && row.architecture == architecture) return &row;
  }
  return nullptr;
}

bool IsMixture(std::string_view type) {
  return std::find(std::begin(kMixtures), std::end(kMixtures), type) != std::end(kMixtures);
}

std::string MixtureMessage(const std::string& where, std::string_view what) {
  return fmt::format(
      "{}: {}: mixtures of experts are not supported, because which weights a token reads depends on its "
      "values; use a dense model",
      where, what);
}

std::string KnownFamilies() {
  std::string names;
  for (const Family& row : Families()) names += (names.empty() ? "" : ", ") + std::string(row.type);
  return names;
}

namespace {

// transformers has several names for a function, one for each way to compute it.
constexpr std::pair<std::string_view, cpu::Activation> kActivations[] = {
    {"silu", cpu::Activation::kSilu},
    {"swish", cpu::Activation::kSilu},
    {"gelu", cpu::Activation::kGelu},
    {"gelu_python", cpu::Activation::kGelu},
    {"gelu_new", cpu::Activation::kGeluTanh},
    {"gelu_fast", cpu::Activation::kGeluTanh},
    {"gelu_accurate", cpu::Activation::kGeluTanh},
    {"gelu_pytorch_tanh", cpu::Activation::kGeluTanh},
    {"gelu_python_tanh", cpu::Activation::kGeluTanh},
    {"relu", cpu::Activation::kRelu}};

}  // namespace

std::optional<cpu::Activation> ParseActivation(std::string_view name) {
  for (const auto& [known, activation] : kActivations) {
    if (known == name) return activation;
  }
  return std::nullopt;
}

std::string KnownActivations() {
  std::string names;
  for (const auto& [known, activation] : kActivations)
    names += (names.empty() ? "" : ", ") + std::string(known);
  return names;
}

void SetSwitches(const Family& family, Config* config) {
  config->family = family.type;
  config->norm = family.norm;
  config->norm_offset = family.norm_offset;
  config->norm_bias = family.norm_bias;
  config->norms = family.norms;
  config->output_norms = family.output_norms;
  config->qkv = family.qkv;
  config->qk_norm = family.qk_norm;
  config->gated_mlp = family.gated;
  config->fused_gate_up = family.fused_gate_up;
  config->qkv_bias = family.qkv_bias;
  config->o_bias = family.o_bias;
  config->mlp_bias = family.mlp_bias;
  config->transposed = family.transposed;
  config->no_rope = family.no_rope;
  config->tied_head = family.tied_head;
  config->norm_eps = static_cast<float>(family.norm_eps);
  config->rope.theta = family.theta;
  config->context = family.context;
}

namespace {

Status CheckExtents(const Config& config, const std::string& where) {
  // Far beyond any model, small enough that the count of all parameters does not overflow.
  constexpr int64_t kLayers = 1024, kHeads = int64_t{1} << 16, kHead = 4096, kWidth = int64_t{1} << 20,
                    kRows = int64_t{1} << 24;
  struct Extent {
    const char* what;
    int64_t value, most;
  };
  const Extent extents[] = {{"layers", config.L, kLayers},
                            {"hidden size", config.C, kWidth},
                            {"MLP size", config.F, kWidth},
                            {"attention heads", config.Hq, kHeads},
                            {"key/value heads", config.Hkv, kHeads},
                            {"head size", config.D, kHead},
                            {"vocabulary", config.V, kRows},
                            {"context", config.context, kRows},
                            {"embedding size", config.embedding_width(), kWidth}};
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
  if (config.qkv == QkvRows::kInterleaved && config.Hq != config.Hkv) {
    return Failure{fmt::format("{}: {} attention heads and {} key/value heads: the family has one number",
                               where, config.Hq, config.Hkv)};
  }
  if (config.D % 2 != 0 || config.C % 2 != 0 || config.F % 2 != 0 || config.embedding_width() % 2 != 0) {
    return Failure{fmt::format("{}: head size {}, hidden size {} and MLP size {} must be even", where,
                               config.D, config.C, config.F)};
  }
  return Ok{};
}

Status CheckRope(const Config& config, const RopeConfig& rope, const std::string& where) {
  const int64_t rotary = rope.rotary > 0 ? rope.rotary : config.D;
  if (rotary % 2 != 0 || rotary < 2 || rotary > config.D) {
    return Failure{fmt::format("{}: RoPE turns {} elements of a head of {}: not an even part of it", where,
                               rotary, config.D)};
  }
  // Comparisons that a NaN fails.
  const bool positive = rope.theta > 0.0 && rope.factor > 0.0 && rope.original_context > 0.0 &&
                        rope.magnitude > 0.0 && rope.low_factor > 0.0 && rope.high_factor > 0.0 &&
                        rope.beta_fast > 0.0 && rope.beta_slow > 0.0;
  constexpr double kFar = 0x1p40;  // tokens: safe to calculate with
  if (!(rope.original_context < kFar)) {
    return Failure{fmt::format("{}: an original context of {} tokens", where, rope.original_context)};
  }
  if (!positive) return Failure{fmt::format("{}: rope theta and factors must be positive", where)};
  if (rope.scaling == RopeScaling::kYarn && !(rope.theta > 1.0)) {
    return Failure{fmt::format("{}: rope theta {} leaves no frequencies to interpolate", where, rope.theta)};
  }
  for (const std::vector<float>* divisors : {&rope.divisors, &rope.long_divisors}) {
    if (!divisors->empty() && static_cast<int64_t>(divisors->size()) != rotary / 2) {
      return Failure{fmt::format("{}: {} frequency factors of RoPE, a head has {} frequencies", where,
                                 divisors->size(), rotary / 2)};
    }
    for (const float divisor : *divisors) {
      if (!(divisor > 0.0f)) return Failure{fmt::format("{}: a frequency factor is {}", where, divisor)};
    }
  }
  return Ok{};
}

bool AscendsWithin(const std::vector<int64_t>& layers, int64_t L) {
  for (size_t i = 0; i < layers.size(); ++i) {
    if (layers[i] < 0 || layers[i] >= L || (i > 0 && layers[i] <= layers[i - 1])) return false;
  }
  return true;
}

}  // namespace

Result<Config> Validated(Config config, const std::string& where) {
  if (Status extents = CheckExtents(config, where); !extents.ok()) return extents.failure();
  if (Status rope = CheckRope(config, config.rope, where); !rope.ok()) return rope.failure();
  if (config.local_rope) {
    if (Status rope = CheckRope(config, *config.local_rope, where); !rope.ok()) return rope.failure();
  }
  if (!(config.norm_eps > 0.0f)) return Failure{fmt::format("{}: norm epsilon must be positive", where)};
  const bool scales = config.embedding_scale > 0.0f && config.residual_scale > 0.0f &&
                      config.logit_scale > 0.0f && config.score_scale >= 0.0f && config.score_cap >= 0.0f &&
                      config.logit_cap >= 0.0f;
  if (!scales) return Failure{fmt::format("{}: a multiplier or a soft cap is not positive", where)};
  if (config.logit_scale != 1.0f && !config.final_norm) {
    return Failure{fmt::format("{}: logits are scaled by {} without a final norm: not supported", where,
                               config.logit_scale)};
  }
  if (config.window < 0) return Failure{fmt::format("{}: sliding window {}", where, config.window)};
  if (config.position_rows > 0 && config.position_rows - config.first_position < config.context) {
    config.context = config.position_rows - config.first_position;
  }
  if (config.position_rows < 0 || config.position_rows > int64_t{1} << 25 || config.context <= 0) {
    return Failure{fmt::format("{}: the table of positions has {} rows", where, config.position_rows)};
  }
  if (!AscendsWithin(config.windowed, config.L) || !AscendsWithin(config.unrotated, config.L)) {
    return Failure{fmt::format("{}: a list of layers names one that the model does not have", where)};
  }
  return config;
}

}  // namespace rung::model
