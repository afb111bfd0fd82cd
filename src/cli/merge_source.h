// The tensors of a model under Hugging Face's names and in its order of rows, read as f32 a few rows at a
// time, whatever they are stored as: a 16-bit folder, one in NF4, or a GGUF file.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/folder_weights.h"

namespace rung::cli {

struct SourceTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::string dtype;    // of one that is no floating-point tensor, hence kept as it is; else empty
  std::string stored;   // its name in a GGUF file
  bool rotary = false;  // rows of q or k: the heads that RoPE turns
  int64_t rows() const { return shape.size() < 2 ? 1 : shape[0]; }
  int64_t cols() const;
};

class MergeSource {
 public:
  // Throws Error, as all members do.
  explicit MergeSource(const Path& model);

  const model::Config& config() const { return config_; }
  bool is_gguf() const { return gguf_ != nullptr; }
  const io::Gguf* gguf() const { return gguf_.get(); }
  // Some weights are rounded to fewer than 16 bits.
  bool quantized() const { return quantized_; }
  bool half_precision() const { return half_precision_; }  // its 16-bit numbers are f16
  // In the order of a pass, as far as the names are known.
  const std::vector<SourceTensor>& tensors() const { return tensors_; }

  // The tensor that ReadRows and ReadBytes read, until the next call.
  void Select(const SourceTensor& tensor);
  void ReadRows(int64_t begin, int64_t end, float* out);
  // All of a tensor with a `dtype` of its own.
  std::vector<std::byte> ReadBytes() const;

 private:
  void ListGguf();
  void ListFolder(const Path& model);

  Path path_;
  model::Config config_;
  std::vector<SourceTensor> tensors_;
  bool quantized_ = false, half_precision_ = false;
  std::shared_ptr<const io::Gguf> gguf_;
  std::optional<io::Safetensors> folder_;
  // Of the selected tensor: its packed bytes, or where a folder has its plain ones.
  const io::TensorEntry* entry_ = nullptr;
  std::unique_ptr<model::WeightSource> packed_;
  format::Matrix matrix_;
  int64_t paired_head_ = 0;
  std::vector<std::byte> raw_;
};

// Every tensor that a model of this config may have, in the order of a pass; last the head, which is absent
// or stands for the embedding where the two are tied.
std::vector<SourceTensor> ModelTensors(const model::Config& config);

}  // namespace rung::cli
