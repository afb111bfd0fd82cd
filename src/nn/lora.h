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

// Which mask of dropout: number 0 is evaluation, nothing is dropped. A call on a tile of a layer's rows says
// which row of the layer is its first, so that tiles drop what the whole would.
struct Draw {
  uint64_t number = 0;
  int64_t first_row = 0;
};

struct Lora {
  Param a;             // (R,K)
  Param b;             // (O,R), zero at start so that training begins at the frozen model
  float scale = 1.0f;  // alpha / R, or alpha / sqrt(R)
  float dropout = 0.0f;
  uint64_t seed = 0;    // of the dropout masks
  uint32_t stream = 0;  // the pair's own, among those of `seed`

  // y (N,O), T or f32. u (N,R) f32 is the caller's: kept when Backward will follow.
  void Forward(Exec& ex, In x, Draw draw, Acc y, Out u) const;
  // dy (N,O) f32 and dyt the same in T; x as Forward saw it, and the same draw. dx (N,K) f32; nullptr: nobody
  // wants it.
  void Backward(Exec& ex, In dy, In dyt, In x, Draw draw, In u, const Acc* dx) const;

 private:
  ops::Dropout mask(Draw draw) const {
    return {draw.number > 0 ? dropout : 0.0f, seed, draw.number, stream, draw.first_row};
  }
};

}  // namespace rung::nn
