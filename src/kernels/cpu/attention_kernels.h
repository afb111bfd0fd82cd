// The vector parts of attention and of the head loss, one table per ISA.
#pragma once

#include <cstdint>

#include "base/half.h"
#include "kernels/cpu/isa.h"

namespace rung::cpu {

// What a running maximum starts at: below every finite score.
inline constexpr float kNoScore = -3.402823466e38f;

// A first seen column that no row reaches: nothing is hidden on the left.
inline constexpr int64_t kNothingHidden = -(int64_t{1} << 60);

// One step of a softmax whose scores arrive in blocks of columns. Row i sees the columns from hidden + i*step
// to below visible + i*step, of those in [0,width). For the seen ones, with a cap t and
// f(s) = t tanh(s/t), and f(s) = s without one,
//
//   p[i,c] = 2^(scale * (f(score[i,c]) - f(max[i]))),  sum[i] += sum_c p[i,c]
//
// with sum and row i of acc first rescaled when the maximum grows. Unseen p up to width are 0. Scores must be
// initialised from the multiple of 16 before the first one seen to that after the last; they may be
// overwritten. p may be score.
template <class T>
struct SoftmaxBlock {
  float* score = nullptr;
  int64_t ld_score = 0;
  int64_t rows = 0, width = 0;
  int64_t hidden = kNothingHidden, visible = 0, step = 0;
  bool slope = false;  // with a cap: p, when sum has it, is multiplied by f'(score) = 1 - tanh^2
  float cap = 0.0f;    // in units of score; 0: none
  float scale = 1.0f;  // positive; includes log2(e)
  T* p = nullptr;
  int64_t ldp = 0;
  float* max = nullptr;  // running, in units of score
  float* sum = nullptr;  // running, of unrounded p
  float* acc =
      nullptr;  // (rows, acc_cols) sums weighted by p, or nullptr; not read before the row sees a score
  int64_t ld_acc = 0, acc_cols = 0;
  int32_t* best = nullptr;  // index of the first largest score so far; nullptr: not wanted
  int32_t first = 0;        // index of column 0
};

// A tile of the backward pass, rows queries and columns keys. Row i sees the columns from hidden + i
// to below visible + i, of those in [0,width).
//   p = 2^(score_scale * f(score) - lse2[i]),  ds = scale * p * f'(score) * (dp - delta[i])
// with f as above; both 0 where unseen.
template <class T>
struct AttentionGradTile {
  const float *score = nullptr, *dp = nullptr;  // (rows, ld)
  T *p = nullptr, *ds = nullptr;                // (rows, ld), rounded last; may be score and dp
  int64_t ld = 0, rows = 0, width = 0;          // width, ld multiples of 16
  int64_t hidden = kNothingHidden, visible = 0;
  float cap = 0.0f;
  float score_scale = 0.0f, scale = 0.0f;
  const float* lse2 = nullptr;   // (rows), base 2
  const float* delta = nullptr;  // (rows)
};

template <class T>
struct AttentionKernels {
  void (*soften)(const SoftmaxBlock<T>& block);
  void (*soften_f32)(const SoftmaxBlock<float>& block);
  // out[i,:] = acc[i,:] / sum[i]
  void (*normalize)(const float* acc, int64_t ld_acc, const float* sum, int64_t rows, int64_t D, T* out,
                    int64_t ldo);
  // score[r,j] = q[r,:] . k[j,:], q (rows, D) dense, of values of T. Meanwhile `keys` rows of `next`, D wide
  // and ld_next apart, are fetched for the call after this one, unless it is nullptr.
  void (*scores)(const float* q, int64_t rows, const T* k, int64_t ldk, int64_t keys, int64_t D, float* score,
                 int64_t ld_score, const T* next, int64_t ld_next);
  // out[r,:] = sum_j p[r,j] v[j,:], out (rows, D) dense; next as above.
  void (*values)(const float* p, int64_t ldp, int64_t rows, const T* v, int64_t ldv, int64_t keys, int64_t D,
                 float* out, const T* next, int64_t ld_next);
  void (*grad_tile)(const AttentionGradTile<T>& tile);
};

// nullptr where PanelFor<T> is nullptr.
template <class T>
const AttentionKernels<T>* AttentionFor(Isa isa);

extern const AttentionKernels<float> kAttentionBaseline, kAttentionAvx2, kAttentionAvx512,
    kAttentionAvx512Bf16F32;
extern const AttentionKernels<Bf16> kAttentionAvx512Bf16;

}  // namespace rung::cpu
