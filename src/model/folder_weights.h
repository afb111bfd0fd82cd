// Weights of a Hugging Face folder: floating-point tensors, quantised piece by piece while they are read, and
// matrices that are quantised already: bitsandbytes' 4-bit ones as they are, GPTQ's and AWQ's repacked.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/float_rows.h"
#include "model/four_bit.h"
#include "model/packed_int4.h"
#include "model/quantization.h"
#include "model/weights.h"

namespace rung::model {

// Of kHeaders every matrix has null data; totals are those of kAll.
enum class FolderRead : uint8_t { kAll, kHeaders };

class FolderSource final : public WeightSource {
 public:
  // How matrices are quantised is read from the config.json beside the files; where that cannot be read,
  // every matrix is refused with the reason.
  explicit FolderSource(io::Safetensors tensors, FolderRead read = FolderRead::kAll);

  bool Has(const std::string& name) const override;
  Result<format::Matrix> ReadMatrix(const std::string& name, int64_t rows, int64_t cols, Quantize quantize,
                                    bool transposed = false) override;
  Result<std::vector<float>> ReadVector(const std::string& name, int64_t size) override;
  bool shapes_only() const override { return read_ == FolderRead::kHeaders; }

 private:
  Result<const io::TensorEntry*> Find(const std::string& name, const std::vector<int64_t>& shape) const;
  Result<const io::TensorEntry*> Part(const std::string& name, const char* dtype, int64_t count) const;
  Failure Unreadable(const io::TensorEntry& entry) const;  // as a matrix
  Failure NoFloat(const io::TensorEntry& entry) const;     // as a vector or scales

  // Floating point: kept, or quantised.
  Result<format::Matrix> ReadFloat(const io::TensorEntry& entry, int64_t rows, int64_t cols,
                                   Quantize quantize, bool transposed, const Float8Scales& scales);
  Result<format::Matrix> KeepFloat(FloatRows* source, const io::TensorEntry& entry, bool transposed,
                                   const Float8Scales& scales);
  Result<format::Matrix> EncodeFourBit(FloatRows* source, const io::TensorEntry& entry, bool nested);
  Result<format::Matrix> EncodePlain(FloatRows* source, const io::TensorEntry& entry, format::Format format);
  Result<Float8Scales> ReadFloat8Scales(const std::string& module, int64_t rows, int64_t cols) const;
  Result<std::vector<float>> ReadFloats(const io::TensorEntry& entry) const;

  Result<format::Matrix> ReadFourBit(const std::string& name, const FourBit& kind, int64_t rows,
                                     int64_t cols);
  // What bitsandbytes wrote beside the codes, checked: the offset of nested scales.
  Result<float> ReadState(const std::string& name, const FourBit& kind, int64_t rows, int64_t cols,
                          bool nested) const;
  // `count` finite scales, or none where shapes are all that is read.
  Status CheckScales(const std::string& name, const std::byte* scales, int64_t count) const;
  Result<format::Matrix> ReadInt4(const std::string& module, int64_t rows, int64_t cols);
  Result<int64_t> ReadGroups(const std::string& module, int64_t cols, std::vector<int32_t>* index) const;
  Result<Int4Matrix> Repack(const std::string& module, int64_t rows, int64_t cols, int64_t groups);

  // A whole tensor of bytes, kept; nullptr when headers are all that is read.
  Result<std::byte*> ReadKept(const io::TensorEntry& entry);
  Result<std::vector<std::byte>> ReadBytes(const io::TensorEntry& entry) const;
  std::byte* Keep(size_t bytes);

  io::Safetensors tensors_;
  FolderRead read_;
  Result<Quantization> quantization_ = Quantization{};
  std::vector<std::unique_ptr<std::byte[]>> buffers_;
  std::vector<std::unique_ptr<format::Nf4Encoded>> encoded_;
  std::vector<std::unique_ptr<Int4Matrix>> int4_;
  std::vector<std::unique_ptr<Float8Scales>> float8_;
};

// "32x64", for messages.
std::string ShapeText(const std::vector<int64_t>& shape);

// The first row of `cols` numbers in `values` that `format` cannot hold, or -1: infinities and NaN, and what
// is beyond its scales. f32 and bf16 hold all.
int64_t UnencodableRow(format::Format format, std::span<const float> values, int64_t cols);
// What is said of it. where: the tensor.
Failure NotEncodable(const std::string& where, int64_t row, format::Format format);

// The storage format that a matrix quantised so has; nullopt for kNone.
std::optional<format::Format> FormatOf(Quantize quantize);
// Refuses (kUsage) a format whose blocks do not fit into rows of `cols` weights.
Status CheckBlocks(const std::string& tensor, Quantize quantize, int64_t cols);

// Counts a 4-bit matrix of bitsandbytes' layout.
void AddFourBitBytes(WeightTotals* totals, const std::string& format, int64_t weights, bool nested);

}  // namespace rung::model
