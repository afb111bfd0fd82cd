#include "convert/tensor_reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "io/json_file.h"
#include "model/config_difference.h"
#include "model/families.h"

namespace rung::convert {
namespace {

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

TensorReader::TensorReader(const Path& model) : path_(model), config_(model::ReadConfig(model).OrThrow()) {
  TensorListing listing;
  if (model::IsGgufFile(model)) {
    gguf_ = std::make_shared<const io::Gguf>(io::Gguf::Open(model).OrThrow());
    folder_config_ = model::AsFolder(config_);
    const model::Family* family = model::FindFamily(config_.family);
    RUNG_CHECK(config_.no_rope || (family && family->gguf_pairs == !config_.rope.half),
               "gguf: the order of rows that a file has");
    listing = ListTensors(gguf_, config_);
  } else {
    std::error_code error;
    if (!std::filesystem::is_directory(model, error)) {
      throw Error(ExitCode::kUsage,
                  fmt::format("--model {}: a .gguf file or a Hugging Face folder is needed", model.string()));
    }
    folder_config_ = config_;
    folder_ = io::Safetensors::OpenFolder(model).OrThrow();
    torch_dtype_ = TorchDtype(model);
    listing = ListTensors(*folder_, model, config_);
  }
  if (!listing.missing.empty()) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: tensor {} is missing", model.string(), listing.missing[0]));
  }
  // Of a GGUF file it is said when such a tensor is read (Select).
  if (folder_ && !listing.wrong.empty()) throw Error(ExitCode::kBadInput, listing.wrong[0].message);
  tensors_ = std::move(listing.tensors);
  for (const SourceTensor& tensor : tensors_) {
    if (tensor.kept.empty()) formats_[tensor.stored] += tensor.rows() * tensor.cols();
  }
}

bool TensorReader::MostAre(const std::string& format) const {
  int64_t such = 0, all = 0;
  for (const auto& [name, count] : formats_) {
    all += count;
    if (name == format) such += count;
  }
  return 2 * such > all;
}

bool TensorReader::IsHalf() const {
  return torch_dtype_ == "float16" || (torch_dtype_ != "bfloat16" && MostAre("f16"));
}

void TensorReader::Select(const SourceTensor& tensor) {
  tensor_ = &tensor;
  entry_ = nullptr;
  packed_ = nullptr;
  whole_.clear();
  if (gguf_) {
    packed_ = model::GgufWeights(gguf_);
    // A vector is stored like a matrix of one row, but found by its one dimension.
    if (tensor.is_matrix()) {
      matrix_ = packed_
                    ->ReadMatrix(tensor.gguf_module(), tensor.gguf_rows(), tensor.gguf_cols(),
                                 model::Quantize::kNone)
                    .OrThrow();
      return;
    }
    const std::vector<float> values = packed_->ReadVector(tensor.gguf, tensor.cols()).OrThrow();
    raw_.resize(values.size() * sizeof(float));
    std::copy_n(std::as_bytes(std::span(values)).data(), raw_.size(), raw_.data());
    matrix_ = format::Matrix();
    matrix_.rows = 1;
    matrix_.cols = tensor.cols();
    matrix_.data = raw_.data();
    return;
  }
  entry_ = folder_->Find(tensor.name);
  if (!tensor.kept.empty() || IsPlain(entry_, tensor)) return;
  entry_ = nullptr;
  // A source of its own, so that the codes of one matrix only are in memory.
  packed_ = model::FolderWeights(io::Safetensors::OpenFolder(path_).OrThrow());
  matrix_ = packed_
                ->ReadMatrix(tensor.module(), tensor.gguf_rows(), tensor.gguf_cols(), model::Quantize::kNone,
                             tensor.transposed)
                .OrThrow();
}

void TensorReader::ReadStored(int64_t begin, int64_t end, float* out) {
  if (!entry_) {
    format::Of(matrix_.format).decode(matrix_, begin * matrix_.cols, end * matrix_.cols, out);
    return;
  }
  const int64_t rows = entry_->shape.size() < 2 ? 1 : entry_->shape[0];
  const format::Format stored = *model::FloatFormat(entry_->dtype);
  const uint64_t row_bytes = rows > 0 ? entry_->bytes / static_cast<uint64_t>(rows) : 0;
  raw_.resize(static_cast<size_t>(end - begin) * row_bytes);
  folder_->Read(*entry_, static_cast<uint64_t>(begin) * row_bytes, raw_).OrThrow();
  format::Matrix row;
  row.format = stored;
  row.rows = 1;
  row.cols = static_cast<int64_t>(raw_.size()) / format::Of(stored).block_bytes;
  row.data = raw_.data();
  format::Of(stored).decode(row, 0, row.cols, out);
}

template <class Place>
void TensorReader::Reorder(int64_t begin, int64_t end, float* out, const Place& place) {
  const model::ModelTensor& tensor = *tensor_;
  // `source`: the shape that the source has, whose rows are the other shape's columns when transposed.
  const int64_t source_rows = gguf_ ? tensor.gguf_rows() : tensor.rows();
  const int64_t source_cols = gguf_ ? tensor.gguf_cols() : tensor.cols();
  if (tensor.is_matrix() && !tensor.transposed) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t at = place(row);
      ReadStored(at, at + 1, out + (row - begin) * source_cols);
    }
    return;
  }
  if (whole_.empty()) {
    whole_.resize(static_cast<size_t>(source_rows * source_cols));
    ReadStored(0, source_rows, whole_.data());
  }
  if (!tensor.is_matrix()) {
    for (int64_t i = 0; i < source_cols; ++i) out[i] = whole_[static_cast<size_t>(place(i))];
    return;
  }
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t k = 0; k < source_rows; ++k) {
      out[(row - begin) * source_rows + k] = whole_[static_cast<size_t>(k * source_cols + row)];
    }
  }
}

void TensorReader::AddOffset(float offset, int64_t count, float* out) const {
  if (offset == 0.0f) return;
  for (int64_t i = 0; i < count; ++i) out[i] += offset;
}

void TensorReader::ReadRows(int64_t begin, int64_t end, float* out) {
  if (!gguf_ || tensor_->in_gguf_order()) {
    ReadStored(begin, end, out);
  } else {
    Reorder(begin, end, out, [&](int64_t place) { return tensor_->GgufPlace(place); });
  }
  if (gguf_) AddOffset(-tensor_->offset, (end - begin) * tensor_->cols(), out);
}

void TensorReader::ReadGgufRows(int64_t begin, int64_t end, float* out) {
  if (gguf_ || tensor_->in_gguf_order()) {
    ReadStored(begin, end, out);
  } else {
    Reorder(begin, end, out, [&](int64_t place) { return tensor_->FolderPlace(place); });
  }
  if (!gguf_) AddOffset(tensor_->offset, (end - begin) * tensor_->gguf_cols(), out);
}

std::vector<std::byte> TensorReader::ReadBytes() const {
  std::vector<std::byte> bytes(entry_->bytes);
  folder_->Read(*entry_, 0, bytes).OrThrow();
  return bytes;
}
}  // namespace rung::convert
