#include "cli/merge_source.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>
#include <set>

#include "io/json_file.h"
#include "model/lora_file.h"

namespace rung::cli {
namespace {

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

// What config.json says its weights are; newer ones call it dtype.
std::string TorchDtype(const Path& folder) {
  const nlohmann::json config = io::ReadJson(folder / "config.json").OrThrow();
  for (const char* key : {"dtype", "torch_dtype"}) {
    const auto it = config.find(key);
    if (it != config.end() && it->is_string()) return it->get<std::string>();
  }
  return "";
}

}  // namespace

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
  for (ModelTensor& tensor : ModelTensors(config_)) {
    if (tensor.role == TensorRole::kHead && config_.tied_head) continue;
    const io::GgufTensor* found = gguf_->Find(tensor.gguf);
    if (!found) {
      throw Error(ExitCode::kBadInput, fmt::format("{}: tensor {} is missing", gguf_->name(), tensor.gguf));
    }
    const std::optional<io::GgmlType> type = io::GgmlTypeOf(found->type);
    formats_[type ? std::string(type->name) : "unknown"] += tensor.rows() * tensor.cols();
    tensors_.push_back({std::move(tensor), ""});
  }
}

void MergeSource::ListFolder(const Path& model) {
  std::error_code error;
  if (!std::filesystem::is_directory(model, error)) {
    throw Error(ExitCode::kUsage,
                fmt::format("--model {}: a .gguf file or a Hugging Face folder is needed", model.string()));
  }
  folder_ = io::Safetensors::OpenFolder(model).OrThrow();
  torch_dtype_ = TorchDtype(model);
  const auto packed = [&](const std::string& name) { return IsNf4(*folder_, name); };
  std::set<std::string> listed;
  for (ModelTensor& tensor : ModelTensors(config_)) {
    const io::TensorEntry* entry = folder_->Find(tensor.name);
    // A model whose head is its embedding has one of the two, whatever its config says.
    if (!entry && (tensor.role == TensorRole::kHead || tensor.role == TensorRole::kEmbedding)) continue;
    if (!entry) {
      throw Error(ExitCode::kBadInput, fmt::format("{}: tensor {} is missing", model.string(), tensor.name));
    }
    if (!packed(tensor.name) && (entry->shape != tensor.shape || !model::FloatFormat(entry->dtype))) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: tensor {} is {} of {}; {} in F32, F16, BF16 or NF4 is expected",
                              folder_->path(*entry).string(), tensor.name, entry->dtype,
                              fmt::join(entry->shape, " x "), fmt::join(tensor.shape, " x ")));
    }
    formats_[packed(tensor.name) ? "nf4" : Lower(entry->dtype)] += tensor.rows() * tensor.cols();
    listed.insert(tensor.name);
    tensors_.push_back({std::move(tensor), ""});
  }
  // What the model has beside what is run here comes along.
  for (const auto& [name, entry] : folder_->tensors()) {
    if (listed.contains(name) || IsNf4Part(*folder_, name)) continue;
    if (packed(name)) {
      throw Error(ExitCode::kBadInput, fmt::format("{}: tensor {} is NF4 and no weight of this model",
                                                   folder_->path(entry).string(), name));
    }
    SourceTensor kept;
    kept.name = name;
    kept.shape = entry.shape;
    kept.kept = entry.dtype;
    tensors_.push_back(std::move(kept));
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
          packed_->ReadMatrix(tensor.gguf, tensor.rows(), tensor.cols(), model::Quantize::kNone).OrThrow();
      return;
    }
    const std::vector<float> values = packed_->ReadVector(tensor.gguf, tensor.cols()).OrThrow();
    raw_.resize(values.size() * sizeof(float));
    std::copy_n(std::as_bytes(std::span(values)).data(), raw_.size(), raw_.data());
    matrix_ = {format::Format::kF32, 1, tensor.cols(), raw_.data(), {}};
    return;
  }
  if (!IsNf4(*folder_, tensor.name)) {
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
    folder_->Read(*entry_, static_cast<uint64_t>(begin) * row_bytes, raw_).OrThrow();
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
  folder_->Read(*entry_, 0, bytes).OrThrow();
  return bytes;
}

}  // namespace rung::cli
