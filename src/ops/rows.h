// Ops that work row by row. Shapes as (rows, cols); f32 unless said; "T" is the compute type (f32 or bf16).
#pragma once

#include "exec/exec.h"
#include "kernels/cpu/rows.h"

namespace rung::ops {

// y[n,:] = x[n,:] * rstd[n] * (gain + gain_offset), rstd[n] = 1 / sqrt(mean(x[n,:]^2) + eps)
//
//   x     (N,C)  f32 or T, may alias y
//   gain  (1,C)
//   y     (N,C)  T, or f32 like x
//   rstd  (1,N)  f32; nullptr when no backward will follow
void RmsNorm(Exec& ex, In x, In gain, float gain_offset, float eps, Out y, const Out* rstd);

// dx += the gradient of RmsNorm towards x; dgain (1,C) += the one towards the gain (nullptr: frozen). x f32
// or T, gradients f32.
void RmsNormGrad(Exec& ex, In dy, In x, In gain, float gain_offset, In rstd, Acc dx, const Acc* dgain);
void RmsNormGrad(Exec& ex, In dy, In x, In gain, float gain_offset, In rstd, Out dx, const Acc* dgain);

// y[n,:] = (x[n,:] - mean[n]) * rstd[n] * gain + bias, rstd[n] = 1 / sqrt(var(x[n,:]) + eps)
//
//   x           (N,C)  f32 or T, may alias y
//   gain, bias  (1,C)  bias may be empty
//   y           (N,C)  T, or f32 like x
//   stats       (2,N)  f32: rstd and mean; nullptr when no backward will follow
void LayerNorm(Exec& ex, In x, In gain, In bias, float eps, Out y, const Out* stats);

// dx += (or =) the gradient of LayerNorm towards x; dgain, dbias (1,C) += those towards gain and bias
// (nullptr: frozen). x f32 or T, gradients f32.
void LayerNormGrad(Exec& ex, In dy, In x, In gain, In stats, Acc dx, const Acc* dgain, const Acc* dbias);
void LayerNormGrad(Exec& ex, In dy, In x, In gain, In stats, Out dx, const Acc* dgain, const Acc* dbias);

// Angles of rotary position embedding (arXiv 2104.09864): one row per position, one column per pair.
struct RopeTable {
  Tensor cos, sin;     // (positions, at least rotary/2)
  int64_t rotary = 0;  // leading elements of a head that turn; even
  bool half = true;    // pairs (i, i + rotary/2), Hugging Face's order; else (2i, 2i+1), GGUF's llama order
};
// Turns `heads` heads of x in place by their row's position (1,N); direction -1 turns back. Head h is columns
// [h*step, h*step + head_dim) of x. Positions are rows of the table: values, so no plan can check them.
void Rope(Exec& ex, Acc x, In position, const RopeTable& table, int64_t heads, int64_t step, int64_t head_dim,
          int direction);

// y = act(gate) * up; up may be nullptr for ungated MLPs. All (N,F), T, y may alias gate.
void Activate(Exec& ex, cpu::Activation activation, In gate, const In* up, Out y);
// dgate and dup from dy, all f32; gate and up f32 or T. One of dgate and dup may be dy, and where gate and up
// are f32, both may alias their forward values.
void ActivateGrad(Exec& ex, cpu::Activation activation, In dy, In gate, const In* up, Out dgate,
                  const Out* dup);

void Convert(Exec& ex, In x, Out y);  // (N,C), each f32 or bf16; to bf16 to the nearest, ties to even

// y = x / rms(x) per row (when normalize), then (y - mean) * inv_deviation per channel (when given).
//
//   x                    (N,C)  f32 or T
//   mean, inv_deviation  (1,C)  f32; both or none
//   y                    (N,C)  f32, may alias an f32 x
void Standardize(Exec& ex, In x, bool normalize, float eps, const In* mean, const In* inv_deviation, Out y);

// y[n,:] += bias, and dbias += the sum of dy over rows. bias, dbias (1,C).
void AddBias(Exec& ex, In bias, Acc y);
void SumRows(Exec& ex, In dy, Acc dbias);

// Eight bits a value: q = x / scale[n] to the nearest whole number, scale[n] = max |x[n,:]| / 127.
//
//   x, y   (N,C)  f32 or T
//   q      (N,C)  i8
//   scale  (1,N)  f32: 0 for a row of zeros, NaN for one that is not finite
void QuantizeRows(Exec& ex, In x, Out q, Out scale);
void DequantizeRows(Exec& ex, In q, In scale, Out y);

// y[n,s] = sum of x[n,c] / sqrt(their number), c from floor(s*C/S) to below ceil((s+1)*C/S): uncorrelated
// columns of variance 1 stay so. x (N,C) f32 or T, y (N,S) f32, S <= C.
void PoolColumns(Exec& ex, In x, Out y);

using cpu::Dropout;
// y = x * keep / (1-p), both f32 or both T; y may be x. The gradient draws the same mask anew:
// dx += dy * keep / (1-p), f32.
void Drop(Exec& ex, const Dropout& dropout, In x, Out y);
void DropGrad(Exec& ex, const Dropout& dropout, In dy, Acc dx);

// y[m,:] = x[index[m],:]   index (1,M) i32
void Gather(Exec& ex, In x, In index, Out y);
// y[index[m],:] = x[m,:], every other row of y zero. Indices are distinct.
void Scatter(Exec& ex, In x, In index, Out y);

void Axpby(Exec& ex, float a, In x, float b, Acc y);  // y = a*x + b*y
void Scale(Exec& ex, float a, Acc x);                 // x *= a
void Cap(Exec& ex, float cap, Acc x);                 // x = cap * tanh(x / cap), cap > 0

// out = mu*a + (1-mu)*b, mu (1,1) or (1,C); out may be a. Gradients: da, db set, dmu, like mu, added to; da
// may be dout or a, db may be b.
void Mix(Exec& ex, In mu, In a, In b, Out out);
void MixGrad(Exec& ex, In mu, In dout, In a, In b, Out da, Out db, Acc dmu);

// mu = sigmoid(alpha / temperature), element by element, and dalpha += dmu mu (1 - mu) / temperature.
void SigmoidGate(Exec& ex, In alpha, float temperature, Out mu);
void SigmoidGateGrad(Exec& ex, In dmu, In mu, float temperature, Acc dalpha);

void Zero(Exec& ex, Out x);

}  // namespace rung::ops
