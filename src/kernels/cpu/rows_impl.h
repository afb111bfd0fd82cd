// The kernels of rows_kernels.h as templates over a Vec, and the table made of them. Include only from files
// of one ISA.
#pragma once

#include <cstdint>

#include "kernels/cpu/rows_activation.h"
#include "kernels/cpu/rows_dropout.h"
#include "kernels/cpu/rows_kernels.h"
#include "kernels/cpu/rows_norm.h"
#include "kernels/cpu/rows_store.h"
#include "kernels/cpu/rows_sweep.h"

namespace rung::cpu {
namespace {

template <class V, class T>
void RopeRows(T* x, int64_t ldx, const int32_t* position, const float* cos, const float* sin, int64_t ldt,
              int64_t N, int64_t heads, int64_t step, int64_t rotary, bool half, int direction) {
  const int64_t pairs = rotary / 2;
  const float sign = direction < 0 ? -1.0f : 1.0f;
  for (int64_t n = 0; n < N; ++n) {
    const float* c = cos + position[n] * ldt;
    const float* s = sin + position[n] * ldt;
    for (int64_t h = 0; h < heads; ++h) {
      T* a = x + n * ldx + h * step;
      if (half) {
        T* b = a + pairs;
        Sweep<V>(pairs, [&](auto at) {
          const V u = at.Load(a), v = at.Load(b), cn = at.Load(c), sn = V::Mul(at.Load(s), V::Set(sign));
          at.Store(V::Sub(V::Mul(u, cn), V::Mul(v, sn)), a);
          at.Store(V::Fma(v, cn, V::Mul(u, sn)), b);
        });
        continue;
      }
      for (int64_t i = 0; i < pairs; ++i) {
        const float u = GetElement(a + 2 * i), v = GetElement(a + 2 * i + 1), sn = sign * s[i];
        SetElement(a + 2 * i, u * c[i] - v * sn);
        SetElement(a + 2 * i + 1, v * c[i] + u * sn);
      }
    }
  }
}

template <class V, class Act, class T>
void ActivateWith(const T* gate, int64_t ldg, const T* up, int64_t ldu, int64_t N, int64_t F, T* y,
                  int64_t ldy) {
  for (int64_t n = 0; n < N; ++n, gate += ldg, y += ldy) {
    if (up == nullptr) {
      Sweep<V>(F, [&](auto at) { at.Store(Act::Value(at.Load(gate)), y); });
    } else {
      const T* u = up + n * ldu;
      Sweep<V>(F, [&](auto at) { at.Store(V::Mul(Act::Value(at.Load(gate)), at.Load(u)), y); });
    }
  }
}

template <class V, class T>
void ActivateRows(Activation activation, const T* gate, int64_t ldg, const T* up, int64_t ldu, int64_t N,
                  int64_t F, T* y, int64_t ldy) {
  switch (activation) {
    case Activation::kSilu:
      return ActivateWith<V, Silu<V>>(gate, ldg, up, ldu, N, F, y, ldy);
    case Activation::kGelu:
      return ActivateWith<V, Gelu<V>>(gate, ldg, up, ldu, N, F, y, ldy);
    case Activation::kGeluTanh:
      return ActivateWith<V, GeluTanh<V>>(gate, ldg, up, ldu, N, F, y, ldy);
    case Activation::kRelu:
      return ActivateWith<V, Relu<V>>(gate, ldg, up, ldu, N, F, y, ldy);
  }
}

template <class V, class Act, class T>
void ActivateGradWith(const float* dy, int64_t lddy, const T* gate, int64_t ldg, const T* up, int64_t ldu,
                      int64_t N, int64_t F, float* dgate, int64_t lddg, float* dup, int64_t lddu) {
  for (int64_t n = 0; n < N; ++n, dy += lddy, gate += ldg, dgate += lddg) {
    if (up == nullptr) {
      Sweep<V>(F, [&](auto at) { at.Store(V::Mul(at.Load(dy), Act::Both(at.Load(gate)).slope), dgate); });
    } else {
      const T* u = up + n * ldu;
      float* du = dup + n * lddu;
      Sweep<V>(F, [&](auto at) {
        const V d = at.Load(dy), scale = at.Load(u);
        const ValueAndSlope<V> act = Act::Both(at.Load(gate));
        at.Store(V::Mul(V::Mul(d, scale), act.slope), dgate);
        at.Store(V::Mul(d, act.value), du);
      });
    }
  }
}

template <class V, class T>
void ActivateGradRows(Activation activation, const float* dy, int64_t lddy, const T* gate, int64_t ldg,
                      const T* up, int64_t ldu, int64_t N, int64_t F, float* dgate, int64_t lddg, float* dup,
                      int64_t lddu) {
  switch (activation) {
    case Activation::kSilu:
      return ActivateGradWith<V, Silu<V>>(dy, lddy, gate, ldg, up, ldu, N, F, dgate, lddg, dup, lddu);
    case Activation::kGelu:
      return ActivateGradWith<V, Gelu<V>>(dy, lddy, gate, ldg, up, ldu, N, F, dgate, lddg, dup, lddu);
    case Activation::kGeluTanh:
      return ActivateGradWith<V, GeluTanh<V>>(dy, lddy, gate, ldg, up, ldu, N, F, dgate, lddg, dup, lddu);
    case Activation::kRelu:
      return ActivateGradWith<V, Relu<V>>(dy, lddy, gate, ldg, up, ldu, N, F, dgate, lddg, dup, lddu);
  }
}

template <class V, class TIn, class TOut>
void ConvertRows(const TIn* x, int64_t ldx, int64_t N, int64_t C, TOut* y, int64_t ldy) {
  for (int64_t n = 0; n < N; ++n, x += ldx, y += ldy) {
    if constexpr (sizeof(TIn) == sizeof(TOut)) {
      // Bytes, not values: a round trip through f32 may flush or quieten.
      if (static_cast<const void*>(x) != static_cast<const void*>(y)) {
        __builtin_memcpy(y, x, static_cast<size_t>(C) * sizeof(TOut));
      }
    } else {
      Sweep<V>(C, [&](auto at) { at.Store(at.Load(x), y); });
    }
  }
}

template <class V, class T>
void StandardizeRows(const T* x, int64_t ldx, bool normalize, float eps, const float* mean,
                     const float* inv_deviation, int64_t N, int64_t C, float* y, int64_t ldy) {
  for (int64_t n = 0; n < N; ++n, x += ldx, y += ldy) {
    const V r = V::Set(normalize ? 1.0f / __builtin_sqrtf(MeanSquare<V>(x, C) + eps) : 1.0f);
    if (mean == nullptr) {
      Sweep<V>(C, [&](auto at) { at.Store(V::Mul(at.Load(x), r), y); });
    } else {
      Sweep<V>(C, [&](auto at) {
        at.Store(V::Mul(V::Sub(V::Mul(at.Load(x), r), at.Load(mean)), at.Load(inv_deviation)), y);
      });
    }
  }
}

template <class V, class T>
void RowRmsRows(const T* x, int64_t ldx, int64_t N, int64_t C, float* rms) {
  for (int64_t n = 0; n < N; ++n) rms[n] = __builtin_sqrtf(MeanSquare<V>(x + n * ldx, C));
}

template <class V, class T>
void MomentsColumns(const T* x, int64_t ldx, bool normalize, float eps, const float* row_rms, int64_t N,
                    int64_t C, double* sum, double* sum_squares) {
  for (int64_t n = 0; n < N; ++n, x += ldx) {
    const float r = normalize ? 1.0f / __builtin_sqrtf(row_rms[n] * row_rms[n] + eps) : 1.0f;
    for (int64_t c = 0; c < C; ++c) {
      const double y = static_cast<double>(GetElement(x + c) * r);
      sum[c] += y;
      sum_squares[c] += y * y;
    }
  }
}

template <class V>
void AxpbyRows(float a, const float* x, int64_t ldx, float b, float* y, int64_t ldy, int64_t N, int64_t C) {
  const V va = V::Set(a), vb = V::Set(b);
  for (int64_t n = 0; n < N; ++n, x += ldx, y += ldy) {
    if (b == 0.0f) {
      Sweep<V>(C, [&](auto at) { at.Store(V::Mul(va, at.Load(x)), y); });
    } else {
      Sweep<V>(C, [&](auto at) { at.Store(V::Fma(va, at.Load(x), V::Mul(vb, at.Load(y))), y); });
    }
  }
}

template <class V>
void CapRows(float cap, float* x, int64_t ldx, int64_t N, int64_t C) {
  const V most = V::Set(cap), inverse = V::Set(1.0f / cap);
  for (int64_t n = 0; n < N; ++n, x += ldx) {
    Sweep<V>(C, [&](auto at) { at.Store(V::Mul(most, Tanh(V::Mul(at.Load(x), inverse))), x); });
  }
}

// mu of a place: one value for all channels, or each its own.
template <class V, class At>
inline V MixAt(const float* mu, bool per_channel, At at) {
  return per_channel ? at.Load(mu) : V::Set(mu[0]);
}

template <class V>
void MixRows(const float* mu, bool per_channel, const float* a, const float* b, int64_t ld, int64_t N,
             int64_t C, float* out) {
  for (int64_t n = 0; n < N; ++n, a += ld, b += ld, out += ld) {
    Sweep<V>(C, [&](auto at) {
      const V m = MixAt<V>(mu, per_channel, at);
      at.Store(V::Fma(m, at.Load(a), V::Mul(V::Sub(V::Set(1.0f), m), at.Load(b))), out);
    });
  }
}

template <class V>
double MixGradRows(const float* mu, bool per_channel, const float* dout, const float* a, const float* b,
                   int64_t ld, int64_t N, int64_t C, float* da, float* db) {
  double sum = 0.0;
  for (int64_t n = 0; n < N; ++n, dout += ld, a += ld, b += ld, da += ld, db += ld) {
    // Before the stores: da may be dout or a, db may be b.
    if (!per_channel) {
      sum += static_cast<double>(
          SumOver<V>(C, [&](auto at) { return V::Mul(at.Load(dout), V::Sub(at.Load(a), at.Load(b))); }));
    }
    Sweep<V>(C, [&](auto at) {
      const V m = MixAt<V>(mu, per_channel, at), d = at.Load(dout);
      at.Store(V::Mul(m, d), da);
      at.Store(V::Mul(V::Sub(V::Set(1.0f), m), d), db);
    });
  }
  return sum;
}

template <class V>
void MixDmuColumns(const float* dout, const float* a, const float* b, int64_t ld, int64_t N, int64_t C,
                   float* dmu) {
  SumColumns<V>(
      N, C,
      [&](int64_t n, auto at) {
        return V::Mul(at.Load(dout + n * ld), V::Sub(at.Load(a + n * ld), at.Load(b + n * ld)));
      },
      dmu);
}

template <class V>
void SumRowsColumns(const float* dy, int64_t lddy, int64_t N, int64_t C, float* bias) {
  SumColumns<V>(
      N, C, [&](int64_t n, auto at) { return at.Load(dy + n * lddy); }, bias);
}

template <class V>
void AddBiasRows(const float* bias, int64_t N, int64_t C, float* y, int64_t ldy) {
  for (int64_t n = 0; n < N; ++n, y += ldy) {
    Sweep<V>(C, [&](auto at) { at.Store(V::Add(at.Load(y), at.Load(bias)), y); });
  }
}

// Plain C++: there is no vector of f64 in vec.h, and compilers make one of these 16 sums.
template <class V>
double SumSquaresOf(const float* x, int64_t n) {
  double sum[16] = {};
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    for (int64_t k = 0; k < 16; ++k) {
      const double d = static_cast<double>(x[i + k]);
      sum[k] += d * d;
    }
  }
  for (int64_t k = 0; i < n; ++i, ++k) sum[k] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double total = 0.0;
  for (const double s : sum) total += s;
  return total;
}

template <class V>
void AddSquaresElements(const float* x, int64_t n, float* y) {
  Sweep<V>(n, [&](auto at) {
    const V v = at.Load(x);
    at.Store(V::Add(at.Load(y), V::Mul(v, v)), y);
  });
}

template <class V>
void AdamWElements(const AdamW& step, const float* gradient, int64_t n, float* weight, float* m, float* v) {
  const V scale = V::Set(step.gradient_scale), beta1 = V::Set(step.beta1), beta2 = V::Set(step.beta2);
  const V rest1 = V::Set(1.0f - step.beta1), rest2 = V::Set(1.0f - step.beta2);
  // lr * (m/bias1) / (sqrt(v/bias2) + eps) = (lr/bias1) m / (sqrt(v) / sqrt(bias2) + eps)
  const V rate = V::Set(-step.learning_rate / step.bias1);
  const V root = V::Set(1.0f / __builtin_sqrtf(step.bias2)), epsilon = V::Set(step.epsilon);
  const V shrink = V::Set(-step.learning_rate * step.decay);
  Sweep<V>(n, [&](auto at) {
    const V g = V::Mul(at.Load(gradient), scale), w = at.Load(weight);
    const V m1 = V::Fma(beta1, at.Load(m), V::Mul(rest1, g));
    const V v1 = V::Fma(beta2, at.Load(v), V::Mul(rest2, V::Mul(g, g)));
    const V change = V::Div(V::Mul(rate, m1), V::Fma(V::Sqrt(v1), root, epsilon));
    at.Store(m1, m);
    at.Store(v1, v);
    at.Store(V::Add(w, V::Fma(shrink, w, change)), weight);
  });
}

template <class V, class T>
constexpr void FillTyped(TypedRowsKernels<T>& kernels) {
  kernels.rms_norm_dx = RmsNormDxRows<V, T>;
  kernels.rms_norm_dgain = RmsNormDgainColumns<V, T>;
  kernels.layer_norm_dx = LayerNormDxRows<V, T>;
  kernels.layer_norm_dgain = LayerNormDgainColumns<V, T>;
  kernels.rope = RopeRows<V, T>;
  kernels.activate = ActivateRows<V, T>;
  kernels.activate_grad = ActivateGradRows<V, T>;
  kernels.standardize = StandardizeRows<V, T>;
  kernels.row_rms = RowRmsRows<V, T>;
  kernels.moments = MomentsColumns<V, T>;
  kernels.quantize = QuantizeRowsOf<V, T>;
  kernels.dequantize = DequantizeRowsOf<V, T>;
  kernels.pool = PoolRows<T>;
  kernels.drop = DropRows<V, T, false>;
}

template <class V>
constexpr RowsKernels MakeRowsKernels() {
  RowsKernels k{};
  k.RmsNormKernel<float, float>::rms_norm = RmsNormRows<V, float, float>;
  k.RmsNormKernel<float, Bf16>::rms_norm = RmsNormRows<V, float, Bf16>;
  k.RmsNormKernel<Bf16, Bf16>::rms_norm = RmsNormRows<V, Bf16, Bf16>;
  k.LayerNormKernel<float, float>::layer_norm = LayerNormRows<V, float, float>;
  k.LayerNormKernel<float, Bf16>::layer_norm = LayerNormRows<V, float, Bf16>;
  k.LayerNormKernel<Bf16, Bf16>::layer_norm = LayerNormRows<V, Bf16, Bf16>;
  k.ConvertKernel<float, float>::convert = ConvertRows<V, float, float>;
  k.ConvertKernel<float, Bf16>::convert = ConvertRows<V, float, Bf16>;
  k.ConvertKernel<Bf16, float>::convert = ConvertRows<V, Bf16, float>;
  k.ConvertKernel<Bf16, Bf16>::convert = ConvertRows<V, Bf16, Bf16>;
  FillTyped<V, float>(k);
  FillTyped<V, Bf16>(k);
  k.drop_add = DropRows<V, float, true>;
  k.axpby = AxpbyRows<V>;
  k.cap = CapRows<V>;
  k.mix = MixRows<V>;
  k.mix_grad = MixGradRows<V>;
  k.mix_dmu = MixDmuColumns<V>;
  k.sum_rows = SumRowsColumns<V>;
  k.add_bias = AddBiasRows<V>;
  k.sum_squares = SumSquaresOf<V>;
  k.add_squares = AddSquaresElements<V>;
  k.adamw = AdamWElements<V>;
  return k;
}

}  // namespace
}  // namespace rung::cpu
