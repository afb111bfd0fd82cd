#include "model/model_tensors.h"

#include <algorithm>

#include "base/error.h"
#include "model/block_linears.h"
#include "model/families.h"

namespace rung::model {
namespace {

class Lister {
 public:
  using Pattern = std::string Names::*;

  Lister(const Config& config, const Names& hf) : c_(config), hf_(hf), family_(*FindFamily(config.family)) {
    if (!GgufArchitecture(config).empty()) gguf_ = &GgufNames(config);
  }

  std::vector<ModelTensor> List() {
    Table(&Names::embedding, c_.V, c_.embedding_width(), TensorRole::kEmbedding);
    if (c_.position_rows > 0) Table(&Names::position, c_.position_rows, c_.C, TensorRole::kPosition);
    if (c_.embedding_width() != c_.C) Linear(&Names::project_in, -1, c_.C, c_.embedding_width(), false);
    for (int64_t layer = 0; layer < c_.L; ++layer) {
      ListAttention(layer);
      ListMlp(layer);
    }
    if (c_.final_norm) Norm(&Names::final_norm, -1, c_.C);
    if (c_.embedding_width() != c_.C) Linear(&Names::project_out, -1, c_.embedding_width(), c_.C, false);
    Table(&Names::head, c_.V, c_.embedding_width(), TensorRole::kHead);
    return std::move(tensors_);
  }

 private:
  void ListAttention(int64_t layer) {
    if (c_.norms || c_.norm_after_sum) Norm(&Names::attention_norm, layer, c_.C);
    for (const BlockLinear& linear : linears_) {
      if (linear.in_attention) Linear(linear.name, layer, linear.rows, linear.cols, linear.bias);
    }
    if (c_.qk_norm != nn::QkNorm::kNone) {
      const bool wide = c_.qk_norm == nn::QkNorm::kWide;
      Norm(&Names::q_norm, layer, wide ? c_.Hq * c_.D : c_.D);
      Norm(&Names::k_norm, layer, wide ? c_.Hkv * c_.D : c_.D);
    }
    if (c_.output_norms) Norm(&Names::attention_output_norm, layer, c_.C);
  }

  void ListMlp(int64_t layer) {
    if (c_.norms || c_.norm_after_sum) Norm(&Names::mlp_norm, layer, c_.C);
    for (const BlockLinear& linear : linears_) {
      if (linear.in_mlp) Linear(linear.name, layer, linear.rows, linear.cols, linear.bias);
    }
    if (c_.output_norms) Norm(&Names::mlp_output_norm, layer, c_.C);
  }

  // layer -1: the name stands outside of the layers.
  ModelTensor& Add(Pattern pattern, int64_t layer, const char* part, std::vector<int64_t> shape,
                   TensorRole role) {
    const auto name = [&](const Names& names) -> std::string {
      const std::string& module = names.*pattern;
      if (module.empty()) return "";
      return (layer < 0 ? module : Names::Layer(module, layer)) + part;
    };
    ModelTensor tensor;
    tensor.name = name(hf_);
    tensor.shape = std::move(shape);
    tensor.role = role;
    if (gguf_) tensor.gguf = name(*gguf_);
    tensors_.push_back(std::move(tensor));
    return tensors_.back();
  }
  void Table(Pattern pattern, int64_t rows, int64_t cols, TensorRole role) {
    Add(pattern, -1, ".weight", {rows, cols}, role);
  }
  void Norm(Pattern pattern, int64_t layer, int64_t size) {
    ModelTensor& gain = Add(pattern, layer, ".weight", {size}, TensorRole::kNorm);
    gain.offset = family_.norm_offset;
    if (c_.norm_bias) Add(pattern, layer, ".bias", {size}, TensorRole::kBias);
  }
  void Linear(Pattern pattern, int64_t layer, int64_t rows, int64_t cols, bool bias) {
    const bool transposed = c_.transposed && layer >= 0;
    const bool rotary = pattern == &Names::q || pattern == &Names::k;
    const int64_t pairs = rotary && family_.gguf_pairs ? c_.D : 0;
    const int64_t heads = pattern == &Names::qkv && c_.qkv == nn::QkvRows::kInterleaved ? c_.Hq : 0;
    ModelTensor& weight =
        Add(pattern, layer, ".weight",
            transposed ? std::vector<int64_t>{cols, rows} : std::vector<int64_t>{rows, cols},
            TensorRole::kLinear);
    weight.residual = pattern == &Names::o || pattern == &Names::down;
    weight.transposed = transposed;
    weight.pairs = pairs;
    weight.fused_heads = heads;
    if (!bias) return;
    ModelTensor& added = Add(pattern, layer, ".bias", {rows}, TensorRole::kBias);
    added.pairs = pairs;
    added.fused_heads = heads;
  }

  const Config& c_;
  const Names& hf_;
  const Family& family_;
  const Names* gguf_ = nullptr;
  const std::vector<BlockLinear> linears_ = BlockLinears(c_);
  std::vector<ModelTensor> tensors_;
};

}  // namespace

int64_t ModelTensor::cols() const {
  return io::ElementCount(std::span(shape).subspan(shape.size() < 2 ? 0 : 1));
}

int64_t ModelTensor::FolderPlace(int64_t place) const {
  if (pairs > 0) {
    const int64_t in_head = place % pairs;
    return place - in_head + in_head % 2 * (pairs / 2) + in_head / 2;
  }
  if (fused_heads > 0) {
    // Folder: (head, part, D). GGUF: (part, head, D).
    const int64_t D = shape[0] / (3 * fused_heads);
    const int64_t part = place / (fused_heads * D), head = place / D % fused_heads;
    return (head * 3 + part) * D + place % D;
  }
  return place;
}

int64_t ModelTensor::GgufPlace(int64_t place) const {
  if (pairs > 0) {
    const int64_t in_head = place % pairs;
    return place - in_head + in_head % (pairs / 2) * 2 + in_head / (pairs / 2);
  }
  if (fused_heads > 0) {
    const int64_t D = shape[0] / (3 * fused_heads);
    const int64_t head = place / (3 * D), part = place / D % 3;
    return (part * fused_heads + head) * D + place % D;
  }
  return place;
}

std::string_view GgufArchitecture(const Config& config) {
  // A GGUF file has the language model of those that read images too.
  const Family* family = FindFamily(config.family == "gemma3" ? "gemma3_text" : config.family);
  return family ? family->architecture : std::string_view();
}

std::string GgufFamilyNames() {
  std::string names;
  for (const Family& row : Families()) {
    if (!row.architecture.empty()) names += (names.empty() ? "" : ", ") + std::string(row.type);
  }
  return names;
}

std::vector<ModelTensor> ModelTensors(const Config& config, const Names* hf) {
  return Lister(config, hf ? *hf : HfNames(config)).List();
}

}  // namespace rung::model
