#include "convert/export_gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "convert/output_folder.h"
#include "io/gguf_writer.h"
#include "model/adapter_file.h"
#include "model/config_difference.h"
#include "model/lora_file.h"
#include "model/model_tensors.h"

namespace rung::convert {
namespace {

constexpr int kGgmlF32 = 0;

// Rows of B in the order that the matrix has in a GGUF file.
std::vector<std::byte> Reordered(const Tensor& b, const model::ModelTensor& matrix) {
  const auto width = static_cast<size_t>(b.cols());
  std::vector<float> rows(static_cast<size_t>(b.size()));
  const float* from = In(b).as<float>();
  for (int64_t row = 0; row < b.rows(); ++row) {
    std::copy_n(from + static_cast<size_t>(matrix.FolderPlace(row)) * width, width,
                rows.data() + static_cast<size_t>(row) * width);
  }
  const auto bytes = std::as_bytes(std::span(rows));
  return {bytes.begin(), bytes.end()};
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
  const std::string architecture(model::GgufArchitecture(config));
  if (architecture.empty()) {
    throw Error(
        ExitCode::kUsage,
        fmt::format("--gguf: llama.cpp has no architecture for {}; it has one for: {}. rung merge makes "
                    "a Hugging Face folder of the model with its adapter, which other programs read",
                    config.family, model::GgufFamilyNames()));
  }
  if (model::IsGgufFile(options.model)) config = model::AsFolder(config);
  const model::Adapter adapter = model::LoadAdapter(options.adapter, config, false, 1).OrThrow();
  std::map<std::string, model::ModelTensor> matrices;
  for (model::ModelTensor& tensor : model::ModelTensors(config)) matrices[tensor.name] = std::move(tensor);
  std::vector<io::GgufLayout> layouts;
  std::vector<std::vector<std::byte>> data;
  adapter.ForEachParam([&](nn::Param& param) {
    const model::ModelTensor& matrix = matrices.at(model::MatrixOfPair(param.name));
    const bool is_b = param.name.ends_with(".lora_B.weight");
    layouts.push_back(
        {matrix.gguf + (is_b ? ".lora_b" : ".lora_a"), kGgmlF32, {param.value.cols(), param.value.rows()}});
    if (is_b) {
      data.push_back(Reordered(param.value, matrix));
    } else {
      data.emplace_back(param.value.data,
                        param.value.data + static_cast<size_t>(param.value.size()) * sizeof(float));
    }
  });
  const io::GgufFields fields = {{"general.architecture", architecture},
                                 {"general.type", std::string("adapter")},
                                 {"adapter.type", std::string("lora")},
                                 {"adapter.lora.alpha", AlphaOf(*info.spec.lora)}};
  CheckSpace(options.out, io::GgufWriter::PlannedBytes(options.out, fields, layouts).OrThrow());
  io::GgufWriter writer = io::GgufWriter::Create(options.out, fields, layouts).OrThrow();
  for (size_t i = 0; i < data.size(); ++i) writer.Write(i, 0, data[i]).OrThrow();
  writer.Commit().OrThrow();
  return {static_cast<int64_t>(data.size() / 2), writer.bytes()};
}

}  // namespace rung::convert
