#include "cli/export_gguf.h"

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "cli/output_folder.h"
#include "io/gguf_writer.h"
#include "model/adapter_file.h"
#include "model/weights.h"

namespace rung::cli {
namespace {

constexpr int kGgmlF32 = 0;

// llama.cpp's name of the architecture, which says how the rows of q and k are ordered. Its converter writes
// Mistral models as llama.
std::string ArchitectureOf(const model::Config& config) {
  return config.family == "mistral" ? "llama" : config.family;
}

// "q_proj" -> the pattern of its weight in a GGUF file.
std::map<std::string, std::string> GgufPatterns() {
  const model::Names &hf = model::HfNames(), &gguf = model::GgufNames();
  std::map<std::string, std::string> patterns;
  for (const auto field : {&model::Names::q, &model::Names::k, &model::Names::v, &model::Names::o,
                           &model::Names::gate, &model::Names::up, &model::Names::down}) {
    // "model.layers.{}.self_attn.q_proj.weight": what PEFT's name has before ".lora_A".
    const std::string& name = hf.*field;
    patterns[name.substr(0, name.rfind('.'))] = gguf.*field;
  }
  return patterns;
}

// "base_model.model.model.layers.3.self_attn.q_proj.lora_A.weight" -> "blk.3.attn_q.weight.lora_a"
std::string GgufName(const std::string& param) {
  static const std::map<std::string, std::string> patterns = GgufPatterns();
  constexpr std::string_view kWrapped = "base_model.model.", kLayers = "model.layers.";
  const bool is_a = param.ends_with(".lora_A.weight");
  const std::string module = param.substr(kWrapped.size(), param.rfind(".lora_") - kWrapped.size());
  const size_t dot = module.find('.', kLayers.size());
  const std::string layer = module.substr(kLayers.size(), dot - kLayers.size());
  std::string name = patterns.at("model.layers.{}" + module.substr(dot));
  name.replace(name.find("{}"), 2, layer);
  return name + (is_a ? ".lora_a" : ".lora_b");
}

// llama.cpp multiplies by alpha / R.
float AlphaOf(const model::LoraSpec& spec) {
  return static_cast<float>(spec.rank_stabilized ? spec.alpha * std::sqrt(static_cast<double>(spec.R))
                                                 : spec.alpha);
}

}  // namespace

ExportResult ExportGguf(const ExportOptions& options) {
  const NamedPath input{"--adapter", options.adapter};
  CheckNewFile(options.out, {&input, 1});
  model::Config config = model::ReadConfig(options.model).OrThrow();
  const model::AdapterInfo info = model::ReadAdapterInfo(options.adapter, config).OrThrow();
  if (info.spec.ladder) {
    throw Error(
        ExitCode::kUsage,
        fmt::format("--adapter {}: a ladder has no form that llama.cpp reads: it is a network beside the "
                    "model, not a change of the model's weights",
                    options.adapter.string()));
  }
  const std::string architecture = ArchitectureOf(config);
  // Loaded in the order of rows that a GGUF file of this architecture has.
  config.rope.half = architecture != "llama";
  const model::Adapter adapter = model::LoadAdapter(options.adapter, config, false, 1).OrThrow();
  std::vector<io::GgufLayout> layouts;
  std::vector<std::span<const std::byte>> data;
  adapter.ForEachParam([&](nn::Param& param) {
    layouts.push_back({GgufName(param.name), kGgmlF32, {param.value.cols(), param.value.rows()}});
    data.push_back({param.value.data, static_cast<size_t>(param.value.size()) * sizeof(float)});
  });
  const io::GgufFields fields = {{"general.architecture", architecture},
                                 {"general.type", std::string("adapter")},
                                 {"adapter.type", std::string("lora")},
                                 {"adapter.lora.alpha", AlphaOf(*info.spec.lora)}};
  io::GgufWriter writer = io::GgufWriter::Create(options.out, fields, std::move(layouts)).OrThrow();
  for (size_t i = 0; i < data.size(); ++i) writer.Write(i, 0, data[i]).OrThrow();
  writer.Commit().OrThrow();
  return {static_cast<int64_t>(data.size() / 2), writer.bytes()};
}

}  // namespace rung::cli
