#include "model/shapes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace rung::model {
namespace {

// As the models' config.json have it; of the Qwen models the Instruct ones.
struct Preset {
  std::string_view name, family;
  int64_t L, C, F, Hq, Hkv, D, V;
  bool tied;
  int64_t context;
  double rope_factor = 1.0;  // Llama 3's scaling
};
constexpr std::array<Preset, 11> kPresets = {{
    {"qwen2.5-0.5b", "qwen2", 24, 896, 4864, 14, 2, 64, 151936, true, 32768},
    {"qwen2.5-1.5b", "qwen2", 28, 1536, 8960, 12, 2, 128, 151936, true, 32768},
    {"qwen2.5-3b", "qwen2", 36, 2048, 11008, 16, 2, 128, 151936, true, 32768},
    {"qwen2.5-7b", "qwen2", 28, 3584, 18944, 28, 4, 128, 152064, false, 32768},
    {"qwen2.5-14b", "qwen2", 48, 5120, 13824, 40, 8, 128, 152064, false, 32768},
    {"llama-3.2-1b", "llama", 16, 2048, 8192, 32, 8, 64, 128256, true, 131072, 32.0},
    {"llama-3.2-3b", "llama", 28, 3072, 8192, 24, 8, 128, 128256, true, 131072, 32.0},
    {"llama-3.1-8b", "llama", 32, 4096, 14336, 32, 8, 128, 128256, false, 131072, 8.0},
    {"llama-3.1-70b", "llama", 80, 8192, 28672, 64, 8, 128, 128256, false, 131072, 8.0},
    {"opt-1.3b", "opt", 24, 2048, 8192, 32, 32, 64, 50272, true, 2048},
    {"opt-6.7b", "opt", 32, 4096, 16384, 32, 32, 128, 50272, true, 2048},
}};
// OPT's positions begin at row 2 of their table.
constexpr int64_t kOptFirstPosition = 2;

// What the families share that can be run; the last member is how transformers names the model class.
struct Runnable {
  std::string_view family, architecture;
};
constexpr std::array<Runnable, 4> kRunnable = {{{"llama", "LlamaForCausalLM"},
                                                {"mistral", "MistralForCausalLM"},
                                                {"qwen2", "Qwen2ForCausalLM"},
                                                {"qwen3", "Qwen3ForCausalLM"}}};

const Runnable* FindRunnable(const Config& config) {
  const auto* found = std::find_if(kRunnable.begin(), kRunnable.end(),
                                   [&](const Runnable& row) { return row.family == config.family; });
  return found == kRunnable.end() ? nullptr : found;
}

Config ConfigOf(const Preset& preset) {
  Config config;
  config.family = preset.family;
  config.name = preset.name;
  config.L = preset.L;
  config.C = preset.C;
  config.F = preset.F;
  config.Hq = preset.Hq;
  config.Hkv = preset.Hkv;
  config.D = preset.D;
  config.V = preset.V;
  config.tied_head = preset.tied;
  config.context = preset.context;
  if (config.family == "qwen2") {
    config.qkv_bias = true;
    config.norm_eps = 1e-6f;
    config.rope.theta = 1e6;
  } else if (config.family == "llama") {
    config.norm_eps = 1e-5f;
    config.rope.theta = 5e5;
    config.rope.factor = preset.rope_factor;
  } else {
    config.qkv_bias = config.bias_everywhere = true;
    config.gated_mlp = false;
    config.activation = cpu::Activation::kRelu;
    config.position_rows = preset.context + kOptFirstPosition;
  }
  return config;
}

// "meta-llama/Meta-Llama-3.1-8B-Instruct" as "llama-3.1-8b": what organisations and tunings add to a name
// does not change the shape.
std::string BaseName(std::string_view id) {
  std::string name(id.substr(id.rfind('/') + 1));  // npos + 1 is 0
  for (char& c : name) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  constexpr std::string_view kMeta = "meta-";
  if (name.starts_with(kMeta)) name.erase(0, kMeta.size());
  constexpr std::string_view kEndings[] = {"-instruct", "-base", "-chat", "-hf"};
  for (size_t before = 0; before != name.size();) {  // "-chat-hf" is two
    before = name.size();
    for (const std::string_view ending : kEndings) {
      if (name.ends_with(ending)) name.erase(name.size() - ending.size());
    }
  }
  return name;
}

// The double that a person writes for this float: 1e-06, not 9.999999974752427e-07.
double ShortestDouble(float value) {
  const std::string text = fmt::format("{}", value);
  double number = 0.0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

}  // namespace

std::vector<std::string> ShapeNames() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

Result<Config> ShapeOf(const std::string& name) {
  const std::string base = BaseName(name);
  std::vector<std::string_view> names;
  for (const Preset& preset : kPresets) {
    if (preset.name == base) return ConfigOf(preset);
    names.push_back(preset.name);
  }
  const std::string_view nearest = Nearest(base, names);
  return Failure{
      fmt::format("{}: no such shape{}; known are: {}", name,
                  nearest.empty() ? "" : fmt::format(", did you mean {}?", nearest), fmt::join(names, ", ")),
      ExitCode::kUsage};
}

bool CanRun(const Config& config) { return FindRunnable(config) != nullptr; }

std::string HfConfigJson(const Config& config) {
  const Runnable* runnable = FindRunnable(config);
  RUNG_CHECK(runnable, "config.json: the family has no forward pass");
  RUNG_CHECK(config.rope.half && config.rope.divisors.empty(), "config.json: RoPE as GGUF files have it");
  nlohmann::ordered_json json = {{"architectures", {runnable->architecture}},
                                 {"model_type", config.family},
                                 {"hidden_size", config.C},
                                 {"intermediate_size", config.F},
                                 {"num_hidden_layers", config.L},
                                 {"num_attention_heads", config.Hq},
                                 {"num_key_value_heads", config.Hkv},
                                 {"head_dim", config.D},
                                 {"vocab_size", config.V},
                                 {"max_position_embeddings", config.context},
                                 {"rms_norm_eps", ShortestDouble(config.norm_eps)},
                                 {"rope_theta", config.rope.theta},
                                 {"tie_word_embeddings", config.tied_head},
                                 {"hidden_act", "silu"},
                                 {"initializer_range", 0.02},
                                 {"use_cache", true},
                                 {"torch_dtype", "bfloat16"}};
  if (!config.name.empty()) json["_name_or_path"] = config.name;
  const RopeConfig& rope = config.rope;
  if (rope.factor != 1.0) {
    json["rope_scaling"] = {
        {"rope_type", "llama3"},
        {"factor", rope.factor},
        {"low_freq_factor", rope.low_factor},
        {"high_freq_factor", rope.high_factor},
        {"original_max_position_embeddings", static_cast<int64_t>(rope.original_context)}};
  } else if (rope.linear_factor != 1.0) {
    json["rope_scaling"] = {{"rope_type", "linear"}, {"factor", rope.linear_factor}};
  }
  if (config.family == "mistral") {
    json["sliding_window"] = config.window > 0 ? nlohmann::ordered_json(config.window) : nullptr;
  } else if (config.window > 0) {
    json["sliding_window"] = config.window;
    json["use_sliding_window"] = true;
  }
  return json.dump(2) + "\n";
}

}  // namespace rung::model
