// A number array that is trained, or frozen when it has no gradient.
#pragma once

#include <string>

#include "tensor/tensor.h"

namespace rung::nn {

struct Param {
  std::string name;
  Tensor value;  // f32
  Tensor grad;   // the same shape; empty when frozen. Backward adds to it
  bool trainable() const { return !grad.empty(); }
};

}  // namespace rung::nn
