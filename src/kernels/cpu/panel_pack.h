// Laying out panels, as templates over a Core (panel_core.h).
#pragma once

#include "kernels/cpu/panel_core.h"

namespace rung::cpu {
namespace {

// Up to kLanes elements; the rest of the Reg is 0.
template <class Core>
RUNG_INLINE typename Core::Reg LoadPart(const typename Core::T* from, int64_t n) {
  if (n >= kLanes<Core>) return Core::Load(from);
  alignas(64) typename Core::T part[kLanes<Core>] = {};
  for (int64_t i = 0; i < n; ++i) part[i] = from[i];
  return Core::Load(part);
}

// A square of kWidth panel rows, from r on, and kWidth dwords, from d on, into the panel.
template <class Core>
RUNG_INLINE void StoreSquare(typename Core::Reg* rows, typename Core::T* panel, int64_t depth, int64_t d,
                             int64_t r) {
  Core::Transpose(rows);
  const int64_t count = depth - d;
  typename Core::T* to = DwordOf<Core>(panel, depth, d, r);
  if (count >= kWidth<Core>) {
#pragma GCC unroll 16
    for (int64_t i = 0; i < kWidth<Core>; ++i) Core::Store(to + i * kSlice<Core> * Core::kDword, rows[i]);
  } else {
    for (int64_t i = 0; i < count; ++i) Core::Store(to + i * kSlice<Core> * Core::kDword, rows[i]);
  }
}

template <class Core>
void PackRows(const typename Core::T* src, int64_t ld, int64_t rows, int64_t K, typename Core::T* panel) {
  const int64_t depth = Depth<Core>(K);
  for (int64_t r = 0; r < kPanelRows; r += kWidth<Core>) {
    for (int64_t d = 0; d < depth; d += kWidth<Core>) {
      const int64_t k = d * Core::kDword;
      typename Core::Reg square[kWidth<Core>];
      for (int64_t i = 0; i < kWidth<Core>; ++i) {
        square[i] = r + i < rows ? LoadPart<Core>(src + (r + i) * ld + k, K - k) : Core::Zero();
      }
      StoreSquare<Core>(square, panel, depth, d, r);
    }
  }
}

template <class Core>
void PackCols(const typename Core::T* src, int64_t ld, int64_t K, int64_t cols, typename Core::T* panel) {
  using T = typename Core::T;
  const int64_t depth = Depth<Core>(K);
  for (int64_t d = 0; d < depth; ++d) {
    const int64_t k = d * Core::kDword;
    const int64_t pair = K - k < Core::kDword ? K - k : Core::kDword;
    for (int64_t r = 0; r < kPanelRows; r += kWidth<Core>) {
      T* to = DwordOf<Core>(panel, depth, d, r);
      if (cols - r >= kWidth<Core> && pair == Core::kDword) {
        Core::Store(to, Core::Column(src + k * ld + r, ld));
        continue;
      }
      alignas(64) T part[kLanes<Core>] = {};
      for (int64_t p = 0; p < pair; ++p) {
        for (int64_t i = 0; i < kWidth<Core> && r + i < cols; ++i)
          part[p * kWidth<Core> + i] = src[(k + p) * ld + r + i];
      }
      Core::Store(to, Core::Column(part, kWidth<Core>));
    }
  }
}

}  // namespace
}  // namespace rung::cpu
