#include "cli/merge_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "model/lora_file.h"

namespace rung::cli {
namespace {

constexpr const char* kNf4State = ".quant_state.bitsandbytes__nf4";
// What bitsandbytes keeps beside the codes of an NF4 weight.
constexpr const char* kNf4Parts[] = {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map",
                                     kNf4State};

void Require(const Status& status) {
  if (!status.ok()) throw Error(status.failure().code, status.failure().message);
}

std::string BiasOf(const std::string& weight) { return weight.substr(0, weight.rfind('.')) + ".bias"; }

bool IsNf4Part(const io::Safetensors& folder, const std::string& name) {
  return std::any_of(std::begin(kNf4Parts), std::end(kNf4Parts), [&](const std::string& part) {
    return name.ends_with(part) &&
           folder.Find(name.substr(0, name.size() - part.size()) + kNf4State) != nullptr;
  });
}

}  // namespace

int64_t SourceTensor::cols() const {
  int64_t count = 1;
  for (size_t i = shape.size() < 2 ? 0 : 1; i < shape.size(); ++i) count *= shape[i];
  return count;
}

std::vector<SourceTensor> ModelTensors(const model::Config& c) {
  using Pattern = std::string model::Names::*;
  using model::Names;
  const Names &hf = model::HfNames(), &gguf = model::GgufNames();
  const int64_t q = c.Hq * c.D, kv = c.Hkv * c.D;
  std::vector<SourceTensor> tensors = {{hf.embedding, {c.V, c.C}, "", gguf.embedding}};
  for (int64_t layer = 0; layer < c.L; ++layer) {
    const auto add = [&](Pattern pattern, std::vector<int64_t> shape, bool bias = false,
                         bool rotary = false) {
      const std::string name = hf.Layer(hf.*pattern, layer), stored = gguf.Layer(gguf.*pattern, layer);
      tensors.push_back({name, shape, "", stored, rotary});
      if (bias) tensors.push_back({BiasOf(name), {shape[0]}, "", BiasOf(stored)});
    };
    add(&Names::attention_norm, {c.C});
    add(&Names::q, {q, c.C}, c.qkv_bias, true);
    add(&Names::k, {kv, c.C}, c.qkv_bias, true);
    add(&Names::v, {kv, c.C}, c.qkv_bias);
    add(&Names::o, {c.C, q});
    if (c.qk_norm) {
      add(&Names::q_norm, {c.D});
      add(&Names::k_norm, {c.D});
    }
    add(&Names::mlp_norm, {c.C});
    if (c.gated_mlp) add(&Names::gate, {c.F, c.C});
    add(&Names::up, {c.F, c.C});
    add(&Names::down, {c.C, c.F});
  }
  tensors.push_back({hf.final_norm, {c.C}, "", gguf.final_norm});
  tensors.push_back({hf.head, {c.V, c.C}, "", gguf.head});
  return tensors;
}

MergeSource::MergeSource(const Path& model) : path_(model), config_(model::ReadConfig(model).OrThrow()) {
  if (model::IsGgufFile(model)) {
    gguf_ = std::make_shared<const io::Gguf>(io::Gguf::Open(model).OrThrow());
    ListGguf();
  } else {
    ListFolder(model);
  }
}

void MergeSource::ListGguf() {
  // No family has both: their vectors would have to be put in order too.
  RUNG_CHECK(config_.rope.half || !(config_.qkv_bias || config_.qk_norm), "merge: rows in pair order");
  tensors_ = ModelTensors(config_);
  if (config_.tied_head) tensors_.pop_back();
  for (const SourceTensor& tensor : tensors_) {
    const io::GgufTensor* found = gguf_->Find(tensor.stored);
    if (!found) {
      throw Error(ExitCode::kBadInput, fmt::format("{}: tensor {} is missing", gguf_->name(), tensor.stored));
    }
    const std::optional<io::GgmlType> type = io::GgmlTypeOf(found->type);
    quantized_ = quantized_ || (type && type->block > 1);
    half_precision_ = half_precision_ || (type && type->name == "f16");
  }
}

void MergeSource::ListFolder(const Path& model) {
  std::error_code error;
  if (!std::filesystem::is_directory(model, error)) {
    throw Error(ExitCode::kUsage,
                fmt::format("--model {}: a .gguf file or a Hugging Face folder is needed", model.string()));
  }
  folder_ = io::Safetensors::OpenFolder(model).OrThrow();
  const auto packed = [&](const std::string& name) { return folder_->Find(name + kNf4State) != nullptr; };
  std::map<std::string, bool> listed;
  for (SourceTensor& tensor : ModelTensors(config_)) {
    const io::TensorEntry* entry = folder_->Find(tensor.name);
    // A model whose head is its embedding has one of the two, whatever its config says.
    if (!entry && (tensor.name == model::HfNames().head || tensor.name == model::HfNames().embedding))
      continue;
    if (!entry) {
      throw Error(ExitCode::kBadInput, fmt::format("{}: tensor {} is missing", model.string(), tensor.name));
    }
    quantized_ = quantized_ || packed(tensor.name);
    half_precision_ = half_precision_ || entry->dtype == "F16";
    if (!packed(tensor.name) && (entry->shape != tensor.shape || !model::FloatFormat(entry->dtype))) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: tensor {} is {} of {}; {} in F32, F16, BF16 or NF4 is expected",
                              folder_->path(*entry).string(), tensor.name, entry->dtype,
                              fmt::join(entry->shape, "x"), fmt::join(tensor.shape, "x")));
    }
    listed[tensor.name] = true;
    tensors_.push_back(std::move(tensor));
  }
  // What the model has beside what is run here comes along.
  for (const auto& [name, entry] : folder_->tensors()) {
    if (listed.contains(name) || IsNf4Part(*folder_, name)) continue;
    if (packed(name)) {
      throw Error(ExitCode::kBadInput, fmt::format("{}: tensor {} is NF4 and no weight of this model",
                                                   folder_->path(entry).string(), name));
    }
    tensors_.push_back({name, entry.shape, model::FloatFormat(entry.dtype) ? "" : entry.dtype, ""});
  }
}

void MergeSource::Select(const SourceTensor& tensor) {
  entry_ = nullptr;
  packed_ = nullptr;
  paired_head_ = tensor.rotary && !config_.rope.half ? config_.D : 0;
  if (gguf_) {
    packed_ = model::GgufWeights(gguf_);
    // A vector is stored like a matrix of one row, but found by its one dimension.
    if (tensor.shape.size() == 2) {
      matrix_ =
          packed_->ReadMatrix(tensor.stored, tensor.rows(), tensor.cols(), model::Quantize::kNone).OrThrow();
      return;
    }
    const std::vector<float> values = packed_->ReadVector(tensor.stored, tensor.cols()).OrThrow();
    raw_.resize(values.size() * sizeof(float));
    std::copy_n(std::as_bytes(std::span(values)).data(), raw_.size(), raw_.data());
    matrix_ = {format::Format::kF32, 1, tensor.cols(), raw_.data(), {}};
    return;
  }
  if (!folder_->Find(tensor.name + kNf4State)) {
    entry_ = folder_->Find(tensor.name);
    return;
  }
  // A source of its own, so that the codes of one matrix only are in memory.
  packed_ = model::FolderWeights(io::Safetensors::OpenFolder(path_).OrThrow());
  matrix_ = packed_->ReadMatrix(tensor.name, tensor.rows(), tensor.cols(), model::Quantize::kNone).OrThrow();
}

void MergeSource::ReadRows(int64_t begin, int64_t end, float* out) {
  if (entry_) {
    const int64_t rows = entry_->shape.size() < 2 ? 1 : entry_->shape[0];
    const format::Format stored = *model::FloatFormat(entry_->dtype);
    const uint64_t row_bytes = rows > 0 ? entry_->bytes / static_cast<uint64_t>(rows) : 0;
    raw_.resize(static_cast<size_t>(end - begin) * row_bytes);
    Require(folder_->Read(*entry_, static_cast<uint64_t>(begin) * row_bytes, raw_));
    const auto count = static_cast<int64_t>(raw_.size()) / format::Of(stored).block_bytes;
    format::Of(stored).decode({stored, 1, count, raw_.data(), {}}, 0, count, out);
    return;
  }
  if (paired_head_ == 0) {
    format::Of(matrix_.format).decode(matrix_, begin * matrix_.cols, end * matrix_.cols, out);
    return;
  }
  // HalfOrderRow tells where a stored row goes; `stored` is where row `row` comes from.
  const int64_t D = paired_head_;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t in_head = row % D;
    const int64_t stored = row - in_head + in_head % (D / 2) * 2 + in_head / (D / 2);
    RUNG_CHECK(model::HalfOrderRow(stored, D) == row, "merge: order of rows");
    format::DecodeRow(matrix_, stored, out + (row - begin) * matrix_.cols);
  }
}

std::vector<std::byte> MergeSource::ReadBytes() const {
  std::vector<std::byte> bytes(entry_->bytes);
  Require(folder_->Read(*entry_, 0, bytes));
  return bytes;
}

}  // namespace rung::cli
