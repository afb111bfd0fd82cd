#include "model/adapter_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>

#include "base/folders.h"
#include "base/half.h"
#include "io/json_file.h"
#include "io/safetensors.h"
#include "model/folder_weights.h"
#include "model/ladder_file.h"
#include "model/lora_file.h"

namespace rung::model {
namespace {

using nlohmann::json;

constexpr const char* kWeights = "adapter_model.safetensors";
constexpr const char* kBeside = "rung_adapter.json";

std::span<std::byte> BytesOf(float* values, int64_t count) {
  return {reinterpret_cast<std::byte*>(values), static_cast<size_t>(count) * sizeof(float)};
}

// A vector is one-dimensional in the file; a matrix of a pair never is.
std::vector<int64_t> FileShape(const std::string& name, const Tensor& tensor) {
  if (tensor.rows() == 1 && !IsLoraTensor(name)) return {tensor.cols()};
  return {tensor.rows(), tensor.cols()};
}

// Every tensor the adapter has on disk: parameters, then calibrated arrays.
void ForEachTensor(const Adapter& adapter, const std::function<void(const std::string&, Tensor&)>& visit) {
  adapter.ForEachParam([&](nn::Param& param) { visit(param.name, param.value); });
  adapter.ForEachBuffer(visit);
}

// The file's row of row `row` of `name`.
int64_t FileRow(const Adapter& adapter, const std::string& name, int64_t row) {
  return adapter.lora() ? adapter.lora()->FileRow(name, row) : row;
}

Status CheckTensor(const io::Safetensors& file, const Path& path, const std::string& name,
                   const Tensor& tensor) {
  const bool pair = IsLoraTensor(name);
  const io::TensorEntry* entry = file.Find(name);
  // Pairs of other programs may be 16-bit.
  const bool dtype = entry && (pair ? FloatFormat(entry->dtype).has_value() : entry->dtype == "F32");
  if (dtype && entry->shape == FileShape(name, tensor)) return Ok{};
  const std::string found =
      entry ? fmt::format("is {} of {}", entry->dtype, fmt::join(entry->shape, " x ")) : "is missing";
  return Failure{fmt::format("{}: tensor {} {}; {} in {} is expected: it fits neither its {} nor this model",
                             path.string(), name, found, fmt::join(FileShape(name, tensor), " x "),
                             pair ? "F32, F16 or BF16" : "F32", kAdapterConfig)};
}

// `file` has the tensors of `adapter` and no others. Needs no values.
Status CheckTensors(const io::Safetensors& file, const Path& path, const Adapter& adapter) {
  Status status = Ok{};
  size_t expected = 0;
  ForEachTensor(adapter, [&](const std::string& name, Tensor& tensor) {
    ++expected;
    if (status.ok()) status = CheckTensor(file, path, name, tensor);
  });
  if (status.ok() && file.tensors().size() != expected) {
    return Failure{
        fmt::format("{}: {} tensors, {} are expected", path.string(), file.tensors().size(), expected)};
  }
  return status;
}

// After CheckTensor.
Status ReadTensor(const io::Safetensors& file, const Adapter& adapter, const std::string& name,
                  const Tensor& tensor) {
  const io::TensorEntry& entry = *file.Find(name);
  float* out = Out{tensor}.as<float>();
  const int64_t R = tensor.cols();
  std::vector<std::byte> raw(entry.bytes);
  if (Status read = file.Read(entry, 0, raw); !read.ok()) return read;
  const format::Format stored = *FloatFormat(entry.dtype);
  const format::Matrix matrix{stored, tensor.rows(), R, raw.data(), {}, {}};
  for (int64_t row = 0; row < tensor.rows(); ++row) {
    format::DecodeRow(matrix, FileRow(adapter, name, row), out + row * R);
  }
  return Ok{};
}

// After CheckTensors.
Status ReadTensors(const io::Safetensors& file, const Adapter& adapter) {
  Status status = Ok{};
  ForEachTensor(adapter, [&](const std::string& name, Tensor& tensor) {
    if (status.ok()) status = ReadTensor(file, adapter, name, tensor);
  });
  return status;
}

Status WriteTensors(const Path& path, const Adapter& adapter) {
  std::vector<io::TensorToWrite> tensors;
  std::vector<std::vector<float>> reordered;
  ForEachTensor(adapter, [&](const std::string& name, Tensor& tensor) {
    float* values = Out{tensor}.as<float>();
    bool moves = false;
    for (int64_t row = 0; row < tensor.rows(); ++row) moves = moves || FileRow(adapter, name, row) != row;
    if (moves) {
      const auto R = static_cast<size_t>(tensor.cols());
      std::vector<float>& copy = reordered.emplace_back(static_cast<size_t>(tensor.size()));
      for (int64_t row = 0; row < tensor.rows(); ++row) {
        std::copy_n(values + static_cast<size_t>(row) * R, R,
                    copy.data() + static_cast<size_t>(FileRow(adapter, name, row)) * R);
      }
      values = copy.data();
    }
    tensors.push_back({name, "F32", FileShape(name, tensor), BytesOf(values, tensor.size())});
  });
  return io::WriteSafetensors(path, tensors, {{"format", "pt"}});
}

struct ConfigText {
  Path file;
  std::string text, peft_type;
};

Result<ConfigText> ReadConfigText(const Path& folder) {
  const Path file = folder / kAdapterConfig;
  Result<std::string> text = ReadTextFile(file, io::kJsonFileLimit);
  if (!text.ok()) return text.failure();
  Result<json> parsed = io::ParseJson(text.value(), file.string());
  if (!parsed.ok()) return parsed.failure();
  const json& object = parsed.value();
  const json type = object.is_object() ? object.value("peft_type", json()) : json();
  if (type != "LADDER" && type != "LORA") {
    return Failure{
        fmt::format("{}: peft_type {} is not supported; supported are \"LORA\" (as PEFT writes it) and "
                    "\"LADDER\"",
                    file.string(), type.dump(-1, ' ', false, json::error_handler_t::replace))};
  }
  return ConfigText{file, std::move(text).value(), type.get<std::string>()};
}

Result<io::Safetensors> OpenWeights(const Path& folder) {
  std::error_code error;
  const Path file = folder / kWeights;
  if (!std::filesystem::exists(file, error) && std::filesystem::exists(folder / "adapter_model.bin", error)) {
    return Failure{
        fmt::format("{}: pickle files can run programs and are not read; convert it with peft "
                    "(save_pretrained writes safetensors)",
                    (folder / "adapter_model.bin").string())};
  }
  return io::Safetensors::Open(file);
}

Result<AdapterInfo> ReadPeftInfo(const Path& folder, const ConfigText& config) {
  Result<io::Safetensors> tensors = OpenWeights(folder);
  if (!tensors.ok()) return tensors.failure();
  std::vector<std::string> names;
  for (const auto& [name, entry] : tensors.value().tensors()) names.push_back(name);
  Result<PeftAdapter> read =
      ParsePeftAdapter(config.text, config.file.string(), names, (folder / kWeights).string());
  if (!read.ok()) return read.failure();
  AdapterInfo info;
  std::error_code error;
  if (std::filesystem::exists(folder / kBeside, error)) {
    Result<std::string> text = ReadTextFile(folder / kBeside, io::kJsonFileLimit);
    if (!text.ok()) return text.failure();
    Result<AdapterInfo> beside = ParseBesideText(text.value(), (folder / kBeside).string());
    if (!beside.ok()) return beside.failure();
    info = std::move(beside).value();
  } else {
    info.has_template_choice = false;
  }
  info.spec.lora = read.value().spec;
  info.base_model = read.value().base_model;
  return info;
}

// The adapter belongs to a model of this shape.
Status CheckModel(const AdapterInfo& info, const Config& config, const Path& folder) {
  if (info.L != config.L || info.C != config.C || info.V != config.V) {
    return Failure{
        fmt::format("{}: the adapter was trained for {} ({} layers, hidden size {}, vocabulary {}); this "
                    "model has {} layers, hidden size {}, vocabulary {}: give the model it was trained for",
                    folder.string(), info.base_model.empty() ? info.family : info.base_model, info.L, info.C,
                    info.V, config.L, config.C, config.V)};
  }
  const std::string where = (folder / kAdapterConfig).string();
  if (info.spec.lora) {
    if (Status ok = CheckLoraSpec(*info.spec.lora, &config, where); !ok.ok()) return ok;
  }
  if (info.spec.ladder) {
    if (Status ok = CheckLadderFits(*info.spec.ladder, config, where); !ok.ok()) return ok;
  }
  Status meaning = CheckAdapterSpec(info.spec, config);
  if (!meaning.ok()) return Failure{fmt::format("{}: {}", where, meaning.failure().message)};
  return Ok{};
}

}  // namespace

Status SaveAdapter(const Path& folder, const Adapter& adapter, const Config& config,
                   const AdapterOrigin& origin) {
  if (Status made = MakeFolders(folder); !made.ok()) return made;
  AdapterInfo info;
  info.spec = adapter.spec();
  info.base_model = origin.base_model;
  info.chat_template = origin.chat_template;
  info.template_time = origin.template_time;
  info.base_formats = origin.base_formats;
  info.family = config.family;
  info.L = config.L;
  info.C = config.C;
  info.V = config.V;
  if (Status written = WriteTensors(folder / kWeights, adapter); !written.ok()) return written;
  if (info.spec.ladder) return WriteTextFile(folder / kAdapterConfig, LadderConfigText(info));
  if (Status written = WriteTextFile(folder / kBeside, BesideText(info)); !written.ok()) return written;
  return WriteTextFile(folder / kAdapterConfig, PeftConfigText(*info.spec.lora, config, origin.base_model));
}

Result<AdapterInfo> ReadAdapterInfo(const Path& folder) {
  Result<ConfigText> config = ReadConfigText(folder);
  if (!config.ok()) return config.failure();
  if (config.value().peft_type == "LORA") return ReadPeftInfo(folder, config.value());
  return ParseLadderConfig(config.value().text, config.value().file.string());
}

Result<AdapterInfo> ReadAdapterInfo(const Path& folder, const Config& config) {
  Result<AdapterInfo> read = ReadAdapterInfo(folder);
  if (!read.ok()) return read.failure();
  AdapterInfo info = std::move(read).value();
  if (info.L == 0) {
    info.family = config.family;
    info.L = config.L;
    info.C = config.C;
    info.V = config.V;
  }
  if (Status fits = CheckModel(info, config, folder); !fits.ok()) return fits.failure();
  return info;
}

Result<Adapter> LoadAdapter(const Path& folder, const Config& config, bool with_gradients,
                            int64_t positions) {
  Result<AdapterInfo> read = ReadAdapterInfo(folder, config);
  if (!read.ok()) return read.failure();
  const AdapterSpec& spec = read.value().spec;
  Result<io::Safetensors> file = OpenWeights(folder);
  if (!file.ok()) return file.failure();
  const Adapter planned = Adapter::Planned(config, spec, positions);
  if (Status fits = CheckTensors(file.value(), folder / kWeights, planned); !fits.ok()) return fits.failure();
  Adapter adapter = Adapter::Allocate(config, spec, with_gradients, positions);
  if (Status loaded = ReadTensors(file.value(), adapter); !loaded.ok()) return loaded.failure();
  return adapter;
}

Status LoadAdapterValues(const Path& folder, Adapter* adapter) {
  Result<io::Safetensors> file = OpenWeights(folder);
  if (!file.ok()) return file.failure();
  if (Status fits = CheckTensors(file.value(), folder / kWeights, *adapter); !fits.ok()) return fits;
  return ReadTensors(file.value(), *adapter);
}

}  // namespace rung::model
