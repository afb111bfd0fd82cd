// The tensors of a model read as f32 a few rows at a time, whatever they are stored as: under Hugging Face's
// names and in its order of rows, or in the order that a GGUF file of the model has.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "convert/tensor_listing.h"
#include "model/folder_weights.h"

namespace rung::convert {

// Rows of `cols` numbers to work on at once, a multiple of `unit`: 16 MiB of f32, or one unit of wider rows.
constexpr int64_t TileRows(int64_t cols, int64_t unit = 1) {
  constexpr int64_t kNumbers = int64_t{4} << 20;
  return std::max<int64_t>(1, kNumbers / std::max<int64_t>(1, cols) / unit) * unit;
}

class TensorReader {
 public:
  // Throws Error, as all members do.
  explicit TensorReader(const Path& model);

  // The file's own, and as a folder of this model has it.
  const model::Config& config() const { return config_; }
  const model::Config& folder_config() const { return folder_config_; }
  bool is_gguf() const { return gguf_ != nullptr; }
  const io::Gguf* gguf() const { return gguf_.get(); }
  // Numbers of the known weights in each format, by its name: "bf16", "f32", "nf4", "q4_0".
  const std::map<std::string, int64_t>& formats() const { return formats_; }
  // More than half of the known weights are stored in this format.
  bool MostAre(const std::string& format) const;
  // What 16-bit weights made of this model should be, where nobody says: as config.json or most weights have
  // it, else bf16.
  bool IsHalf() const;
  // In the order of a pass, as far as the names are known.
  const std::vector<SourceTensor>& tensors() const { return tensors_; }

  // The tensor that is read until the next call.
  void Select(const SourceTensor& tensor);
  // Rows [begin, end) of the folder's shape, or of a GGUF file's. A vector is one row.
  void ReadRows(int64_t begin, int64_t end, float* out);
  void ReadGgufRows(int64_t begin, int64_t end, float* out);
  // All of a tensor that is kept.
  std::vector<std::byte> ReadBytes() const;

 private:
  // Rows in the order of the source itself, without any change.
  void ReadStored(int64_t begin, int64_t end, float* out);
  // Rows of the other order than the source's. `place` gives the source's place of one.
  template <class Place>
  void Reorder(int64_t begin, int64_t end, float* out, const Place& place);
  void AddOffset(float offset, int64_t count, float* out) const;

  Path path_;
  model::Config config_, folder_config_;
  std::vector<SourceTensor> tensors_;
  std::map<std::string, int64_t> formats_;
  std::string torch_dtype_;  // "bfloat16", "float16" or another that a folder's config.json names; else empty
  std::shared_ptr<const io::Gguf> gguf_;
  std::optional<io::Safetensors> folder_;
  // Of the selected tensor: its packed bytes, or where a folder has its plain ones.
  const SourceTensor* tensor_ = nullptr;
  const io::TensorEntry* entry_ = nullptr;
  std::unique_ptr<model::WeightSource> packed_;
  format::Matrix matrix_;
  std::vector<std::byte> raw_;
  std::vector<float> whole_;  // of one that is read transposed, or of a vector that is reordered
};

}  // namespace rung::convert
