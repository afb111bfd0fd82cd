// Weights of a Hugging Face folder: 16- and 32-bit tensors, quantised chunk by chunk while they are read, and
// bitsandbytes' NF4 tensors as they are.
#pragma once

#include <memory>
#include <vector>

#include "model/weights.h"

namespace rung::model {

class FolderSource final : public WeightSource {
 public:
  explicit FolderSource(io::Safetensors tensors) : tensors_(std::move(tensors)) {}

  bool Has(const std::string& name) const override { return tensors_.Find(name) != nullptr; }
  Result<format::Matrix> ReadMatrix(const std::string& name, int64_t rows, int64_t cols,
                                    Quantize quantize) override;
  Result<std::vector<float>> ReadVector(const std::string& name, int64_t size) override;

 private:
  Result<const io::TensorEntry*> Find(const std::string& name, const std::vector<int64_t>& shape) const;
  Result<format::Matrix> ReadNf4(const std::string& name, int64_t rows, int64_t cols);
  Result<format::Matrix> Adopt(format::Nf4Encoded encoded, int64_t rows, int64_t cols);
  // A whole tensor of bytes, kept.
  Result<std::byte*> ReadKept(const io::TensorEntry& entry);
  std::byte* Keep(size_t bytes);

  io::Safetensors tensors_;
  std::vector<std::unique_ptr<std::byte[]>> buffers_;
  std::vector<std::unique_ptr<format::Nf4Encoded>> encoded_;
};

// One tensor, read as f32 and encoded in chunks: never more than a chunk of it is in memory.
Result<format::Nf4Encoded> EncodeTensor(const io::Safetensors& tensors, const io::TensorEntry& entry,
                                        bool nested);

// The format of a safetensors dtype; nullopt when it is none of the floating-point ones we read.
std::optional<format::Format> FloatFormat(const std::string& dtype);

}  // namespace rung::model
