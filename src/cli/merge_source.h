// The tensors of a model under Hugging Face's names and in its order of rows, read as f32 a few rows at a
// time, whatever they are stored as: a 16-bit folder, one in NF4, or a GGUF file.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/model_tensors.h"
#include "model/folder_weights.h"

namespace rung::cli {

struct SourceTensor : ModelTensor {
  std::string kept;  // dtype of one that is copied byte by byte: no weight that is known here; else empty
};

class MergeSource {
 public:
  // Throws Error, as all members do.
  explicit MergeSource(const Path& model);

  const model::Config& config() const { return config_; }
  bool is_gguf() const { return gguf_ != nullptr; }
  const io::Gguf* gguf() const { return gguf_.get(); }
  // Numbers of the known weights in each format, by its name: "bf16", "f32", "nf4", "q4_0".
  const std::map<std::string, int64_t>& formats() const { return formats_; }
  // "bfloat16", "float16" or another type that a folder's config.json names; else empty.
  const std::string& torch_dtype() const { return torch_dtype_; }
  // In the order of a pass, as far as the names are known.
  const std::vector<SourceTensor>& tensors() const { return tensors_; }

  // The tensor that ReadRows and ReadBytes read, until the next call.
  void Select(const SourceTensor& tensor);
  void ReadRows(int64_t begin, int64_t end, float* out);
  // All of a tensor that is kept.
  std::vector<std::byte> ReadBytes() const;

 private:
  void ListGguf();
  void ListFolder(const Path& model);

  Path path_;
  model::Config config_;
  std::vector<SourceTensor> tensors_;
  std::map<std::string, int64_t> formats_;
  std::string torch_dtype_;
  std::shared_ptr<const io::Gguf> gguf_;
  std::optional<io::Safetensors> folder_;
  // Of the selected tensor: its packed bytes, or where a folder has its plain ones.
  const io::TensorEntry* entry_ = nullptr;
  std::unique_ptr<model::WeightSource> packed_;
  format::Matrix matrix_;
  int64_t paired_head_ = 0;
  std::vector<std::byte> raw_;
};

}  // namespace rung::cli
