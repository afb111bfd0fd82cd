// The tensors of a Hugging Face folder as a person counts them: a matrix with all that is kept beside its
// codes is one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/quantization.h"

namespace rung::model {

struct StoredTensor {
  std::string name;            // of its codes
  std::string format;          // "bf16", "nf4", "int4", ...; of what is not read the dtype
  std::vector<int64_t> shape;  // of the numbers; of 4-bit codes of bitsandbytes just how many
  uint64_t bytes = 0;          // in the file, scales and all included
  bool supported = true;
};

// In the order of names.
std::vector<StoredTensor> StoredTensors(const io::Safetensors& tensors, const Quantization& quantization);

}  // namespace rung::model
