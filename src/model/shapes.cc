#include "model/shapes.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
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
  const char* more = "{}";  // the other keys that its family reads
};
constexpr const char* kQwen = R"({"rope_theta": 1e6})";
constexpr const char* kLlama32 = R"({"rms_norm_eps": 1e-5, "rope_theta": 5e5, "rope_scaling": {
    "rope_type": "llama3", "factor": 32.0, "original_max_position_embeddings": 8192}})";
constexpr const char* kLlama31 = R"({"rms_norm_eps": 1e-5, "rope_theta": 5e5, "rope_scaling": {
    "rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}})";
constexpr const char* kSmol = R"({"rms_norm_eps": 1e-5, "rope_theta": 1e5})";
constexpr std::array<Preset, 21> kPresets = {{
    {"qwen2.5-0.5b", "qwen2", 24, 896, 4864, 14, 2, 64, 151936, true, 32768, kQwen},
    {"qwen2.5-1.5b", "qwen2", 28, 1536, 8960, 12, 2, 128, 151936, true, 32768, kQwen},
    {"qwen2.5-3b", "qwen2", 36, 2048, 11008, 16, 2, 128, 151936, true, 32768, kQwen},
    {"qwen2.5-7b", "qwen2", 28, 3584, 18944, 28, 4, 128, 152064, false, 32768, kQwen},
    {"qwen2.5-14b", "qwen2", 48, 5120, 13824, 40, 8, 128, 152064, false, 32768, kQwen},
    {"llama-3.2-1b", "llama", 16, 2048, 8192, 32, 8, 64, 128256, true, 131072, kLlama32},
    {"llama-3.2-3b", "llama", 28, 3072, 8192, 24, 8, 128, 128256, true, 131072, kLlama32},
    {"llama-3.1-8b", "llama", 32, 4096, 14336, 32, 8, 128, 128256, false, 131072, kLlama31},
    {"llama-3.1-70b", "llama", 80, 8192, 28672, 64, 8, 128, 128256, false, 131072, kLlama31},
    {"smollm2-135m", "llama", 30, 576, 1536, 9, 3, 64, 49152, true, 8192, kSmol},
    {"smollm2-360m", "llama", 32, 960, 2560, 15, 5, 64, 49152, true, 8192, kSmol},
    {"smollm2-1.7b", "llama", 24, 2048, 8192, 32, 32, 64, 49152, true, 8192,
     R"({"rms_norm_eps": 1e-5, "rope_theta": 130000})"},
    {"gemma-2-2b", "gemma2", 26, 2304, 9216, 8, 4, 256, 256000, true, 8192, R"({"torch_dtype": "bfloat16"})"},
    {"gemma-3-1b", "gemma3_text", 26, 1152, 6912, 4, 1, 256, 262144, true, 32768,
     R"({"torch_dtype": "bfloat16", "sliding_window": 512})"},
    {"phi-3-mini", "phi3", 32, 3072, 8192, 32, 32, 96, 32064, false, 4096, R"({"sliding_window": 2047})"},
    // Its LongRoPE factors are 96 measured numbers; up to 4096 positions the short ones are 1.
    {"phi-4-mini", "phi3", 32, 3072, 8192, 24, 8, 128, 200064, true, 4096,
     R"({"partial_rotary_factor": 0.75, "sliding_window": 262144})"},
    {"olmo-2-7b", "olmo2", 32, 4096, 11008, 32, 32, 128, 100352, false, 4096,
     R"({"rms_norm_eps": 1e-6, "rope_theta": 5e5})"},
    {"pythia-1.4b", "gpt_neox", 24, 2048, 8192, 16, 16, 128, 50304, false, 2048, R"({"rotary_pct": 0.25})"},
    {"opt-350m", "opt", 24, 1024, 4096, 16, 16, 64, 50272, true, 2048,
     R"({"do_layer_norm_before": false, "word_embed_proj_dim": 512})"},
    {"opt-1.3b", "opt", 24, 2048, 8192, 32, 32, 64, 50272, true, 2048},
    {"opt-6.7b", "opt", 32, 4096, 16384, 32, 32, 128, 50272, true, 2048},
}};

Config ConfigOf(const Preset& preset) {
  nlohmann::json object = {{"_name_or_path", preset.name},
                           {"model_type", preset.family},
                           {"num_hidden_layers", preset.L},
                           {"hidden_size", preset.C},
                           {"intermediate_size", preset.F},
                           {"num_attention_heads", preset.Hq},
                           {"num_key_value_heads", preset.Hkv},
                           {"head_dim", preset.D},
                           {"vocab_size", preset.V},
                           {"tie_word_embeddings", preset.tied},
                           {"max_position_embeddings", preset.context}};
  object.update(nlohmann::json::parse(preset.more));
  Result<Config> config = ParseHfConfig(object.dump(), std::string(preset.name));
  RUNG_CHECK(config.ok(), "shapes: a preset that is not read");
  return std::move(config).value();
}

// "meta-llama/Meta-Llama-3.1-8B-Instruct" as "llama-3.1-8b": what organisations and tunings add to a name
// does not change the shape.
std::string BaseName(std::string_view id) {
  std::string name = Lowered(id.substr(id.rfind('/') + 1));  // npos + 1 is 0
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
  return UsageFailure(fmt::format("{}: no such shape{}; known are: {}", name,
                                  nearest.empty() ? "" : fmt::format(", did you mean {}?", nearest),
                                  fmt::join(names, ", ")));
}

}  // namespace rung::model
