#include "model/adapter.h"

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "io/json_file.h"
#include "io/safetensors.h"

namespace rung::model {
namespace {

using nlohmann::json;

constexpr const char* kWeights = "adapter_model.safetensors";
constexpr const char* kConfig = "adapter_config.json";
constexpr int kVersion = 1;

const char* NameOf(Gate gate) { return gate == Gate::kSum ? "sum" : "interpolate"; }
const char* NameOf(TapNorm norm) {
  return norm == TapNorm::kNone ? "none" : norm == TapNorm::kRms ? "rms" : "standardize";
}

json ToJson(const LadderSpec& spec, const Config& config, const std::string& base_model,
            const std::string& chat_template) {
  json object = {{"peft_type", "LADDER"},
                 {"task_type", "CAUSAL_LM"},
                 {"format_version", kVersion},
                 {"base_model_name_or_path", base_model},
                 {"taps", spec.taps},
                 {"rungs", spec.rungs},
                 {"width", spec.S},
                 {"mlp_width", spec.F},
                 {"head_dim", spec.head_dim},
                 {"gate", NameOf(spec.gate)},
                 {"tap_norm", NameOf(spec.tap_norm)},
                 {"output_scale", spec.output_scale},
                 {"base_model",
                  {{"family", config.family},
                   {"num_hidden_layers", config.L},
                   {"hidden_size", config.C},
                   {"vocab_size", config.V}}}};
  if (!chat_template.empty()) object["chat_template"] = chat_template;
  return object;
}

// Reads typed fields and remembers the first that is missing or of another type.
class Fields {
 public:
  Fields(const json& object, std::string where) : object_(object), where_(std::move(where)) {}

  template <class T>
  T Get(const char* key) {
    try {
      return object_.at(key).get<T>();
    } catch (const json::exception&) {
      if (failure_.empty()) failure_ = fmt::format("{}: \"{}\" is missing or of the wrong type", where_, key);
      return T{};
    }
  }
  const std::string& failure() const { return failure_; }

 private:
  const json& object_;
  std::string where_, failure_;
};

Status CheckSpec(const LadderSpec& spec, int64_t L, const std::string& where) {
  const auto taps = static_cast<int64_t>(spec.taps.size());
  bool ok = taps >= 1 && spec.rungs >= taps && spec.rungs <= 4096 && spec.head_dim >= 2 &&
            spec.head_dim % 2 == 0 && spec.head_dim <= 1024 && spec.S >= spec.head_dim &&
            spec.S % spec.head_dim == 0 && spec.S <= 65536 && spec.F >= 1 && spec.F <= 262144 &&
            std::isfinite(spec.output_scale);
  for (int64_t j = 0; j < taps; ++j) {
    const auto at = static_cast<size_t>(j);
    ok = ok && spec.taps[at] >= 0 && spec.taps[at] < L && (j == 0 || spec.taps[at] > spec.taps[at - 1]);
  }
  if (ok) return Ok{};
  return Failure{
      fmt::format("{}: taps, rungs, width, mlp_width, head_dim or output_scale are out of range", where)};
}

// A vector is one-dimensional in the file.
std::vector<int64_t> ShapeOf(const Tensor& tensor) {
  if (tensor.rows() == 1) return {tensor.cols()};
  return {tensor.rows(), tensor.cols()};
}

// Every tensor the ladder has on disk: parameters, then calibrated arrays.
void ForEachTensor(Ladder& ladder, const std::function<void(const std::string&, Tensor&)>& visit) {
  ladder.ForEachParam([&](nn::Param& param) { visit(param.name, param.value); });
  ladder.ForEachBuffer(visit);
}

// `file` has the tensors of `ladder` and no others. Needs no values.
Status CheckTensors(const io::Safetensors& file, const Path& folder, Ladder& ladder) {
  Status status = Ok{};
  size_t expected = 0;
  ForEachTensor(ladder, [&](const std::string& name, Tensor& tensor) {
    ++expected;
    if (!status.ok()) return;
    const io::TensorEntry* entry = file.Find(name);
    if (entry && entry->dtype == "F32" && entry->shape == ShapeOf(tensor)) return;
    status = Failure{fmt::format("{}: tensor {} must be F32 {}x{}: the file does not belong to its {}",
                                 (folder / kWeights).string(), name, tensor.rows(), tensor.cols(), kConfig)};
  });
  if (status.ok() && file.tensors().size() != expected) {
    return Failure{fmt::format("{}: {} tensors, {} are expected", (folder / kWeights).string(),
                               file.tensors().size(), expected)};
  }
  return status;
}

// After CheckTensors.
Status ReadTensors(const io::Safetensors& file, Ladder& ladder) {
  Status status = Ok{};
  ForEachTensor(ladder, [&](const std::string& name, Tensor& tensor) {
    if (!status.ok()) return;
    status =
        file.Read(*file.Find(name), 0, {tensor.data, static_cast<size_t>(tensor.size()) * sizeof(float)});
  });
  return status;
}

}  // namespace

Status SaveAdapter(const Path& folder, Ladder& ladder, const Config& config, const std::string& base_model,
                   const std::string& chat_template) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return Failure{fmt::format("cannot create {}: {}", folder.string(), error.message()), ExitCode::kFailed};
  }
  std::vector<io::TensorToWrite> tensors;
  ForEachTensor(ladder, [&](const std::string& name, Tensor& tensor) {
    tensors.push_back(
        {name, "F32", ShapeOf(tensor), {tensor.data, static_cast<size_t>(tensor.size()) * sizeof(float)}});
  });
  Status written = io::WriteSafetensors(folder / kWeights, tensors, {{"format", "pt"}});
  if (!written.ok()) return written;
  return WriteTextFile(folder / kConfig, ToJson(ladder.spec(), config, base_model, chat_template)
                                                 .dump(2, ' ', false, json::error_handler_t::replace) +
                                             "\n");
}

Result<AdapterInfo> ReadAdapterInfo(const Path& folder) {
  const Path file = folder / kConfig;
  Result<json> parsed = io::ReadJson(file);
  if (!parsed.ok()) return parsed.failure();
  const json& object = parsed.value();
  if (!object.is_object() || object.value("peft_type", json()) != "LADDER") {
    return Failure{
        fmt::format("{}: peft_type is not \"LADDER\": not an adapter this program can load", file.string())};
  }
  Fields fields(object, file.string());
  const auto version = fields.Get<int>("format_version");
  AdapterInfo info;
  info.base_model = fields.Get<std::string>("base_model_name_or_path");
  info.spec.taps = fields.Get<std::vector<int64_t>>("taps");
  info.spec.rungs = fields.Get<int64_t>("rungs");
  info.spec.S = fields.Get<int64_t>("width");
  info.spec.F = fields.Get<int64_t>("mlp_width");
  info.spec.head_dim = fields.Get<int64_t>("head_dim");
  info.spec.output_scale = fields.Get<float>("output_scale");
  const auto gate = fields.Get<std::string>("gate"), norm = fields.Get<std::string>("tap_norm");
  const auto base = fields.Get<json>("base_model");
  if (!fields.failure().empty()) return Failure{fields.failure()};
  if (version != kVersion) {
    return Failure{fmt::format("{}: format_version {} is not {}: written by another version of rung",
                               file.string(), version, kVersion)};
  }
  Fields shape(base, file.string());
  info.family = shape.Get<std::string>("family");
  info.L = shape.Get<int64_t>("num_hidden_layers");
  info.C = shape.Get<int64_t>("hidden_size");
  info.V = shape.Get<int64_t>("vocab_size");
  if (!shape.failure().empty()) return Failure{shape.failure()};
  if (object.contains("chat_template") && object["chat_template"].is_string()) {
    info.chat_template = object["chat_template"].get<std::string>();
  }
  const std::map<std::string, Gate> gates = {{"sum", Gate::kSum}, {"interpolate", Gate::kInterpolate}};
  const std::map<std::string, TapNorm> norms = {
      {"none", TapNorm::kNone}, {"rms", TapNorm::kRms}, {"standardize", TapNorm::kStandardize}};
  if (!gates.contains(gate) || !norms.contains(norm)) {
    return Failure{fmt::format("{}: gate \"{}\" or tap_norm \"{}\" is not known", file.string(), gate, norm)};
  }
  info.spec.gate = gates.at(gate);
  info.spec.tap_norm = norms.at(norm);
  if (Status ok = CheckSpec(info.spec, info.L, file.string()); !ok.ok()) return ok.failure();
  return info;
}

Result<Ladder> LoadAdapter(const Path& folder, const Config& config, bool with_gradients, int64_t positions) {
  Result<AdapterInfo> read = ReadAdapterInfo(folder);
  if (!read.ok()) return read.failure();
  const AdapterInfo& info = read.value();
  if (info.L != config.L || info.C != config.C || info.V != config.V) {
    return Failure{
        fmt::format("{}: the adapter was trained for {} ({} layers, hidden size {}, vocabulary {}); this "
                    "model has {} layers, hidden "
                    "size {}, vocabulary {}: give the model it was trained for",
                    folder.string(), info.base_model.empty() ? info.family : info.base_model, info.L, info.C,
                    info.V, config.L, config.C, config.V)};
  }
  Result<io::Safetensors> file = io::Safetensors::Open(folder / kWeights);
  if (!file.ok()) return file.failure();
  Ladder planned = Ladder::Planned(config, info.spec, positions);
  if (Status fits = CheckTensors(file.value(), folder, planned); !fits.ok()) return fits.failure();
  Ladder ladder = Ladder::Allocate(config, info.spec, with_gradients, positions);
  if (Status loaded = ReadTensors(file.value(), ladder); !loaded.ok()) return loaded.failure();
  return ladder;
}

Status LoadAdapterValues(const Path& folder, Ladder* ladder) {
  Result<io::Safetensors> file = io::Safetensors::Open(folder / kWeights);
  if (!file.ok()) return file.failure();
  if (Status fits = CheckTensors(file.value(), folder, *ladder); !fits.ok()) return fits;
  return ReadTensors(file.value(), *ladder);
}

}  // namespace rung::model
