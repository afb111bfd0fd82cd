// Products of few rows with a frozen matrix that is decoded on the way, as templates over a Core and a Loader
// (panel_decode.h).
#pragma once

#include "kernels/cpu/panel_decode.h"

namespace rung::cpu {
namespace {

// C[n*ldc + r] for kN rows of A and kR weight rows, each weight decoded once. Several weight rows at a time
// hide the latency of the sums and share what is read of A.
template <class Core, class Loader, int kN, int kR>
RUNG_TILE void FewTile(const format::Matrix& given, const WeightRow* from, const typename Core::T* A,
                       int64_t lda, float (*C)[kR]) {
  using V = typename Core::V;
  using Reg = typename Core::Reg;
  constexpr int kQ = kRegs<Core, Loader>;
  const format::Matrix matrix = given;
  V sum[kR][kN];
#pragma GCC unroll 4
  for (int r = 0; r < kR; ++r) {
#pragma GCC unroll 8
    for (int n = 0; n < kN; ++n) sum[r][n] = V::Set(0.0f);
  }
  const auto add = [&](const Reg(&w)[kR][kQ], const typename Core::T* a, int64_t ld)
      __attribute__((always_inline)) {
#pragma GCC unroll 8
    for (int q = 0; q < kQ; ++q) {
#pragma GCC unroll 8
      for (int n = 0; n < kN; ++n) {
        const Reg x = Core::Load(a + n * ld + q * kLanes<Core>);
#pragma GCC unroll 4
        for (int r = 0; r < kR; ++r) sum[r][n] = Core::Dot(sum[r][n], w[r][q], x);
      }
    }
  };
  // The rows after these, which the hardware does not foresee: a row ends too soon.
  const format::Info& info = format::Of(matrix.format);
  const int64_t span_bytes = Loader::kSpan * info.block_bytes / info.block;
  const int64_t ahead = kR * (matrix.cols * info.block_bytes / info.block);
  Reg w[kR][kQ];
  const int64_t whole = matrix.cols / Loader::kSpan;
  for (int64_t span = 0; span < whole; ++span) {
#pragma GCC unroll 4
    for (int r = 0; r < kR; ++r) {
      __builtin_prefetch(from[r].data + span * span_bytes + ahead);
      Loader::Load(matrix, from[r], span, w[r]);
    }
    add(w, A + span * Loader::kSpan, lda);
  }
  const int64_t k = whole * Loader::kSpan, left = matrix.cols - k;
  if (left > 0) {
    alignas(64) typename Core::T part[kN][Loader::kSpan] = {};
    for (int n = 0; n < kN; ++n) {
      for (int64_t i = 0; i < left; ++i) part[n][i] = A[n * lda + k + i];
    }
    for (int r = 0; r < kR; ++r) LoadSpan<Core, Loader>(matrix, from[r], whole, w[r]);
    add(w, part[0], Loader::kSpan);
  }
  for (int n = 0; n < kN; ++n) {
    for (int r = 0; r < kR; ++r) C[n][r] = sum[r][n].Sum();
  }
}

template <class Core, class Loader, int kN>
void MultiplyFewOf(const typename Core::T* A, int64_t lda, const format::Matrix& matrix, int64_t row,
                   int64_t rows, float* C, int64_t ldc) {
  constexpr int kR = kN <= 2 ? 4 : kN * 2 < Core::kRegisters ? 2 : 1;
  const format::Info& info = format::Of(matrix.format);
  for (int64_t r = 0; r < rows; r += kR) {
    // Surplus rows of the tile repeat the last one; their results are dropped.
    WeightRow from[kR];
    for (int64_t i = 0; i < kR; ++i) from[i] = RowOf(matrix, info, row + (r + i < rows ? r + i : rows - 1));
    float result[kN][kR];
    FewTile<Core, Loader, kN, kR>(matrix, from, A, lda, result);
    for (int64_t n = 0; n < kN; ++n) {
      for (int64_t i = 0; i < kR && r + i < rows; ++i) C[n * ldc + r + i] = result[n][i];
    }
  }
}

template <class Core, class Loader, int kN = kFewRows>
void MultiplyFew(const typename Core::T* A, int64_t lda, int64_t N, const format::Matrix& matrix, int64_t row,
                 int64_t rows, float* C, int64_t ldc) {
  if constexpr (kN > 0) {
    if (N == kN) return MultiplyFewOf<Core, Loader, kN>(A, lda, matrix, row, rows, C, ldc);
    MultiplyFew<Core, Loader, kN - 1>(A, lda, N, matrix, row, rows, C, ldc);
  }
}

}  // namespace
}  // namespace rung::cpu
