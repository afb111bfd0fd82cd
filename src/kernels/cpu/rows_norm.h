// RMS norm and layer norm, forward and backward. Include only from files of one ISA.
#pragma once

#include <cstdint>

#include "kernels/cpu/rows_sweep.h"

namespace rung::cpu {
namespace {

template <class V, class T>
inline float MeanSquare(const T* x, int64_t C) {
  const float sum = SumOver<V>(C, [&](auto at) {
    const V v = at.Load(x);
    return V::Mul(v, v);
  });
  return sum / static_cast<float>(C);
}

template <class V, class TIn, class TOut>
void RmsNormRows(const TIn* x, int64_t ldx, const float* gain, float gain_offset, float eps, int64_t N,
                 int64_t C, TOut* y, int64_t ldy, float* rstd) {
  const V offset = V::Set(gain_offset);
  for (int64_t n = 0; n < N; ++n, x += ldx, y += ldy) {
    const float r = 1.0f / __builtin_sqrtf(MeanSquare<V>(x, C) + eps);
    const V scale = V::Set(r);
    Sweep<V>(C,
             [&](auto at) { at.Store(V::Mul(V::Mul(at.Load(x), scale), V::Add(at.Load(gain), offset)), y); });
    if (rstd != nullptr) rstd[n] = r;
  }
}

template <class V, class T>
void RmsNormDxRows(const float* dy, int64_t lddy, const T* x, int64_t ldx, const float* gain,
                   float gain_offset, const float* rstd, int64_t N, int64_t C, bool add, float* dx,
                   int64_t lddx) {
  const V offset = V::Set(gain_offset);
  for (int64_t n = 0; n < N; ++n, dy += lddy, x += ldx, dx += lddx) {
    const float sum = SumOver<V>(
        C, [&](auto at) { return V::Mul(V::Mul(at.Load(dy), V::Add(at.Load(gain), offset)), at.Load(x)); });
    // rstd (g dy - x rstd^2 mean(g dy x))
    const V r = V::Set(rstd[n]);
    const V pull = V::Set(-rstd[n] * rstd[n] * rstd[n] * (sum / static_cast<float>(C)));
    Sweep<V>(C, [&](auto at) {
      const V g = V::Mul(at.Load(dy), V::Add(at.Load(gain), offset));
      V d = V::Fma(g, r, V::Mul(at.Load(x), pull));
      if (add) d = V::Add(d, at.Load(dx));
      at.Store(d, dx);
    });
  }
}

template <class V, class T>
void RmsNormDgainColumns(const float* dy, int64_t lddy, const T* x, int64_t ldx, const float* rstd, int64_t N,
                         int64_t C, float* dgain) {
  SumColumns<V>(
      N, C,
      [&](int64_t n, auto at) {
        return V::Mul(at.Load(dy + n * lddy), V::Mul(at.Load(x + n * ldx), V::Set(rstd[n])));
      },
      dgain);
}

template <class V, class T>
inline float MeanOf(const T* x, int64_t C) {
  return SumOver<V>(C, [&](auto at) { return at.Load(x); }) / static_cast<float>(C);
}

// The mean is held as mean + rest: rounded to one float it would shift every x - mean by up to
// |mean| * 2^-24, and squares of values far from 0 would cancel in a one-pass variance.
template <class V, class TIn, class TOut>
void LayerNormRows(const TIn* x, int64_t ldx, const float* gain, const float* bias, float eps, int64_t N,
                   int64_t C, TOut* y, int64_t ldy, float* rstd, float* mean) {
  const float inv_C = 1.0f / static_cast<float>(C);
  for (int64_t n = 0; n < N; ++n, x += ldx, y += ldy) {
    const float about = MeanOf<V>(x, C);
    const V middle = V::Set(about);
    const float rest = inv_C * SumOver<V>(C, [&](auto at) { return at.Inside(V::Sub(at.Load(x), middle)); });
    const V shift = V::Set(rest);
    const float variance = inv_C * SumOver<V>(C, [&](auto at) {
                             const V d = at.Inside(V::Sub(V::Sub(at.Load(x), middle), shift));
                             return V::Mul(d, d);
                           });
    const float r = 1.0f / __builtin_sqrtf(variance + eps);
    const V scale = V::Set(r);
    const auto unit = [&](auto at) { return V::Mul(V::Sub(V::Sub(at.Load(x), middle), shift), scale); };
    if (bias == nullptr) {
      Sweep<V>(C, [&](auto at) { at.Store(V::Mul(unit(at), at.Load(gain)), y); });
    } else {
      Sweep<V>(C, [&](auto at) { at.Store(V::Fma(unit(at), at.Load(gain), at.Load(bias)), y); });
    }
    if (rstd != nullptr) {
      rstd[n] = r;
      mean[n] = about + rest;
    }
  }
}

template <class V, class T>
void LayerNormDxRows(const float* dy, int64_t lddy, const T* x, int64_t ldx, const float* gain,
                     const float* rstd, const float* mean, int64_t N, int64_t C, bool add, float* dx,
                     int64_t lddx) {
  const float inv_C = 1.0f / static_cast<float>(C);
  for (int64_t n = 0; n < N; ++n, dy += lddy, x += ldx, dx += lddx) {
    const V middle = V::Set(mean[n]), r = V::Set(rstd[n]);
    const float sum = SumOver<V>(C, [&](auto at) { return V::Mul(at.Load(dy), at.Load(gain)); });
    const float along = SumOver<V>(
        C, [&](auto at) { return V::Mul(V::Mul(at.Load(dy), at.Load(gain)), V::Sub(at.Load(x), middle)); });
    // rstd (g dy - mean(g dy) - (x - mean) rstd^2 mean(g dy (x - mean)))
    const V level = V::Set(sum * inv_C), pull = V::Set(-rstd[n] * rstd[n] * rstd[n] * (along * inv_C));
    Sweep<V>(C, [&](auto at) {
      const V g = V::Sub(V::Mul(at.Load(dy), at.Load(gain)), level);
      V d = V::Fma(g, r, V::Mul(V::Sub(at.Load(x), middle), pull));
      if (add) d = V::Add(d, at.Load(dx));
      at.Store(d, dx);
    });
  }
}

template <class V, class T>
void LayerNormDgainColumns(const float* dy, int64_t lddy, const T* x, int64_t ldx, const float* rstd,
                           const float* mean, int64_t N, int64_t C, float* dgain) {
  SumColumns<V>(
      N, C,
      [&](int64_t n, auto at) {
        const V unit = V::Mul(V::Sub(at.Load(x + n * ldx), V::Set(mean[n])), V::Set(rstd[n]));
        return V::Mul(at.Load(dy + n * lddy), unit);
      },
      dgain);
}

}  // namespace
}  // namespace rung::cpu
