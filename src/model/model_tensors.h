// The tensors of a model by name.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "io/safetensors.h"
#include "model/config.h"
#include "model/weights.h"

namespace rung::model {

enum class TensorRole : uint8_t { kEmbedding, kHead, kPosition, kNorm, kBias, kLinear };

// A table of tokens, of which a tied model has one for both.
inline bool IsTable(TensorRole role) { return role == TensorRole::kEmbedding || role == TensorRole::kHead; }

struct ModelTensor {
  std::string name;            // Hugging Face's
  std::vector<int64_t> shape;  // as a Hugging Face folder has it
  TensorRole role = TensorRole::kNorm;
  std::string gguf;       // its name in a GGUF file; empty: none is known
  bool residual = false;  // o and down, whose output is added to the residual stream

  // In what the numbers of a GGUF file differ from a folder's.
  int64_t pairs = 0;        // rows of heads of so many: a head's row i + pairs/2 stands behind its row i
  int64_t fused_heads = 0;  // rows of q, k, v of one head after the other: all of q stand before all of k
  bool transposed = false;  // the folder has it as (in, out)
  float offset = 0.0f;      // a GGUF file has this much more

  int64_t rows() const { return shape.size() < 2 ? 1 : shape[0]; }
  int64_t cols() const;
  int64_t gguf_rows() const { return transposed ? cols() : rows(); }
  int64_t gguf_cols() const { return transposed ? rows() : cols(); }
  // The name without ".weight".
  std::string module() const { return name.substr(0, name.rfind('.')); }
  std::string gguf_module() const { return gguf.substr(0, gguf.rfind('.')); }
  bool is_matrix() const { return shape.size() == 2; }
  // The folder's row, or the number of a vector, that stands at place `place` of a GGUF file; not of those
  // that are transposed.
  int64_t FolderPlace(int64_t place) const;
  // The inverse.
  int64_t GgufPlace(int64_t place) const;
  bool in_gguf_order() const { return pairs == 0 && fused_heads == 0 && !transposed; }
};

// llama.cpp's name of the family's architecture; empty: it has none.
std::string_view GgufArchitecture(const Config& config);
std::string GgufFamilyNames();  // "llama, mistral, ...": those that have one, for messages

// Every tensor that a model of this config (a folder's, see AsFolder) may have, in the order of a
// pass; last the head, which is absent or stands for the embedding where the two are tied. `hf`: how the
// folder spells its names; nullptr: as transformers does.
std::vector<ModelTensor> ModelTensors(const Config& config, const Names* hf = nullptr);

}  // namespace rung::model
