// Matrix products: with a frozen matrix in any storage format, and with trainable f32 weights.
#pragma once

#include <span>

#include "exec/exec.h"
#include "format/format.h"

namespace rung::ops {

// Where one frozen product goes, in T or f32.
struct FrozenProduct {
  const format::Matrix* weight = nullptr;  // (O,K)
  const float* bias = nullptr;             // (O) or nullptr
  Tensor out;                              // (N,O)
  bool add = false;                        // out += instead of out =, with the sum in f32
};

// An f32 tensor (O,K), contiguous, as a matrix in storage format f32: so that a trained factor goes through
// the products of frozen matrices.
format::Matrix AsMatrix(const Tensor& weight);

// out = x W^T + bias for several matrices that share x (N,K) T. One launch. T = bf16 and odd K: x has a
// column more in memory and it is zero, for products read pairs.
// With ex.cpu().int8, many rows and a W that is not stored in f32 (a trained factor is): in 8 bits,
// kernels/cpu/int8.h. The gradient is that of the product in T.
void ProjectFrozen(Exec& ex, In x, std::span<const FrozenProduct> products);

// dx = or += dy W for a frozen W (O,K): the gradient of ProjectFrozen's input. dy (N,O) T, dx (N,K) f32.
void ProjectFrozenGradInput(Exec& ex, In dy, const format::Matrix& weight, Out dx);
void ProjectFrozenGradInput(Exec& ex, In dy, const format::Matrix& weight, Acc dx);

// The three products of a trainable layer y = x W^T, W (O,K). f32.
void Project(Exec& ex, In x, In weight, Out y);
void Project(Exec& ex, In x, In weight, Acc y);
void ProjectGradInput(Exec& ex, In dy, In weight, Out dx);  // dx = dy W
void ProjectGradInput(Exec& ex, In dy, In weight, Acc dx);
void ProjectGradWeight(Exec& ex, In dy, In x, Acc dweight);  // dW += dy^T x

// out (O,K) f32 = the matrix.
void Decode(Exec& ex, const format::Matrix& matrix, Out out);

// x[n,:] = row ids[n] of the embedding (V,C), f32. ids (1,N) i32.
void Embed(Exec& ex, In ids, const format::Matrix& embedding, float scale, Out x);

// Cross-entropy of x (M,C) T over the frozen head (V,C); logits never exist. Odd C: as for ProjectFrozen.
//   target (1,M) i32; loss (1,M) nats
//   dx (M,C) f32: gradient of the sum of losses; nullptr when no backward will follow
//   best (1,M) i32: the most probable token; nullptr when not wanted
//   cap: logits become cap * tanh(logit / cap); 0: as they are
void HeadLoss(Exec& ex, In x, const format::Matrix& head, float cap, In target, Out loss, const Out* dx,
              const Out* best);

}  // namespace rung::ops
