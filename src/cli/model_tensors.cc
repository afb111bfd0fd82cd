#include "cli/model_tensors.h"

#include <algorithm>

#include "model/weights.h"

namespace rung::cli {
namespace {

std::string BiasOf(const std::string& weight) { return weight.substr(0, weight.rfind('.')) + ".bias"; }

}  // namespace

int64_t ModelTensor::cols() const {
  int64_t count = 1;
  for (size_t i = shape.size() < 2 ? 0 : 1; i < shape.size(); ++i) count *= shape[i];
  return count;
}

std::vector<ModelTensor> ModelTensors(const model::Config& c) {
  using model::Names;
  using Pattern = std::string Names::*;
  const Names &hf = model::HfNames(), &gguf = model::GgufNames();
  const int64_t q = c.Hq * c.D, kv = c.Hkv * c.D;
  std::vector<ModelTensor> tensors = {{hf.embedding, {c.V, c.C}, TensorRole::kEmbedding, gguf.embedding}};
  for (int64_t layer = 0; layer < c.L; ++layer) {
    const auto norm = [&](Pattern pattern, int64_t size) {
      tensors.push_back(
          {hf.Layer(hf.*pattern, layer), {size}, TensorRole::kNorm, gguf.Layer(gguf.*pattern, layer)});
    };
    const auto linear = [&](Pattern pattern, int64_t rows, int64_t cols) {
      tensors.push_back({hf.Layer(hf.*pattern, layer),
                         {rows, cols},
                         TensorRole::kLinear,
                         gguf.Layer(gguf.*pattern, layer)});
      tensors.back().rotary = pattern == &Names::q || pattern == &Names::k;
      tensors.back().residual = pattern == &Names::o || pattern == &Names::down;
    };
    const auto bias = [&] {
      const ModelTensor& weight = tensors.back();
      tensors.push_back({BiasOf(weight.name), {weight.shape[0]}, TensorRole::kBias, BiasOf(weight.gguf)});
    };
    norm(&Names::attention_norm, c.C);
    linear(&Names::q, q, c.C);
    if (c.qkv_bias) bias();
    linear(&Names::k, kv, c.C);
    if (c.qkv_bias) bias();
    linear(&Names::v, kv, c.C);
    if (c.qkv_bias) bias();
    linear(&Names::o, c.C, q);
    if (c.qk_norm) {
      norm(&Names::q_norm, c.D);
      norm(&Names::k_norm, c.D);
    }
    norm(&Names::mlp_norm, c.C);
    if (c.gated_mlp) linear(&Names::gate, c.F, c.C);
    linear(&Names::up, c.F, c.C);
    linear(&Names::down, c.C, c.F);
  }
  tensors.push_back({hf.final_norm, {c.C}, TensorRole::kNorm, gguf.final_norm});
  tensors.push_back({hf.head, {c.V, c.C}, TensorRole::kHead, gguf.head});
  return tensors;
}

bool IsNf4(const io::Safetensors& folder, const std::string& name) {
  return folder.Find(name + std::string(kNf4State)) != nullptr;
}

bool IsNf4Part(const io::Safetensors& folder, const std::string& name) {
  return std::any_of(std::begin(kNf4Parts), std::end(kNf4Parts), [&](std::string_view part) {
    return name.ends_with(part) && IsNf4(folder, name.substr(0, name.size() - part.size()));
  });
}

}  // namespace rung::cli
