#include "model/weights.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "model/folder_weights.h"

namespace rung::model {
namespace {

std::string GgmlName(int type) {
  const std::optional<io::GgmlType> known = io::GgmlTypeOf(type);
  return known ? std::string(known->name) : fmt::format("{}", type);
}

std::string Weight(const std::string& name) { return name.ends_with(".weight") ? name : name + ".weight"; }

class GgufSource final : public WeightSource {
 public:
  explicit GgufSource(std::shared_ptr<const io::Gguf> gguf) : gguf_(std::move(gguf)) {}

  bool Has(const std::string& name) const override { return gguf_->Find(name) || gguf_->Find(Weight(name)); }

  Result<format::Matrix> ReadMatrix(const std::string& name, int64_t rows, int64_t cols, Quantize,
                                    bool transposed) override {
    const std::string full = Weight(name);
    if (transposed) {
      return Failure{
          fmt::format("{}: tensor {} is used as it is and cannot be transposed", gguf_->name(), full)};
    }
    format::Matrix matrix;
    Result<const io::GgufTensor*> tensor = Find(full, {cols, rows}, &matrix.format);
    if (!tensor.ok()) return tensor.failure();
    matrix.rows = rows;
    matrix.cols = cols;
    matrix.data = tensor.value()->data.data();
    totals_.Add(std::string(format::Of(matrix.format).name), tensor.value()->data.size());
    return matrix;
  }

  Result<std::vector<float>> ReadVector(const std::string& name, int64_t size) override {
    format::Matrix row;
    Result<const io::GgufTensor*> tensor = Find(name, {size}, &row.format);
    if (!tensor.ok()) return tensor.failure();
    row.rows = 1;
    row.cols = size;
    row.data = tensor.value()->data.data();
    std::vector<float> values(static_cast<size_t>(size));
    format::DecodeRow(row, 0, values.data());
    totals_.Add("f32", values.size() * sizeof(float));
    return values;
  }

 private:
  Result<const io::GgufTensor*> Find(const std::string& name, const std::vector<int64_t>& dims,
                                     format::Format* format) const {
    const io::GgufTensor* tensor = gguf_->Find(name);
    if (!tensor) return Failure{fmt::format("{}: tensor {} is missing", gguf_->name(), name)};
    if (tensor->dims != dims) {
      std::string found;
      for (const int64_t dim : tensor->dims) found += fmt::format("{}{}", found.empty() ? "" : "x", dim);
      return Failure{fmt::format("{}: tensor {} is {}, the metadata asks for {}{}", gguf_->name(), name,
                                 found, dims[0], dims.size() > 1 ? fmt::format("x{}", dims[1]) : "")};
    }
    if (!format::FromGguf(tensor->type, format)) {
      return Failure{fmt::format("{}: tensor {} has ggml type {}, which is not supported; supported are: {}",
                                 gguf_->name(), name, GgmlName(tensor->type), format::GgufNames())};
    }
    return tensor;
  }

  std::shared_ptr<const io::Gguf> gguf_;
};

class EmptySource final : public WeightSource {
 public:
  bool Has(const std::string&) const override { return true; }

  Result<format::Matrix> ReadMatrix(const std::string& name, int64_t rows, int64_t cols, Quantize quantize,
                                    bool) override {
    if (Status fits = CheckBlocks(Weight(name), quantize, cols); !fits.ok()) return fits.failure();
    format::Matrix matrix;
    matrix.rows = rows;
    matrix.cols = cols;
    matrix.format = FormatOf(quantize).value_or(format::Format::kBf16);
    if (matrix.format == format::Format::kNf4) {
      AddFourBitBytes(&totals_, "nf4", rows * cols, quantize == Quantize::kNf4);
    } else {
      totals_.Add(std::string(format::Of(matrix.format).name),
                  static_cast<uint64_t>(format::DataBytes(matrix.format, rows, cols)));
    }
    return matrix;
  }

  Result<std::vector<float>> ReadVector(const std::string&, int64_t size) override {
    totals_.Add("f32", static_cast<uint64_t>(size) * sizeof(float));
    return std::vector<float>();
  }

  bool shapes_only() const override { return true; }
};

}  // namespace

std::unique_ptr<WeightSource> GgufWeights(std::shared_ptr<const io::Gguf> gguf) {
  return std::make_unique<GgufSource>(std::move(gguf));
}

std::unique_ptr<WeightSource> FolderWeights(io::Safetensors tensors) {
  return std::make_unique<FolderSource>(std::move(tensors), FolderRead::kAll);
}

std::unique_ptr<WeightSource> HeaderOnly(io::Safetensors tensors) {
  return std::make_unique<FolderSource>(std::move(tensors), FolderRead::kHeaders);
}

std::unique_ptr<WeightSource> NoWeights() { return std::make_unique<EmptySource>(); }

}  // namespace rung::model
