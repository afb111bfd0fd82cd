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

class GgufSource final : public WeightSource {
 public:
  explicit GgufSource(std::shared_ptr<const io::Gguf> gguf) : gguf_(std::move(gguf)) {}

  bool Has(const std::string& name) const override { return gguf_->Find(name) != nullptr; }

  Result<format::Matrix> ReadMatrix(const std::string& name, int64_t rows, int64_t cols, Quantize) override {
    Result<const io::GgufTensor*> tensor = Find(name, {cols, rows});
    if (!tensor.ok()) return tensor.failure();
    format::Matrix matrix;
    const format::Info* info = format::FromGguf(tensor.value()->type, &matrix.format);
    if (!info) {
      return Failure{fmt::format("{}: tensor {} has ggml type {}, which is not supported; supported are: {}",
                                 gguf_->name(), name, GgmlName(tensor.value()->type), format::GgufNames())};
    }
    matrix.rows = rows;
    matrix.cols = cols;
    matrix.data = tensor.value()->data.data();
    totals_.Add(std::string(info->name), tensor.value()->data.size());
    return matrix;
  }

  Result<std::vector<float>> ReadVector(const std::string& name, int64_t size) override {
    Result<const io::GgufTensor*> tensor = Find(name, {size});
    if (!tensor.ok()) return tensor.failure();
    format::Matrix row;
    const format::Info* info = format::FromGguf(tensor.value()->type, &row.format);
    if (!info) {
      return Failure{fmt::format("{}: tensor {} has ggml type {}, which is not supported; supported are: {}",
                                 gguf_->name(), name, GgmlName(tensor.value()->type), format::GgufNames())};
    }
    row.rows = 1;
    row.cols = size;
    row.data = tensor.value()->data.data();
    std::vector<float> values(static_cast<size_t>(size));
    info->decode(row, 0, size, values.data());
    totals_.Add("f32", values.size() * sizeof(float));
    return values;
  }

 private:
  Result<const io::GgufTensor*> Find(const std::string& name, const std::vector<int64_t>& dims) const {
    const io::GgufTensor* tensor = gguf_->Find(name);
    if (!tensor) return Failure{fmt::format("{}: tensor {} is missing", gguf_->name(), name)};
    if (tensor->dims != dims) {
      std::string found;
      for (const int64_t dim : tensor->dims) found += fmt::format("{}{}", found.empty() ? "" : "x", dim);
      return Failure{fmt::format("{}: tensor {} is {}, the metadata asks for {}{}", gguf_->name(), name,
                                 found, dims[0], dims.size() > 1 ? fmt::format("x{}", dims[1]) : "")};
    }
    return tensor;
  }

  std::shared_ptr<const io::Gguf> gguf_;
};

class EmptySource final : public WeightSource {
 public:
  bool Has(const std::string&) const override { return true; }

  Result<format::Matrix> ReadMatrix(const std::string&, int64_t rows, int64_t cols,
                                    Quantize quantize) override {
    format::Matrix matrix;
    matrix.rows = rows;
    matrix.cols = cols;
    matrix.format = quantize == Quantize::kNone ? format::Format::kBf16 : format::Format::kNf4;
    if (quantize == Quantize::kNone) {
      totals_.Add("bf16", static_cast<uint64_t>(format::DataBytes(matrix.format, rows, cols)));
    } else {
      AddNf4(&totals_, rows * cols, quantize == Quantize::kNf4);
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

Result<Quantize> ParseQuantize(const std::string& name) {
  if (name == "none") return Quantize::kNone;
  if (name == "nf4") return Quantize::kNf4;
  if (name == "nf4-single") return Quantize::kNf4Single;
  return Failure{fmt::format("--quantize {}: known are none, nf4, nf4-single", name), ExitCode::kUsage};
}

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

std::string Names::Layer(const std::string& pattern, int64_t layer) const {
  std::string name = pattern;
  return name.replace(name.find("{}"), 2, std::to_string(layer));
}

const Names& HfNames() {
  static const Names names = {"model.embed_tokens.weight",
                              "model.norm.weight",
                              "lm_head.weight",
                              "model.layers.{}.input_layernorm.weight",
                              "model.layers.{}.self_attn.q_proj.weight",
                              "model.layers.{}.self_attn.k_proj.weight",
                              "model.layers.{}.self_attn.v_proj.weight",
                              "model.layers.{}.self_attn.o_proj.weight",
                              "model.layers.{}.self_attn.q_norm.weight",
                              "model.layers.{}.self_attn.k_norm.weight",
                              "model.layers.{}.post_attention_layernorm.weight",
                              "model.layers.{}.mlp.gate_proj.weight",
                              "model.layers.{}.mlp.up_proj.weight",
                              "model.layers.{}.mlp.down_proj.weight"};
  return names;
}

const Names& GgufNames() {
  static const Names names = {
      "token_embd.weight",         "output_norm.weight",        "output.weight",
      "blk.{}.attn_norm.weight",   "blk.{}.attn_q.weight",      "blk.{}.attn_k.weight",
      "blk.{}.attn_v.weight",      "blk.{}.attn_output.weight", "blk.{}.attn_q_norm.weight",
      "blk.{}.attn_k_norm.weight", "blk.{}.ffn_norm.weight",    "blk.{}.ffn_gate.weight",
      "blk.{}.ffn_up.weight",      "blk.{}.ffn_down.weight"};
  return names;
}

}  // namespace rung::model
