// Rows in less memory: eight bits a value, and sums of neighbouring columns. Include only from files of one
// ISA.
#pragma once

#include <cstdint>

#include "kernels/cpu/rows_sweep.h"

namespace rung::cpu {
namespace {

template <class V, class T>
inline V LargestSize(int64_t C, const T* x) {
  V top = V::Set(0.0f);
  Sweep<V>(C, [&](auto at) {
    const V v = at.Load(x);
    top = V::Max(top, V::Max(v, V::Sub(V::Set(0.0f), v)));
  });
  return top;
}

// Codes are converted by plain loops, which compilers make vectors of where the count is not a constant.
constexpr int64_t kCodeChunk = 256;

template <class V, class T>
void QuantizeRowsOf(const T* x, int64_t ldx, int64_t N, int64_t C, int8_t* q, int64_t ldq, float* scale) {
  for (int64_t n = 0; n < N; ++n, x += ldx, q += ldq) {
    // NaN where a value is not finite: 0 * inf, 0 * NaN. Max alone could lose a NaN.
    const float spoiled = SumOver<V>(C, [&](auto at) { return V::Mul(at.Load(x), V::Set(0.0f)); });
    const float step = LargestSize<V>(C, x).Largest() / 127.0f;
    // Below the least normal number 1/step may be infinite.
    if (spoiled != 0.0f || step < 1.17549435e-38f) {
      __builtin_memset(q, 0, static_cast<size_t>(C));
      scale[n] = spoiled;
      continue;
    }
    scale[n] = step;
    const V inverse = V::Set(1.0f / step);
    for (int64_t c = 0, count = 0; c < C; c += count) {
      count = C - c < kCodeChunk ? C - c : kCodeChunk;
      float part[kCodeChunk];
      const T* from = x + c;
      Sweep<V>(count, [&](auto at) { at.Store(V::Round(V::Mul(at.Load(from), inverse)), part); });
      for (int64_t i = 0; i < count; ++i) q[c + i] = static_cast<int8_t>(static_cast<int32_t>(part[i]));
    }
  }
}

template <class V, class T>
void DequantizeRowsOf(const int8_t* q, int64_t ldq, const float* scale, int64_t N, int64_t C, T* y,
                      int64_t ldy) {
  for (int64_t n = 0; n < N; ++n, q += ldq, y += ldy) {
    const V step = V::Set(scale[n]);
    for (int64_t c = 0, count = 0; c < C; c += count) {
      count = C - c < kCodeChunk ? C - c : kCodeChunk;
      float part[kCodeChunk];
      for (int64_t i = 0; i < count; ++i) part[i] = static_cast<float>(q[c + i]);
      T* to = y + c;
      Sweep<V>(count, [&](auto at) { at.Store(V::Mul(at.Load(part), step), to); });
    }
  }
}

// Windows are told by counting, quotient and remainder of s*C/S apart: a division each would cost more than
// the sum. A window has C/S (rounded down) to two more columns.
template <class T>
void PoolRows(const T* x, int64_t ldx, int64_t N, int64_t C, float* y, int64_t ldy, int64_t S) {
  const int64_t quotient = C / S, remainder = C % S;
  float shrink[3];
  for (int i = 0; i < 3; ++i) shrink[i] = 1.0f / __builtin_sqrtf(static_cast<float>(quotient + i));
  for (int64_t n = 0; n < N; ++n, x += ldx, y += ldy) {
    int64_t begin = 0, part = 0;
    for (int64_t s = 0; s < S; ++s) {
      int64_t next = begin + quotient;
      part += remainder;
      if (part >= S) ++next, part -= S;
      const int64_t end = part > 0 ? next + 1 : next;
      float sum = 0.0f;
      for (int64_t c = begin; c < end; ++c) sum += GetElement(x + c);
      y[s] = sum * shrink[end - begin - quotient];
      begin = next;
    }
  }
}

}  // namespace
}  // namespace rung::cpu
