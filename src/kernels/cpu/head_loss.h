// Cross-entropy over a frozen head in one pass over the vocabulary: a flash attention of the hidden states
// over the head's rows, with online rescaling. Logits (M,V) never exist.
//
//   logit[m,v] = x[m] . W[v], with a cap c: c * tanh(x[m] . W[v] / c)
//   loss[m] = log sum_v exp(logit[m,v]) - logit[m, target[m]]
//   dx[m] = sum_v (softmax(logit[m])[v] - [v == target[m]]) c'[m,v] W[v],   c' = 1 - (logit/c)^2, 1 without
//   cap
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/half.h"
#include "format/format.h"
#include "kernels/cpu/isa.h"

namespace rung::cpu {

// x (M,C) T; head (V,C); cap 0: none; target (M) in [0,V). loss (M) f32, nats. dx (M,C) f32, overwritten;
// nullptr: loss only. best (M): the index of the largest logit, lowest index first among equals; nullptr: not
// wanted. A logit that is NaN makes the row's loss NaN; best is then the index of any entry, 0 where all are
// NaN. Each thread takes a share of the vocabulary; partial results are merged in thread order, so the
// same thread count gives the same bits.
template <class T>
void HeadLoss(const Context& context, const T* x, int64_t ldx, int64_t M, const format::Matrix& head,
              float cap, const int32_t* target, float* loss, float* dx, int64_t lddx, int32_t* best,
              std::byte* scratch);
size_t HeadLossScratch(const Context& context, size_t element_size, int64_t M, int64_t C, bool with_gradient);

}  // namespace rung::cpu
