// Row-wise kernels: everything that is not a product. T is float or Bf16 (the compute type); sums are f32.
// All are memory-bound. No result depends on the thread count: an element or a sum belongs to one thread, or
// sums are added in an order that the extents alone decide. At Isa::kAvx512Bf16 a bf16 result below 2^-126 is
// 0.
#pragma once

#include <cstdint>

#include "base/half.h"
#include "kernels/cpu/isa.h"

namespace rung::cpu {

// y[n,:] = x[n,:] * rstd[n] * (gain + gain_offset), rstd[n] = 1/sqrt(mean(x[n,:]^2) + eps). rstd (N) or
// nullptr. TIn -> TOut: f32 -> T for block norms, T -> T (in place allowed) for per-head q/k norms.
template <class TIn, class TOut>
void RmsNorm(const Context& context, const TIn* x, int64_t ldx, const float* gain, float gain_offset,
             float eps, int64_t N, int64_t C, TOut* y, int64_t ldy, float* rstd);
// dx[n,:] (+)= rstd (g*dy - xhat * mean(g*dy*xhat)), xhat = x*rstd, g = gain + gain_offset. Gradients are
// f32. dgain[:] += sum_n dy*xhat when not nullptr. dx nullptr: only dgain. dx may be dy or an f32 x when
// !add.
template <class T>
void RmsNormGrad(const Context& context, const float* dy, int64_t lddy, const T* x, int64_t ldx,
                 const float* gain, float gain_offset, const float* rstd, int64_t N, int64_t C, bool add,
                 float* dx, int64_t lddx, float* dgain);

// y[n,:] = (x[n,:] - mean[n]) * rstd[n] * gain + bias, rstd[n] = 1/sqrt(var(x[n,:]) + eps), the variance of
// all C (no correction). bias may be nullptr. stats (2,N) or nullptr: rstd, then mean.
template <class TIn, class TOut>
void LayerNorm(const Context& context, const TIn* x, int64_t ldx, const float* gain, const float* bias,
               float eps, int64_t N, int64_t C, TOut* y, int64_t ldy, float* stats, int64_t ldstats);
// dx[n,:] (+)= rstd (g*dy - mean(g*dy) - xhat * mean(g*dy*xhat)), xhat = (x - mean)*rstd. dgain[:] += sum_n
// dy*xhat, dbias[:] += sum_n dy, each when not nullptr. dx nullptr: only those. dx may be dy when !add.
template <class T>
void LayerNormGrad(const Context& context, const float* dy, int64_t lddy, const T* x, int64_t ldx,
                   const float* gain, const float* stats, int64_t ldstats, int64_t N, int64_t C, bool add,
                   float* dx, int64_t lddx, float* dgain, float* dbias);

// Rotates pairs of each head in place by the angle of its row's position. cos, sin: (positions, D/2) f32
// tables. half: pairs are (i, i + rotary/2), Hugging Face's order; else (2i, 2i+1), GGUF's llama order.
// direction -1 rotates back: the gradient. Only the first `rotary` (even) of D elements of a head turn, by
// the first rotary/2 of a table's row (ldt floats apart). step: elements from one head to the next.
template <class T>
void Rope(const Context& context, T* x, int64_t ldx, const int32_t* position, const float* cos,
          const float* sin, int64_t ldt, int64_t N, int64_t heads, int64_t step, int64_t D, int64_t rotary,
          bool half, int direction);

enum class Activation : uint8_t { kSilu, kGelu, kGeluTanh, kRelu };
// y = act(gate) * up, or act(gate) when up is nullptr. In place (y == gate) allowed.
template <class T>
void Activate(const Context& context, Activation activation, const T* gate, int64_t ldg, const T* up,
              int64_t ldu, int64_t N, int64_t F, T* y, int64_t ldy);
// dgate = dy * up * act'(gate), dup = dy * act(gate), f32. One of dgate and dup may be dy; where gate and up
// are f32, dgate may be gate and dup may be up. up, dup nullptr: ungated. relu'(0) = 0.
template <class T>
void ActivateGrad(const Context& context, Activation activation, const float* dy, int64_t lddy, const T* gate,
                  int64_t ldg, const T* up, int64_t ldu, int64_t N, int64_t F, float* dgate, int64_t lddg,
                  float* dup, int64_t lddu);

// y = x, converted (f32 -> bf16 rounds to nearest even). Equal types are copied bit by bit.
template <class TIn, class TOut>
void Convert(const Context& context, const TIn* x, int64_t ldx, int64_t N, int64_t C, TOut* y, int64_t ldy);

// y[n,:] = (x[n,:] * r[n] - mean) * inv_deviation, r[n] = 1/sqrt(mean(x[n,:]^2) + eps) or 1 when !normalize.
// mean and inv_deviation (C), or both nullptr. y may be an f32 x.
template <class T>
void Standardize(const Context& context, const T* x, int64_t ldx, bool normalize, float eps,
                 const float* mean, const float* inv_deviation, int64_t N, int64_t C, float* y, int64_t ldy);
// Over rows of x, RMS-normalised as above: sum[c] += y, sum_squares[c] += y^2 in f64;
// row_rms[n] = sqrt(mean(x[n,:]^2)), always written, without eps.
template <class T>
void Moments(const Context& context, const T* x, int64_t ldx, bool normalize, float eps, int64_t N, int64_t C,
             double* sum, double* sum_squares, float* row_rms);

// Eight bits a value: scale[n] = max_c |x[n,c]| / 127, q = x / scale to the nearest whole number, ties to
// even, within +-127. A row whose scale would be below 2^-126 is zero: scale and q 0. A row with a value that
// is not finite gets scale NaN.
template <class T>
void QuantizeRows(const Context& context, const T* x, int64_t ldx, int64_t N, int64_t C, int8_t* q,
                  int64_t ldq, float* scale);
// y = q * scale[n]
template <class T>
void DequantizeRows(const Context& context, const int8_t* q, int64_t ldq, const float* scale, int64_t N,
                    int64_t C, T* y, int64_t ldy);
// y[n,s] = sum of x[n,c] / sqrt(their number), c from floor(s*C/S) to below ceil((s+1)*C/S): uncorrelated
// columns of variance 1 stay so. x (N,C), y (N,S), 0 < S <= C.
template <class T>
void PoolColumns(const Context& context, const T* x, int64_t ldx, int64_t N, int64_t C, float* y, int64_t ldy,
                 int64_t S);

// The mask is a function of these and of the element's index i = (first_row + n)*C + c (below 2^34) alone:
// i is kept where Rng(seed, Stream::kDropout, stream).Uniform(draw * 2^34 + i) >= p (base/rng.h).
struct Dropout {
  float p = 0.0f;         // probability of 0, in [0,1)
  uint64_t seed = 0;      // of the run
  uint64_t draw = 0;      // which time the mask is drawn, below 2^30
  uint32_t stream = 0;    // which place of the network
  int64_t first_row = 0;  // of x, where it is a part of the rows that the mask counts
};
// y = x * keep / (1-p); y may be x. p = 0 copies.
template <class T>
void Drop(const Context& context, const Dropout& dropout, const T* x, int64_t ldx, int64_t N, int64_t C, T* y,
          int64_t ldy);
// dx += dy * keep / (1-p)
void DropGrad(const Context& context, const Dropout& dropout, const float* dy, int64_t lddy, int64_t N,
              int64_t C, float* dx, int64_t lddx);

// y[m,:] = x[index[m],:]; y[index[m],:] = x[m,:] (indices distinct).
void GatherRows(const Context& context, const float* x, int64_t ldx, const int32_t* index, int64_t M,
                int64_t C, float* y, int64_t ldy);
void ScatterRows(const Context& context, const float* x, int64_t ldx, const int32_t* index, int64_t M,
                 int64_t C, float* y, int64_t ldy);

// y = a*x + b*y, rows. b = 0 overwrites: NaN in y does not survive. y may be x.
void Axpby(const Context& context, float a, const float* x, int64_t ldx, float b, float* y, int64_t ldy,
           int64_t N, int64_t C);
// x = cap * tanh(x / cap), cap > 0, to 6e-7 relative.
void Cap(const Context& context, float cap, float* x, int64_t ldx, int64_t N, int64_t C);
// out = mu*a + (1-mu)*b; mu (1) or (C).  Gradients: da = mu*dout, db = (1-mu)*dout, dmu += sum dout*(a-b).
// out may be a; da may be dout or a, db may be b.
void Mix(const Context& context, const float* mu, bool per_channel, const float* a, const float* b, int64_t N,
         int64_t C, float* out);
void MixGrad(const Context& context, const float* mu, bool per_channel, const float* dout, const float* a,
             const float* b, int64_t N, int64_t C, float* da, float* db, float* dmu);
// mu[i] = sigmoid(alpha[i] / temperature); dalpha[i] += dmu[i] mu[i] (1 - mu[i]) / temperature. Few values,
// on the calling thread.
void SigmoidGate(const float* alpha, float temperature, int64_t n, float* mu);
void SigmoidGateGrad(const float* dmu, const float* mu, float temperature, int64_t n, float* dalpha);
// bias[:] += sum_n dy[n,:]
void SumRows(const Context& context, const float* dy, int64_t lddy, int64_t N, int64_t C, float* bias);
// y[n,:] += bias
void AddBias(const Context& context, const float* bias, int64_t N, int64_t C, float* y, int64_t ldy);

// Sum of squares in f64.
double SumSquares(const Context& context, const float* x, int64_t n);
// y[i] += x[i]^2
void AddSquares(const Context& context, const float* x, int64_t n, float* y);

// AdamW (arXiv 1711.05101) over a flat array. bias1 = 1 - beta1^t, bias2 = 1 - beta2^t, of the betas as
// floats. The gradient is scaled first.
//   m = beta1 m + (1-beta1) g;  v = beta2 v + (1-beta2) g^2
//   w -= lr * (m/bias1 / (sqrt(v/bias2) + eps) + decay * w)
struct AdamW {
  float learning_rate, beta1, beta2, epsilon, decay, bias1, bias2, gradient_scale;
};
void AdamWUpdate(const Context& context, const AdamW& step, const float* gradient, int64_t n, float* weight,
                 float* m, float* v);

}  // namespace rung::cpu
