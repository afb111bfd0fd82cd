// The table behind rows.h: one function per kernel and element type, on the calling thread, over the rows or
// columns that its pointers start at. rows.cc cuts the work into shares; which share an element is in never
// changes its value.
#pragma once

#include <cstdint>

#include "kernels/cpu/rows.h"

namespace rung::cpu {

template <class TIn, class TOut>
struct RmsNormKernel {
  void (*rms_norm)(const TIn* x, int64_t ldx, const float* gain, float gain_offset, float eps, int64_t N,
                   int64_t C, TOut* y, int64_t ldy, float* rstd);
};

template <class TIn, class TOut>
struct LayerNormKernel {
  void (*layer_norm)(const TIn* x, int64_t ldx, const float* gain, const float* bias, float eps, int64_t N,
                     int64_t C, TOut* y, int64_t ldy, float* rstd, float* mean);
};

template <class TIn, class TOut>
struct ConvertKernel {
  void (*convert)(const TIn* x, int64_t ldx, int64_t N, int64_t C, TOut* y, int64_t ldy);
};

// The mask of a Dropout. Factor of index i: `scale` where word i % 4 of Philox block first_block + i / 4,
// shifted right by 8, is at least threshold, else 0.
struct DropMask {
  uint64_t seed, first_block;  // first_block a multiple of 16
  uint32_t stream, substream, threshold;
  float scale;
};

template <class T>
struct TypedRowsKernels {
  void (*rms_norm_dx)(const float* dy, int64_t lddy, const T* x, int64_t ldx, const float* gain,
                      float gain_offset, const float* rstd, int64_t N, int64_t C, bool add, float* dx,
                      int64_t lddx);
  void (*rms_norm_dgain)(const float* dy, int64_t lddy, const T* x, int64_t ldx, const float* rstd, int64_t N,
                         int64_t C, float* dgain);
  void (*layer_norm_dx)(const float* dy, int64_t lddy, const T* x, int64_t ldx, const float* gain,
                        const float* rstd, const float* mean, int64_t N, int64_t C, bool add, float* dx,
                        int64_t lddx);
  void (*layer_norm_dgain)(const float* dy, int64_t lddy, const T* x, int64_t ldx, const float* rstd,
                           const float* mean, int64_t N, int64_t C, float* dgain);
  void (*rope)(T* x, int64_t ldx, const int32_t* position, const float* cos, const float* sin, int64_t ldt,
               int64_t N, int64_t heads, int64_t step, int64_t rotary, bool half, int direction);
  void (*activate)(Activation activation, const T* gate, int64_t ldg, const T* up, int64_t ldu, int64_t N,
                   int64_t F, T* y, int64_t ldy);
  void (*activate_grad)(Activation activation, const float* dy, int64_t lddy, const T* gate, int64_t ldg,
                        const T* up, int64_t ldu, int64_t N, int64_t F, float* dgate, int64_t lddg,
                        float* dup, int64_t lddu);
  void (*standardize)(const T* x, int64_t ldx, bool normalize, float eps, const float* mean,
                      const float* inv_deviation, int64_t N, int64_t C, float* y, int64_t ldy);
  void (*row_rms)(const T* x, int64_t ldx, int64_t N, int64_t C, float* rms);
  // Over columns: row_rms is read when normalize.
  void (*moments)(const T* x, int64_t ldx, bool normalize, float eps, const float* row_rms, int64_t N,
                  int64_t C, double* sum, double* sum_squares);
  void (*quantize)(const T* x, int64_t ldx, int64_t N, int64_t C, int8_t* q, int64_t ldq, float* scale);
  void (*dequantize)(const int8_t* q, int64_t ldq, const float* scale, int64_t N, int64_t C, T* y,
                     int64_t ldy);
  void (*pool)(const T* x, int64_t ldx, int64_t N, int64_t C, float* y, int64_t ldy, int64_t S);
  // Row n has the indices from index + n*step on.
  void (*drop)(const DropMask& mask, int64_t index, int64_t step, const T* x, int64_t ldx, int64_t N,
               int64_t C, T* y, int64_t ldy);
};

struct RowsKernels : RmsNormKernel<float, float>,
                     RmsNormKernel<float, Bf16>,
                     RmsNormKernel<Bf16, Bf16>,
                     LayerNormKernel<float, float>,
                     LayerNormKernel<float, Bf16>,
                     LayerNormKernel<Bf16, Bf16>,
                     ConvertKernel<float, float>,
                     ConvertKernel<float, Bf16>,
                     ConvertKernel<Bf16, float>,
                     ConvertKernel<Bf16, Bf16>,
                     TypedRowsKernels<float>,
                     TypedRowsKernels<Bf16> {
  // y += instead of y =.
  void (*drop_add)(const DropMask& mask, int64_t index, int64_t step, const float* x, int64_t ldx, int64_t N,
                   int64_t C, float* y, int64_t ldy);
  void (*axpby)(float a, const float* x, int64_t ldx, float b, float* y, int64_t ldy, int64_t N, int64_t C);
  void (*cap)(float cap, float* x, int64_t ldx, int64_t N, int64_t C);
  void (*mix)(const float* mu, bool per_channel, const float* a, const float* b, int64_t ld, int64_t N,
              int64_t C, float* out);
  // da and db; returns sum dout*(a-b).
  double (*mix_grad)(const float* mu, bool per_channel, const float* dout, const float* a, const float* b,
                     int64_t ld, int64_t N, int64_t C, float* da, float* db);
  // dmu[:] += sum_n dout*(a-b)
  void (*mix_dmu)(const float* dout, const float* a, const float* b, int64_t ld, int64_t N, int64_t C,
                  float* dmu);
  void (*sum_rows)(const float* dy, int64_t lddy, int64_t N, int64_t C, float* bias);
  void (*add_bias)(const float* bias, int64_t N, int64_t C, float* y, int64_t ldy);
  double (*sum_squares)(const float* x, int64_t n);
  void (*add_squares)(const float* x, int64_t n, float* y);
  void (*adamw)(const AdamW& step, const float* gradient, int64_t n, float* weight, float* m, float* v);
};

extern const RowsKernels kRowsBaseline;
#if defined(__x86_64__)
extern const RowsKernels kRowsAvx2, kRowsAvx512, kRowsAvx512Bf16;
#endif

}  // namespace rung::cpu
