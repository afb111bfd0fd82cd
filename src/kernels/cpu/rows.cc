#include "kernels/cpu/rows.h"

#include <cmath>

#include "base/rng.h"
#include "base/threads.h"
#include "kernels/cpu/pieces.h"
#include "kernels/cpu/rows_kernels.h"

namespace rung::cpu {
namespace {

// Shares of columns are whole cache lines of f64, so that no two threads write the same one.
constexpr int64_t kColumnGrain = 16;
// A sum over everything is made of so many partial sums whatever the thread count. More threads would idle.
constexpr int kPartialSums = 256;

const RowsKernels& RowsFor(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kBaseline:
      return kRowsBaseline;
    case Isa::kAvx2:
      return kRowsAvx2;
    case Isa::kAvx512:
      return kRowsAvx512;
    case Isa::kAvx512Bf16:
      return kRowsAvx512Bf16;
  }
#endif
  static_cast<void>(isa);
  return kRowsBaseline;
}

// body(begin, end) on shares of [0,N).
template <class Body>
void OnRows(const Context& context, int64_t N, int64_t C, const Body& body) {
  const int threads = ThreadsFor(context, N * C);
  OnEachThread(threads, [&](int thread) {
    const Share rows = ShareOf(N, thread, threads);
    body(rows.begin, rows.end - rows.begin);
  });
}

// body(begin, count) on shares of the columns [0,C).
template <class Body>
void OnColumns(const Context& context, int64_t N, int64_t C, const Body& body) {
  const int threads = ThreadsFor(context, N * C);
  OnEachThread(threads, [&](int thread) {
    const Share columns = ShareOf(C, thread, threads, kColumnGrain);
    body(columns.begin, columns.end - columns.begin);
  });
}

// body(row, rows, column, columns) on shares of the elements: by rows, or by columns where rows are too few,
// as in flat arrays given as one row.
template <class Body>
void OnElements(const Context& context, int64_t N, int64_t C, const Body& body) {
  if (N >= context.threads) {
    OnRows(context, N, C, [&](int64_t begin, int64_t count) { body(begin, count, int64_t{0}, C); });
  } else {
    OnColumns(context, N, C, [&](int64_t begin, int64_t count) { body(int64_t{0}, N, begin, count); });
  }
}

// sum of part(begin, count) over [0,n) cut into kPartialSums pieces, added in order.
template <class Part>
double SumOfParts(const Context& context, int64_t n, int64_t elements, const Part& part) {
  double sums[kPartialSums];
  const int threads = ThreadsFor(context, elements);
  OnEachThread(threads, [&](int thread) {
    const Share mine = ShareOf(kPartialSums, thread, threads);
    for (int64_t i = mine.begin; i < mine.end; ++i) {
      const Share piece = ShareOf(n, static_cast<int>(i), kPartialSums);
      sums[i] = part(piece.begin, piece.end - piece.begin);
    }
  });
  double total = 0.0;
  for (const double s : sums) total += s;
  return total;
}

template <class T>
T* OrNull(T* p, int64_t offset) {
  return p == nullptr ? nullptr : p + offset;
}

DropMask MaskOf(const Dropout& d) {
  DropMask mask;
  mask.seed = d.seed;
  mask.first_block = d.draw << 32;
  mask.stream = static_cast<uint32_t>(Stream::kDropout);
  mask.substream = d.stream;
  // Uniform is a multiple of 2^-24: it reaches p where its numerator reaches the first whole number from p
  // on.
  mask.threshold = static_cast<uint32_t>(std::ceil(d.p * 0x1p24f));
  mask.scale = 1.0f / (1.0f - d.p);
  return mask;
}

// kernel(index, row, rows, column, columns, C) on shares of the elements, whose indices begin at `first`.
// Dense rows are one long one.
template <class Kernel>
void OnIndices(const Context& context, int64_t first, int64_t N, int64_t C, bool dense,
               const Kernel& kernel) {
  if (dense) C *= N, N = 1;
  OnElements(context, N, C, [&](int64_t n, int64_t rows, int64_t c, int64_t columns) {
    kernel(first + n * C + c, n, rows, c, columns, C);
  });
}

}  // namespace

template <class TIn, class TOut>
void RmsNorm(const Context& context, const TIn* x, int64_t ldx, const float* gain, float gain_offset,
             float eps, int64_t N, int64_t C, TOut* y, int64_t ldy, float* rstd) {
  const RmsNormKernel<TIn, TOut>& kernel = RowsFor(context.isa);
  OnRows(context, N, C, [&](int64_t n, int64_t count) {
    kernel.rms_norm(x + n * ldx, ldx, gain, gain_offset, eps, count, C, y + n * ldy, ldy, OrNull(rstd, n));
  });
}

template <class T>
void RmsNormGrad(const Context& context, const float* dy, int64_t lddy, const T* x, int64_t ldx,
                 const float* gain, float gain_offset, const float* rstd, int64_t N, int64_t C, bool add,
                 float* dx, int64_t lddx, float* dgain) {
  const TypedRowsKernels<T>& kernels = RowsFor(context.isa);
  // First, because dx may take the place of dy or x.
  if (dgain != nullptr) {
    OnColumns(context, N, C, [&](int64_t c, int64_t count) {
      kernels.rms_norm_dgain(dy + c, lddy, x + c, ldx, rstd, N, count, dgain + c);
    });
  }
  if (dx == nullptr) return;
  OnRows(context, N, C, [&](int64_t n, int64_t count) {
    kernels.rms_norm_dx(dy + n * lddy, lddy, x + n * ldx, ldx, gain, gain_offset, rstd + n, count, C, add,
                        dx + n * lddx, lddx);
  });
}

template <class TIn, class TOut>
void LayerNorm(const Context& context, const TIn* x, int64_t ldx, const float* gain, const float* bias,
               float eps, int64_t N, int64_t C, TOut* y, int64_t ldy, float* stats, int64_t ldstats) {
  const LayerNormKernel<TIn, TOut>& kernel = RowsFor(context.isa);
  OnRows(context, N, C, [&](int64_t n, int64_t count) {
    kernel.layer_norm(x + n * ldx, ldx, gain, bias, eps, count, C, y + n * ldy, ldy, OrNull(stats, n),
                      OrNull(stats, ldstats + n));
  });
}

template <class T>
void LayerNormGrad(const Context& context, const float* dy, int64_t lddy, const T* x, int64_t ldx,
                   const float* gain, const float* stats, int64_t ldstats, int64_t N, int64_t C, bool add,
                   float* dx, int64_t lddx, float* dgain, float* dbias) {
  const TypedRowsKernels<T>& kernels = RowsFor(context.isa);
  const float *rstd = stats, *mean = stats + ldstats;
  // First, because dx may take the place of dy.
  if (dgain != nullptr) {
    OnColumns(context, N, C, [&](int64_t c, int64_t count) {
      kernels.layer_norm_dgain(dy + c, lddy, x + c, ldx, rstd, mean, N, count, dgain + c);
    });
  }
  if (dbias != nullptr) SumRows(context, dy, lddy, N, C, dbias);
  if (dx == nullptr) return;
  OnRows(context, N, C, [&](int64_t n, int64_t count) {
    kernels.layer_norm_dx(dy + n * lddy, lddy, x + n * ldx, ldx, gain, rstd + n, mean + n, count, C, add,
                          dx + n * lddx, lddx);
  });
}

template <class T>
void Rope(const Context& context, T* x, int64_t ldx, const int32_t* position, const float* cos,
          const float* sin, int64_t ldt, int64_t N, int64_t heads, int64_t step, int64_t D, int64_t rotary,
          bool half, int direction) {
  const TypedRowsKernels<T>& kernels = RowsFor(context.isa);
  OnRows(context, N, heads * D, [&](int64_t n, int64_t count) {
    kernels.rope(x + n * ldx, ldx, position + n, cos, sin, ldt, count, heads, step, rotary, half, direction);
  });
}

template <class T>
void Activate(const Context& context, Activation activation, const T* gate, int64_t ldg, const T* up,
              int64_t ldu, int64_t N, int64_t F, T* y, int64_t ldy) {
  const TypedRowsKernels<T>& kernels = RowsFor(context.isa);
  OnElements(context, N, F, [&](int64_t n, int64_t rows, int64_t f, int64_t columns) {
    kernels.activate(activation, gate + n * ldg + f, ldg, OrNull(up, n * ldu + f), ldu, rows, columns,
                     y + n * ldy + f, ldy);
  });
}

template <class T>
void ActivateGrad(const Context& context, Activation activation, const float* dy, int64_t lddy, const T* gate,
                  int64_t ldg, const T* up, int64_t ldu, int64_t N, int64_t F, float* dgate, int64_t lddg,
                  float* dup, int64_t lddu) {
  const TypedRowsKernels<T>& kernels = RowsFor(context.isa);
  OnElements(context, N, F, [&](int64_t n, int64_t rows, int64_t f, int64_t columns) {
    kernels.activate_grad(activation, dy + n * lddy + f, lddy, gate + n * ldg + f, ldg,
                          OrNull(up, n * ldu + f), ldu, rows, columns, dgate + n * lddg + f, lddg,
                          OrNull(dup, n * lddu + f), lddu);
  });
}

template <class TIn, class TOut>
void Convert(const Context& context, const TIn* x, int64_t ldx, int64_t N, int64_t C, TOut* y, int64_t ldy) {
  const ConvertKernel<TIn, TOut>& kernel = RowsFor(context.isa);
  OnElements(context, N, C, [&](int64_t n, int64_t rows, int64_t c, int64_t columns) {
    kernel.convert(x + n * ldx + c, ldx, rows, columns, y + n * ldy + c, ldy);
  });
}

template <class T>
void Standardize(const Context& context, const T* x, int64_t ldx, bool normalize, float eps,
                 const float* mean, const float* inv_deviation, int64_t N, int64_t C, float* y, int64_t ldy) {
  const TypedRowsKernels<T>& kernels = RowsFor(context.isa);
  OnRows(context, N, C, [&](int64_t n, int64_t count) {
    kernels.standardize(x + n * ldx, ldx, normalize, eps, mean, inv_deviation, count, C, y + n * ldy, ldy);
  });
}

template <class T>
void Moments(const Context& context, const T* x, int64_t ldx, bool normalize, float eps, int64_t N, int64_t C,
             double* sum, double* sum_squares, float* row_rms) {
  const TypedRowsKernels<T>& kernels = RowsFor(context.isa);
  OnRows(context, N, C,
         [&](int64_t n, int64_t count) { kernels.row_rms(x + n * ldx, ldx, count, C, row_rms + n); });
  OnColumns(context, N, C, [&](int64_t c, int64_t count) {
    kernels.moments(x + c, ldx, normalize, eps, row_rms, N, count, sum + c, sum_squares + c);
  });
}

template <class T>
void QuantizeRows(const Context& context, const T* x, int64_t ldx, int64_t N, int64_t C, int8_t* q,
                  int64_t ldq, float* scale) {
  const TypedRowsKernels<T>& kernels = RowsFor(context.isa);
  OnRows(context, N, C, [&](int64_t n, int64_t count) {
    kernels.quantize(x + n * ldx, ldx, count, C, q + n * ldq, ldq, scale + n);
  });
}

template <class T>
void DequantizeRows(const Context& context, const int8_t* q, int64_t ldq, const float* scale, int64_t N,
                    int64_t C, T* y, int64_t ldy) {
  const TypedRowsKernels<T>& kernels = RowsFor(context.isa);
  OnRows(context, N, C, [&](int64_t n, int64_t count) {
    kernels.dequantize(q + n * ldq, ldq, scale + n, count, C, y + n * ldy, ldy);
  });
}

template <class T>
void PoolColumns(const Context& context, const T* x, int64_t ldx, int64_t N, int64_t C, float* y, int64_t ldy,
                 int64_t S) {
  const TypedRowsKernels<T>& kernels = RowsFor(context.isa);
  OnRows(context, N, C,
         [&](int64_t n, int64_t count) { kernels.pool(x + n * ldx, ldx, count, C, y + n * ldy, ldy, S); });
}

template <class T>
void Drop(const Context& context, const Dropout& dropout, const T* x, int64_t ldx, int64_t N, int64_t C, T* y,
          int64_t ldy) {
  if (dropout.p == 0.0f) return Convert(context, x, ldx, N, C, y, ldy);
  const TypedRowsKernels<T>& kernels = RowsFor(context.isa);
  const DropMask mask = MaskOf(dropout);
  OnIndices(context, dropout.first_row * C, N, C, ldx == C && ldy == C,
            [&](int64_t index, int64_t n, int64_t rows, int64_t c, int64_t columns, int64_t step) {
              kernels.drop(mask, index, step, x + n * ldx + c, ldx, rows, columns, y + n * ldy + c, ldy);
            });
}

void DropGrad(const Context& context, const Dropout& dropout, const float* dy, int64_t lddy, int64_t N,
              int64_t C, float* dx, int64_t lddx) {
  if (dropout.p == 0.0f) return Axpby(context, 1.0f, dy, lddy, 1.0f, dx, lddx, N, C);
  const RowsKernels& kernels = RowsFor(context.isa);
  const DropMask mask = MaskOf(dropout);
  OnIndices(context, dropout.first_row * C, N, C, lddy == C && lddx == C,
            [&](int64_t index, int64_t n, int64_t rows, int64_t c, int64_t columns, int64_t step) {
              kernels.drop_add(mask, index, step, dy + n * lddy + c, lddy, rows, columns, dx + n * lddx + c,
                               lddx);
            });
}

void GatherRows(const Context& context, const float* x, int64_t ldx, const int32_t* index, int64_t M,
                int64_t C, float* y, int64_t ldy) {
  const ConvertKernel<float, float>& kernel = RowsFor(context.isa);
  OnRows(context, M, C, [&](int64_t begin, int64_t count) {
    for (int64_t m = begin; m < begin + count; ++m) {
      kernel.convert(x + index[m] * ldx, 0, 1, C, y + m * ldy, 0);
    }
  });
}

void ScatterRows(const Context& context, const float* x, int64_t ldx, const int32_t* index, int64_t M,
                 int64_t C, float* y, int64_t ldy) {
  const ConvertKernel<float, float>& kernel = RowsFor(context.isa);
  OnRows(context, M, C, [&](int64_t begin, int64_t count) {
    for (int64_t m = begin; m < begin + count; ++m) {
      kernel.convert(x + m * ldx, 0, 1, C, y + index[m] * ldy, 0);
    }
  });
}

void Axpby(const Context& context, float a, const float* x, int64_t ldx, float b, float* y, int64_t ldy,
           int64_t N, int64_t C) {
  const RowsKernels& kernels = RowsFor(context.isa);
  OnElements(context, N, C, [&](int64_t n, int64_t rows, int64_t c, int64_t columns) {
    kernels.axpby(a, x + n * ldx + c, ldx, b, y + n * ldy + c, ldy, rows, columns);
  });
}

void Cap(const Context& context, float cap, float* x, int64_t ldx, int64_t N, int64_t C) {
  const RowsKernels& kernels = RowsFor(context.isa);
  OnElements(context, N, C, [&](int64_t n, int64_t rows, int64_t c, int64_t columns) {
    kernels.cap(cap, x + n * ldx + c, ldx, rows, columns);
  });
}

void Mix(const Context& context, const float* mu, bool per_channel, const float* a, const float* b, int64_t N,
         int64_t C, float* out) {
  const RowsKernels& kernels = RowsFor(context.isa);
  OnRows(context, N, C, [&](int64_t n, int64_t count) {
    kernels.mix(mu, per_channel, a + n * C, b + n * C, C, count, C, out + n * C);
  });
}

void MixGrad(const Context& context, const float* mu, bool per_channel, const float* dout, const float* a,
             const float* b, int64_t N, int64_t C, float* da, float* db, float* dmu) {
  const RowsKernels& kernels = RowsFor(context.isa);
  if (per_channel) {
    OnColumns(context, N, C, [&](int64_t c, int64_t count) {
      kernels.mix_dmu(dout + c, a + c, b + c, C, N, count, dmu + c);
      kernels.mix_grad(mu + c, true, dout + c, a + c, b + c, C, N, count, da + c, db + c);
    });
    return;
  }
  const double sum = SumOfParts(context, N, N * C, [&](int64_t n, int64_t count) {
    return kernels.mix_grad(mu, false, dout + n * C, a + n * C, b + n * C, C, count, C, da + n * C,
                            db + n * C);
  });
  dmu[0] += static_cast<float>(sum);
}

// A ladder's rung has one gate or one per channel: too few for vectors to pay.
void SigmoidGate(const float* alpha, float temperature, int64_t n, float* mu) {
  for (int64_t i = 0; i < n; ++i) mu[i] = 1.0f / (1.0f + std::exp(-alpha[i] / temperature));
}

void SigmoidGateGrad(const float* dmu, const float* mu, float temperature, int64_t n, float* dalpha) {
  for (int64_t i = 0; i < n; ++i) dalpha[i] += dmu[i] * mu[i] * (1.0f - mu[i]) / temperature;
}

void SumRows(const Context& context, const float* dy, int64_t lddy, int64_t N, int64_t C, float* bias) {
  const RowsKernels& kernels = RowsFor(context.isa);
  OnColumns(context, N, C,
            [&](int64_t c, int64_t count) { kernels.sum_rows(dy + c, lddy, N, count, bias + c); });
}

void AddBias(const Context& context, const float* bias, int64_t N, int64_t C, float* y, int64_t ldy) {
  const RowsKernels& kernels = RowsFor(context.isa);
  OnElements(context, N, C, [&](int64_t n, int64_t rows, int64_t c, int64_t columns) {
    kernels.add_bias(bias + c, rows, columns, y + n * ldy + c, ldy);
  });
}

double SumSquares(const Context& context, const float* x, int64_t n) {
  const RowsKernels& kernels = RowsFor(context.isa);
  return SumOfParts(context, n, n,
                    [&](int64_t begin, int64_t count) { return kernels.sum_squares(x + begin, count); });
}

void AddSquares(const Context& context, const float* x, int64_t n, float* y) {
  const RowsKernels& kernels = RowsFor(context.isa);
  OnColumns(context, 1, n,
            [&](int64_t begin, int64_t count) { kernels.add_squares(x + begin, count, y + begin); });
}

void AdamWUpdate(const Context& context, const AdamW& step, const float* gradient, int64_t n, float* weight,
                 float* m, float* v) {
  const RowsKernels& kernels = RowsFor(context.isa);
  OnColumns(context, 1, n, [&](int64_t begin, int64_t count) {
    kernels.adamw(step, gradient + begin, count, weight + begin, m + begin, v + begin);
  });
}

template void RmsNorm(const Context&, const float*, int64_t, const float*, float, float, int64_t, int64_t,
                      float*, int64_t, float*);
template void RmsNorm(const Context&, const float*, int64_t, const float*, float, float, int64_t, int64_t,
                      Bf16*, int64_t, float*);
template void RmsNorm(const Context&, const Bf16*, int64_t, const float*, float, float, int64_t, int64_t,
                      Bf16*, int64_t, float*);
template void LayerNorm(const Context&, const float*, int64_t, const float*, const float*, float, int64_t,
                        int64_t, float*, int64_t, float*, int64_t);
template void LayerNorm(const Context&, const float*, int64_t, const float*, const float*, float, int64_t,
                        int64_t, Bf16*, int64_t, float*, int64_t);
template void LayerNorm(const Context&, const Bf16*, int64_t, const float*, const float*, float, int64_t,
                        int64_t, Bf16*, int64_t, float*, int64_t);
template void Convert(const Context&, const float*, int64_t, int64_t, int64_t, float*, int64_t);
template void Convert(const Context&, const float*, int64_t, int64_t, int64_t, Bf16*, int64_t);
template void Convert(const Context&, const Bf16*, int64_t, int64_t, int64_t, float*, int64_t);
template void Convert(const Context&, const Bf16*, int64_t, int64_t, int64_t, Bf16*, int64_t);

#define RUNG_ROWS(T)                                                                                         \
  template void RmsNormGrad(const Context&, const float*, int64_t, const T*, int64_t, const float*, float,   \
                            const float*, int64_t, int64_t, bool, float*, int64_t, float*);                  \
  template void LayerNormGrad(const Context&, const float*, int64_t, const T*, int64_t, const float*,        \
                              const float*, int64_t, int64_t, int64_t, bool, float*, int64_t, float*,        \
                              float*);                                                                       \
  template void ActivateGrad(const Context&, Activation, const float*, int64_t, const T*, int64_t, const T*, \
                             int64_t, int64_t, int64_t, float*, int64_t, float*, int64_t);                   \
  template void QuantizeRows(const Context&, const T*, int64_t, int64_t, int64_t, int8_t*, int64_t, float*); \
  template void DequantizeRows(const Context&, const int8_t*, int64_t, const float*, int64_t, int64_t, T*,   \
                               int64_t);                                                                     \
  template void PoolColumns(const Context&, const T*, int64_t, int64_t, int64_t, float*, int64_t, int64_t);  \
  template void Drop(const Context&, const Dropout&, const T*, int64_t, int64_t, int64_t, T*, int64_t);      \
  template void Rope(const Context&, T*, int64_t, const int32_t*, const float*, const float*, int64_t,       \
                     int64_t, int64_t, int64_t, int64_t, int64_t, bool, int);                                \
  template void Activate(const Context&, Activation, const T*, int64_t, const T*, int64_t, int64_t, int64_t, \
                         T*, int64_t);                                                                       \
  template void Standardize(const Context&, const T*, int64_t, bool, float, const float*, const float*,      \
                            int64_t, int64_t, float*, int64_t);                                              \
  template void Moments(const Context&, const T*, int64_t, bool, float, int64_t, int64_t, double*, double*,  \
                        float*);
RUNG_ROWS(float)
RUNG_ROWS(Bf16)
#undef RUNG_ROWS

}  // namespace rung::cpu
