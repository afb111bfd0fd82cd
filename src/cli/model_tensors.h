// The tensors of a model by name, and what bitsandbytes keeps beside those of an NF4 folder.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "model/config.h"

namespace rung::cli {

enum class TensorRole : uint8_t { kEmbedding, kHead, kNorm, kBias, kLinear };

struct ModelTensor {
  std::string name;  // Hugging Face's
  std::vector<int64_t> shape;
  TensorRole role = TensorRole::kNorm;
  std::string gguf;       // its name in a GGUF file
  bool rotary = false;    // rows of q or k: the heads that RoPE turns
  bool residual = false;  // o and down, whose output is added to the residual stream
  int64_t rows() const { return shape.size() < 2 ? 1 : shape[0]; }
  int64_t cols() const;
};

// Every tensor that a model of this config may have, in the order of a pass; last the head, which is absent
// or stands for the embedding where the two are tied.
std::vector<ModelTensor> ModelTensors(const model::Config& config);

// The JSON of an NF4 weight, which only such weights have.
inline constexpr std::string_view kNf4State = ".quant_state.bitsandbytes__nf4";
// All that is kept beside the codes of an NF4 weight.
inline constexpr std::string_view kNf4Parts[] = {".absmax", ".quant_map", ".nested_absmax",
                                                 ".nested_quant_map", kNf4State};

// `name` is the codes of an NF4 weight.
bool IsNf4(const io::Safetensors& folder, const std::string& name);
// `name` is kept beside the codes of one.
bool IsNf4Part(const io::Safetensors& folder, const std::string& name);

}  // namespace rung::cli
