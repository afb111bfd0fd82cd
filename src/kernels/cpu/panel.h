// Products with a panel: 64 rows of a matrix, laid out as the micro-kernel eats them.
//
// One core per ISA serves frozen products, attention and the head. T is the compute type: float on
// every ISA, Bf16 where the machine has BF16 dot products. Accumulation is always f32.
//
// A panel of depth K holds B (64, K) as an opaque array of PanelElements(K) values of T, 64-byte
// aligned. Rows beyond those given are zero. With T = Bf16, K is even: pairs of k are multiplied together.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/half.h"
#include "format/format.h"
#include "kernels/cpu/isa.h"

namespace rung::cpu {

inline constexpr int64_t kPanelRows = 64;
constexpr int64_t PanelElements(int64_t K) { return (K + 1) / 2 * 2 * kPanelRows; }

template <class T>
struct PanelKernels {
  // out[r*ld + k] = weight of row `row + r`, k in [0, cols): rows of a frozen matrix in the compute type.
  // Bit for bit the reference decoder's value, rounded once to T. (A Bf16 below 2^-126 may become 0, as it
  // does in every product.)
  void (*decode_rows)(const format::Matrix& matrix, int64_t row, int64_t rows, T* out, int64_t ld);
  // The same of columns [begin, end): out[r*ld + k - begin]. Any begin and end; whole blocks are faster.
  void (*decode_columns)(const format::Matrix& matrix, int64_t row, int64_t rows, int64_t begin, int64_t end,
                         T* out, int64_t ld);
  // The same rows (at most 64) straight into a panel of depth matrix.cols.
  void (*decode_panel)(const format::Matrix& matrix, int64_t row, int64_t rows, T* panel);
  // Panel row r = source row r: B[r][k] = src[r*ld + k], r < rows <= 64.
  void (*pack_rows)(const T* src, int64_t ld, int64_t rows, int64_t K, T* panel);
  // Panel row r = source column r: B[r][k] = src[k*ld + r], r < cols <= 64.
  void (*pack_cols)(const T* src, int64_t ld, int64_t K, int64_t cols, T* panel);
  // C[n*ldc + r] (= or +=) sum_k A[n*lda + k] * B[r][k] for n < N, r < cols <= 64. Writes no column beyond
  // cols.
  void (*multiply)(const T* A, int64_t lda, int64_t N, const T* panel, int64_t K, int64_t cols, bool add,
                   float* C, int64_t ldc);
  // The same, set and rounded to T.
  void (*multiply_to)(const T* A, int64_t lda, int64_t N, const T* panel, int64_t K, int64_t cols, T* C,
                      int64_t ldc);
  // C[n*ldc + r] = sum_k A[n*lda + k] * W[row + r][k] for few rows (N <= kFewRows): reads W once, in its
  // storage format, without a panel. W is rounded to T, as in a panel, or not at all: where a block's codes
  // can be dotted as they are and the sum scaled, that is faster and nearer to the weights. Which one depends
  // on the format, the width and N alone. `add` and `to_t` as above are the driver's business: the result is
  // f32.
  void (*multiply_few)(const T* A, int64_t lda, int64_t N, const format::Matrix& matrix, int64_t row,
                       int64_t rows, float* C, int64_t ldc);
  // out[n*ldo + r] = C[n*ldc + r] + bias[r], rounded to T, for n < N, r < cols; bias may be nullptr.
  void (*add_bias_to)(const float* C, int64_t ldc, int64_t N, int64_t cols, const float* bias, T* out,
                      int64_t ldo);
  // Micro tiles on registers alone, for measuring what the core can do. Returns the FLOP of that many rounds.
  double (*spin)(int64_t rounds);
};
// From 9 rows on, decoding a panel once and multiplying by micro tiles is faster.
inline constexpr int64_t kFewRows = 8;

// nullptr when the ISA has no fast product in T.
template <class T>
const PanelKernels<T>* PanelFor(Isa isa);

extern const PanelKernels<float> kPanelBaseline;
extern const PanelKernels<float> kPanelAvx2;
extern const PanelKernels<float> kPanelAvx512;
extern const PanelKernels<Bf16> kPanelAvx512Bf16;

// One product of several that share their input.
struct Product {
  // out is T set, f32 set, f32 added to, T added to: out = round(out + x W^T + bias), the sum in f32.
  enum class Store : uint8_t { kCompute, kF32, kAddF32, kAddCompute };
  const format::Matrix* weight = nullptr;  // (O, K)
  const float* bias = nullptr;             // (O) or nullptr
  Store store = Store::kCompute;
  void* out = nullptr;  // (N, O)
  int64_t ldo = 0;
};

// The drivers below need an ISA with products in T (PanelFor).
//
// out = x W^T + bias for each product. x (N,K); T = Bf16 and odd K: x has a column more in memory and it is
// zero. Work is shared out in whole (panel, row tile) units, so a panel is decoded twice only where two
// threads meet. scratch: ProjectScratch bytes, 64-byte aligned.
template <class T>
void Project(const Context& context, const T* x, int64_t ldx, int64_t N, std::span<const Product> products,
             std::byte* scratch);
size_t ProjectScratch(const Context& context, size_t element_size, int64_t N, int64_t K);

// dx (N,K) = or += dy (N,O) W for a frozen W (O,K): the gradient of Project's input. W is decoded in chunks
// of rows, once for all of dy. A row of dx depends on its row of dy and on W alone, whatever N and the
// threads. scratch: ProjectGradInputScratch bytes, 64-byte aligned; of the weight its extents and format are
// read.
template <class T>
void ProjectGradInput(const Context& context, const T* dy, int64_t lddy, int64_t N,
                      const format::Matrix& weight, bool add, float* dx, int64_t lddx, std::byte* scratch);
size_t ProjectGradInputScratch(const Context& context, size_t element_size, int64_t N,
                               const format::Matrix& weight);

// out[n,:] = row ids[n] of the matrix, as f32. Rows are decoded by the ISA's decoder.
void EmbedRows(const Context& context, const format::Matrix& matrix, const int32_t* ids, int64_t N,
               float* out, int64_t ldo);
// out (rows, cols) = the matrix, as f32, by the same decoder.
void DecodeMatrix(const Context& context, const format::Matrix& matrix, float* out, int64_t ldo);

}  // namespace rung::cpu
