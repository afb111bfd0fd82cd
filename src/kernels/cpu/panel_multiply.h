// Products with a panel, as templates over a Core (panel_core.h).
#pragma once

#include "kernels/cpu/panel_core.h"

namespace rung::cpu {
namespace {

enum class Write { kSet, kAdd };

// C (kR, cols) from kR rows of A and one slice; cols <= kSlice.
template <class Core, Write kWrite, int kR, class TOut>
RUNG_TILE void Tile(const typename Core::T* A, int64_t lda, const typename Core::T* slice, int64_t depth,
                    int64_t cols, TOut* C, int64_t ldc) {
  using V = typename Core::V;
  V sum[kR][Core::kVecs];
#pragma GCC unroll 8
  for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < Core::kVecs; ++j) sum[i][j] = V::Set(0.0f);
  }
  for (int64_t d = 0; d < depth; ++d) {
    typename Core::Reg b[Core::kVecs];
#pragma GCC unroll 8
    for (int j = 0; j < Core::kVecs; ++j) b[j] = Core::Load(slice + j * kLanes<Core>);
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      const typename Core::Reg a = Core::Broadcast(A + i * lda);
#pragma GCC unroll 8
      for (int j = 0; j < Core::kVecs; ++j) sum[i][j] = Core::Dot(sum[i][j], a, b[j]);
    }
    A += Core::kDword;
    slice += Core::kVecs * kLanes<Core>;
  }
#pragma GCC unroll 8
  for (int i = 0; i < kR; ++i) {
#pragma GCC unroll 8
    for (int j = 0; j < Core::kVecs; ++j) {
      TOut* to = C + i * ldc + j * kWidth<Core>;
      const int64_t n = cols - j * kWidth<Core>;
      if (n >= kWidth<Core>) {
        if constexpr (kWrite == Write::kAdd) sum[i][j] = V::Add(V::Load(to), sum[i][j]);
        sum[i][j].Store(to);
      } else if (n > 0) {
        if constexpr (kWrite == Write::kAdd) sum[i][j] = V::Add(V::LoadPart(to, n), sum[i][j]);
        sum[i][j].StorePart(to, n);
      }
    }
  }
}

// The last rows < kRows rows of A.
template <class Core, Write kWrite, int kR, class TOut>
void TileOfRows(int64_t rows, const typename Core::T* A, int64_t lda, const typename Core::T* slice,
                int64_t depth, int64_t cols, TOut* C, int64_t ldc) {
  if constexpr (kR > 0) {
    if (rows == kR) return Tile<Core, kWrite, kR>(A, lda, slice, depth, cols, C, ldc);
    TileOfRows<Core, kWrite, kR - 1>(rows, A, lda, slice, depth, cols, C, ldc);
  }
}

// Slices outermost: a slice that fits L1 is read from L2 once.
template <class Core, Write kWrite, class TOut>
void MultiplyInto(const typename Core::T* A, int64_t lda, int64_t N, const typename Core::T* panel, int64_t K,
                  int64_t cols, TOut* C, int64_t ldc) {
  const int64_t depth = Depth<Core>(K);
  for (int64_t r = 0; r < cols; r += kSlice<Core>) {
    const auto* slice = DwordOf<Core>(panel, depth, 0, r);
    const int64_t width = cols - r < kSlice<Core> ? cols - r : kSlice<Core>;
    int64_t n = 0;
    for (; n + Core::kRows <= N; n += Core::kRows)
      Tile<Core, kWrite, Core::kRows>(A + n * lda, lda, slice, depth, width, C + n * ldc + r, ldc);
    TileOfRows<Core, kWrite, Core::kRows - 1>(N - n, A + n * lda, lda, slice, depth, width, C + n * ldc + r,
                                              ldc);
  }
}

template <class Core>
void Multiply(const typename Core::T* A, int64_t lda, int64_t N, const typename Core::T* panel, int64_t K,
              int64_t cols, bool add, float* C, int64_t ldc) {
  if (add) {
    MultiplyInto<Core, Write::kAdd>(A, lda, N, panel, K, cols, C, ldc);
  } else {
    MultiplyInto<Core, Write::kSet>(A, lda, N, panel, K, cols, C, ldc);
  }
}

template <class Core>
void MultiplyTo(const typename Core::T* A, int64_t lda, int64_t N, const typename Core::T* panel, int64_t K,
                int64_t cols, typename Core::T* C, int64_t ldc) {
  MultiplyInto<Core, Write::kSet>(A, lda, N, panel, K, cols, C, ldc);
}

template <class Core>
void AddBiasTo(const float* C, int64_t ldc, int64_t N, int64_t cols, const float* bias, typename Core::T* out,
               int64_t ldo) {
  using V = typename Core::V;
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t r = 0; r < cols; r += kWidth<Core>) {
      const int64_t width = cols - r;
      if (width >= kWidth<Core>) {
        const V x = V::Load(C + n * ldc + r);
        (bias ? V::Add(x, V::Load(bias + r)) : x).Store(out + n * ldo + r);
      } else {
        const V x = V::LoadPart(C + n * ldc + r, width);
        (bias ? V::Add(x, V::LoadPart(bias + r, width)) : x).StorePart(out + n * ldo + r, width);
      }
    }
  }
}

template <class Core>
RUNG_TILE double Spin(int64_t rounds) {
  using V = typename Core::V;
  static const float kOnes[64] = {};
  const auto* ones = reinterpret_cast<const typename Core::T*>(kOnes);
  asm volatile("" : "+r"(ones));  // values the compiler cannot know
  const typename Core::Reg a = Core::Load(ones), b = Core::Broadcast(ones);
  V sum[Core::kRows][Core::kVecs];
  for (auto& row : sum) {
    for (V& v : row) v = V::Set(0.0f);
  }
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 8
    for (auto& row : sum) {
#pragma GCC unroll 8
      for (V& v : row) v = Core::Dot(v, a, b);
    }
  }
  float total = 0.0f;
  for (auto& row : sum) {
    for (V& v : row) total += v.Sum();
  }
  volatile float sink = total;
  static_cast<void>(sink);
  return 2.0 * static_cast<double>(rounds * Core::kRows * Core::kVecs * kLanes<Core>);
}

}  // namespace
}  // namespace rung::cpu
