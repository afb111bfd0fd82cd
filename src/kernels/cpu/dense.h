// Dense f32 products of the trainable side, by oneDNN. All matrices are row-major with a row stride ld >=
// their width. The same thread count gives the same bits; another one may add in another order. oneDNN picks
// its own instruction set.
#pragma once

#include <cstdint>

#include "kernels/cpu/isa.h"

namespace rung::cpu {

// y (+)= x w^T.   x (N,K), w (O,K), y (N,O). Old contents of y count only when add.
void Dense(const Context& context, const float* x, int64_t ldx, const float* w, int64_t ldw, int64_t N,
           int64_t K, int64_t O, bool add, float* y, int64_t ldy);

// dx (+)= dy w.   dy (N,O), w (O,K), dx (N,K)
void DenseGradInput(const Context& context, const float* dy, int64_t lddy, const float* w, int64_t ldw,
                    int64_t N, int64_t K, int64_t O, bool add, float* dx, int64_t lddx);

// dw (+)= dy^T x.   dy (N,O), x (N,K), dw (O,K)
void DenseGradWeight(const Context& context, const float* dy, int64_t lddy, const float* x, int64_t ldx,
                     int64_t N, int64_t K, int64_t O, bool add, float* dw, int64_t lddw);

}  // namespace rung::cpu
