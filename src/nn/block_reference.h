// For tests: the decoder block as its papers write it, row by row in double precision, with the exact
// derivative towards one number (dual numbers). It reads the weights of an nn::DecoderBlock and shares no
// code with it.
#pragma once

#include <vector>

#include "nn/block.h"

namespace rung::nn::reference {

struct Rotation {
  int64_t rotary = 0;
  bool half = true;
  double theta = 10000.0;
};

// Packed sequences: sequence s is rows [starts[s], starts[s+1]) of x (N,C).
std::vector<double> Forward(const DecoderBlock& block, const BlockLoras& loras, const Rotation& rotation,
                            const Tensor& x, const std::vector<int64_t>& starts);

// The derivative of sum(dy * y) towards every `step`-th number of `at`: x, or a parameter.
std::vector<double> Gradient(const DecoderBlock& block, const BlockLoras& loras, const Rotation& rotation,
                             const Tensor& x, const std::vector<int64_t>& starts,
                             const std::vector<float>& dy, const Tensor& at, int64_t step);

}  // namespace rung::nn::reference
