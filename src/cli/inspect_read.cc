#include <fmt/format.h>

#include <algorithm>

#include "cli/inspect.h"
#include "io/gguf.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/adapter_file.h"
#include "model/backbone.h"
#include "model/quantization.h"
#include "model/stored_tensors.h"

namespace rung::cli {
namespace {

void AddTensor(Inspection* found, TensorRow row, bool supported) {
  FormatTotal& total = found->formats[row.format];
  ++total.tensors;
  total.bytes += row.bytes;
  total.supported = supported;
  found->tensors.push_back(std::move(row));
}

void ReportFormats(Inspection* found) {
  for (const auto& [format, total] : found->formats) {
    if (!total.supported) {
      found->not_supported.push_back(fmt::format("tensor format {} ({} tensors)", format, total.tensors));
    }
  }
}

// Scalars of a GGUF file under its architecture's name.
std::map<std::string, std::string> GgufShapes(const io::Gguf& gguf, const std::string& architecture) {
  std::map<std::string, std::string> shapes;
  for (const auto& [key, value] : gguf.metadata()) {
    if (!key.starts_with(architecture + ".")) continue;
    const std::string name = key.substr(architecture.size() + 1);
    if (const auto integer = gguf.GetInt(key)) {
      shapes[name] = std::to_string(*integer);
    } else if (const auto number = gguf.GetFloat(key)) {
      shapes[name] = fmt::format("{}", *number);
    } else if (const std::string* text = gguf.GetString(key)) {
      shapes[name] = *text;
    }
  }
  return shapes;
}

Inspection InspectGguf(const Path& path) {
  const io::Gguf gguf = io::Gguf::Open(path).OrThrow();
  Inspection found;
  found.kind = "GGUF file";
  if (const std::string* architecture = gguf.GetString("general.architecture"))
    found.architecture = *architecture;
  if (const std::string* name = gguf.GetString("general.name")) found.name = *name;
  for (const io::GgufTensor& tensor : gguf.tensors()) {
    const auto type = io::GgmlTypeOf(tensor.type);
    format::Format format{};
    TensorRow row{tensor.name,
                  type ? std::string(type->name) : fmt::format("type {}", tensor.type),
                  {tensor.dims.rbegin(), tensor.dims.rend()},
                  tensor.data.size()};
    found.parameters += io::ElementCount(row.shape);
    AddTensor(&found, std::move(row), format::FromGguf(tensor.type, &format) != nullptr);
  }
  found.warnings = model::ConfigWarnings(gguf);
  Result<model::Config> config = model::ReadConfig(path);
  if (config.ok()) {
    found.config = std::move(config).value();
  } else {
    found.not_supported.push_back(config.failure().message);
    found.shapes = GgufShapes(gguf, found.architecture);
  }
  const std::string* kind = gguf.GetString("tokenizer.ggml.model");
  found.no_vocabulary = kind && *kind == "no_vocab";
  Result<text::Tokenizer> tokenizer = text::Tokenizer::FromGguf(gguf);
  if (found.no_vocabulary) {
    // Weights alone: nothing is missing that the file should have.
  } else if (tokenizer.ok()) {
    found.tokenizer = tokenizer.value();
  } else {
    found.not_supported.push_back(tokenizer.failure().message);
  }
  ReportFormats(&found);
  return found;
}

void ReadFolderTensors(const Path& folder, Inspection* found) {
  Result<io::Safetensors> opened = io::Safetensors::OpenFolder(folder);
  if (!opened.ok()) {
    found->not_supported.push_back(opened.failure().message);
    return;
  }
  Result<model::Quantization> quantization = model::ReadQuantization(folder);
  if (!quantization.ok()) found->not_supported.push_back(quantization.failure().message);
  bool packed = false;
  for (model::StoredTensor& tensor : model::StoredTensors(
           opened.value(), quantization.ok() ? quantization.value() : model::Quantization())) {
    // Codes alone do not tell an odd number from the next even one.
    packed = packed || tensor.format.starts_with("nf4") || tensor.format.starts_with("fp4");
    found->parameters += io::ElementCount(tensor.shape);
    AddTensor(found, {tensor.name, tensor.format, tensor.shape, tensor.bytes}, tensor.supported);
  }
  if (packed && found->config) found->parameters = found->config->parameter_count();
}

Inspection InspectFolder(const Path& path, bool is_config) {
  Inspection found;
  found.kind = is_config ? "config" : "Hugging Face folder";
  const Path file = is_config ? path : path / "config.json";
  const nlohmann::json json = io::ReadJson(file).OrThrow();
  if (!json.is_object())
    throw Error(ExitCode::kBadInput, fmt::format("{}: not a JSON object", file.string()));
  found.architecture = json.contains("model_type") && json["model_type"].is_string()
                           ? json["model_type"].get<std::string>()
                           : "";
  Result<model::Config> config = model::ParseHfConfig(json.dump(), file.string());
  if (config.ok()) {
    found.config = std::move(config).value();
    found.name = found.config->name;
    found.parameters = is_config ? found.config->parameter_count() : 0;
  } else {
    found.not_supported.push_back(config.failure().message);
    for (const auto& [key, value] : json.items()) {
      if (value.is_number() || value.is_boolean()) found.shapes[key] = value.dump();
    }
  }
  if (is_config) return found;
  ReadFolderTensors(path, &found);
  Result<text::Tokenizer> tokenizer = text::Tokenizer::FromFolder(path);
  if (tokenizer.ok()) {
    found.tokenizer = tokenizer.value();
  } else {
    found.not_supported.push_back(tokenizer.failure().message);
  }
  ReportFormats(&found);
  return found;
}

Inspection InspectAdapter(const Path& path) {
  Inspection found;
  found.kind = "adapter";
  found.adapter = model::ReadAdapterInfo(path).OrThrow();
  found.architecture = found.adapter->family;
  found.name = found.adapter->base_model;
  const io::Safetensors file = io::Safetensors::Open(path / "adapter_model.safetensors").OrThrow();
  for (const auto& [name, entry] : file.tensors()) {
    // Calibrated arrays are no parameters.
    if (!name.ends_with(".mean") && !name.ends_with(".inv_deviation"))
      found.parameters += io::ElementCount(entry.shape);
    AddTensor(&found, {name, "f32", entry.shape, entry.bytes}, entry.dtype == "F32");
  }
  return found;
}

// What loading makes of the tensors.
void AddRecipe(const Path& path, const model::Recipe& recipe, Inspection* found) {
  if (found->adapter) {
    throw Error(ExitCode::kUsage, fmt::format("{}: an adapter is loaded as it is; leave --quantize, "
                                              "--quantize-embeddings and --keep out",
                                              path.string()));
  }
  model::BackboneOptions options;
  options.recipe = recipe;
  options.positions = 1;
  const Result<model::Backbone> planned = model::Backbone::PlannedFrom(path, options);
  if (!planned.ok()) {
    found->not_supported.push_back(planned.failure().message);
    return;
  }
  found->loaded = planned.value().weight_totals().bytes;
  const std::map<std::string, model::Quantize> choices = model::ChoicesOf(recipe, path);
  for (TensorRow& row : found->tensors) {
    const auto choice = choices.find(row.name);
    if (choice == choices.end() || choice->second == model::Quantize::kNone) continue;
    if (const std::string_view used = model::NameOf(choice->second); used != row.format) row.used = used;
  }
}

Inspection InspectAny(const Path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    const bool adapter = std::filesystem::exists(path / model::kAdapterConfig, error);
    return adapter ? InspectAdapter(path) : InspectFolder(path, false);
  }
  if (!model::IsGgufFile(path) && path.extension() == ".json") return InspectFolder(path, true);
  return InspectGguf(path);
}

}  // namespace

Inspection Inspect(const Path& path, const model::Recipe* recipe) {
  Inspection found = InspectAny(path);
  if (recipe) AddRecipe(path, *recipe, &found);
  return found;
}

}  // namespace rung::cli
