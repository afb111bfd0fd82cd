// The trained pair of a low-rank adapter beside a frozen linear layer (LoRA, arXiv 2106.09685):
//
//   u = s drop(x) A^T        y += u B^T
//
// Backward:  du = s dy B     dB += dy^T u     dA += du^T drop(x)     dx += drop'(du A)
//
// Activations are in the compute type T of the frozen layer, the pair and its gradients in f32; products with
// A and B round them to T, as the frozen weights are.
#pragma once

#include "nn/param.h"
#include "ops/rows.h"

namespace rung::nn {

struct Lora {
  Param a;             // (R,K)
  Param b;             // (O,R), zero at start so that training begins at the frozen model
  float scale = 1.0f;  // alpha / R, or alpha / sqrt(R)
  float dropout = 0.0f;
  uint64_t seed = 0;    // of the dropout masks
  uint32_t stream = 0;  // the pair's own, among those of `seed`

  // y (N,O), T or f32. `draw` chooses the mask, 0 is evaluation: nothing is dropped. u (N,R) f32 is the
  // caller's: kept when Backward will follow.
  void Forward(Exec& ex, In x, uint64_t draw, Acc y, Out u) const;
  // dy (N,O) f32 and dyt the same in T; x as Forward saw it, and the same draw. dx (N,K) f32; nullptr: nobody
  // wants it.
  void Backward(Exec& ex, In dy, In dyt, In x, uint64_t draw, In u, const Acc* dx) const;

 private:
  ops::Dropout mask(uint64_t draw) const { return {draw > 0 ? dropout : 0.0f, seed, draw, stream}; }
};

}  // namespace rung::nn
