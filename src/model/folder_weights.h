// Weights of a Hugging Face folder: 16- and 32-bit tensors, quantised chunk by chunk while they are read, and
// bitsandbytes' NF4 tensors as they are.
#pragma once

#include <memory>
#include <vector>

#include "model/weights.h"

namespace rung::model {

// Of kHeaders every matrix has null data; totals are those of kAll.
enum class FolderRead : uint8_t { kAll, kHeaders };

class FolderSource final : public WeightSource {
 public:
  explicit FolderSource(io::Safetensors tensors, FolderRead read = FolderRead::kAll)
      : tensors_(std::move(tensors)), read_(read) {}

  bool Has(const std::string& name) const override { return tensors_.Find(name) != nullptr; }
  Result<format::Matrix> ReadMatrix(const std::string& name, int64_t rows, int64_t cols,
                                    Quantize quantize) override;
  Result<std::vector<float>> ReadVector(const std::string& name, int64_t size) override;
  bool shapes_only() const override { return read_ == FolderRead::kHeaders; }

 private:
  Result<const io::TensorEntry*> Find(const std::string& name, const std::vector<int64_t>& shape) const;
  Result<format::Matrix> ReadNf4(const std::string& name, int64_t rows, int64_t cols);
  // What bitsandbytes wrote beside the codes of an NF4 tensor, checked.
  Result<float> ReadNf4Offset(const std::string& name, int64_t rows, int64_t cols, bool nested) const;
  Result<format::Matrix> Adopt(format::Nf4Encoded encoded, int64_t rows, int64_t cols);
  // A whole tensor of bytes, kept; nullptr when headers are all that is read.
  Result<std::byte*> ReadKept(const io::TensorEntry& entry);
  std::byte* Keep(size_t bytes);

  io::Safetensors tensors_;
  FolderRead read_;
  std::vector<std::unique_ptr<std::byte[]>> buffers_;
  std::vector<std::unique_ptr<format::Nf4Encoded>> encoded_;
};

// One tensor, read as f32 and encoded in chunks: never more than a chunk of it is in memory.
Result<format::Nf4Encoded> EncodeTensor(const io::Safetensors& tensors, const io::TensorEntry& entry,
                                        bool nested);

// Counts an NF4 matrix of `weights` weights.
void AddNf4(WeightTotals* totals, int64_t weights, bool nested);

// The format of a safetensors dtype; nullopt when it is none of the floating-point ones we read.
std::optional<format::Format> FloatFormat(const std::string& dtype);

}  // namespace rung::model
