// Causal attention over packed sequences, in blocks with an online softmax: no (T,T) matrix is ever held.
//
//   s[i,j] = scale * q[i] . k[j], with a cap c: c * tanh(s[i,j] / c)
//   p[i,j] = softmax_j(s[i,j]),  out[i] = sum_j p[i,j] v[j]
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/half.h"
#include "kernels/cpu/isa.h"

namespace rung::cpu {

// One sequence. Query rows [q_begin, q_begin+q_count) are its last q_count positions; keys and values are
// rows [kv_begin, kv_begin+kv_count) of k and v. Query i sees keys up to and including kv_count - q_count +
// i. In training both ranges are the same rows of the batch; in generation keys come from a cache.
struct AttentionSpan {
  int64_t q_begin = 0, q_count = 0, kv_begin = 0, kv_count = 0;
};

struct AttentionShape {
  int64_t query_heads = 0, kv_heads = 0;  // query_heads is a multiple of kv_heads
  int64_t head_dim = 0;  // even; 32, 64, 128 are the shapes that pay the bills, any even number works
  float scale = 0.0f;    // usually 1/sqrt(head_dim)
  // A query sees itself and the window - 1 keys before it; 0: all before it.
  int64_t window = 0;
  float score_cap = 0.0f;  // 0: none
  // Elements from one head to the next in q, and in k and v; 0: head_dim. (out is always dense.) Of a fused
  // layer whose rows are q, k, v of head 0, then of head 1, it is 3*head_dim.
  int64_t q_step = 0, kv_step = 0;
};

// q (N, Hq*D), k and v (Nkv, Hkv*D), out (N, Hq*D), all T with row strides; lse (N, Hq) f32 or nullptr:
// the natural log of the softmax denominator, scaled scores included, kept for the backward pass.
template <class T>
void AttentionForward(const Context& context, const AttentionShape& shape,
                      std::span<const AttentionSpan> spans, const T* q, int64_t ldq, const T* k, int64_t ldk,
                      const T* v, int64_t ldv, T* out, int64_t ldo, float* lse, std::byte* scratch);
// Does not shrink when a span gets more keys: what is planned for a full cache is enough before it is full.
size_t AttentionForwardScratch(const Context& context, const AttentionShape& shape,
                               std::span<const AttentionSpan> spans, size_t element_size);

// Gradients of the above, probabilities recomputed from lse (flash attention 2, arXiv 2307.08691):
//   D[i] = dout[i] . out[i],  ds[i,j] = p[i,j] (dout[i] . v[j] - D[i])
//   dq[i] = scale * sum_j ds[i,j] k[j],  dk[j] = scale * sum_i ds[i,j] q[i],  dv[j] = sum_i p[i,j] dout[i]
// dq, dk, dv are overwritten and have the steps of q, k, v; with a cap ds is multiplied by 1 - (s/c)^2. Sums
// are f32, p and scale * ds are rounded to T before they are multiplied. Needs q_count == kv_count in every
// span. Deterministic for any thread count: every output row is summed by one thread in one order.
template <class T>
void AttentionBackward(const Context& context, const AttentionShape& shape,
                       std::span<const AttentionSpan> spans, const T* q, int64_t ldq, const T* k, int64_t ldk,
                       const T* v, int64_t ldv, const T* out, int64_t ldo, const T* dout, int64_t lddo,
                       const float* lse, float* dq, int64_t lddq, float* dk, int64_t lddk, float* dv,
                       int64_t lddv, std::byte* scratch);
size_t AttentionBackwardScratch(const Context& context, const AttentionShape& shape,
                                std::span<const AttentionSpan> spans, size_t element_size);

}  // namespace rung::cpu
