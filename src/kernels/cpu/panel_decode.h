// Decoding frozen matrices, as templates over a Core (panel_core.h) and a Loader: one format on one core.
//
//   kSpan                   weights decoded at once, a multiple of the format's block and of a Reg's lanes
//   Load(matrix, row, span, out)   weights [span*kSpan, +kSpan) of the row, as kSpan / kLanes registers
//
// A format without a loader of its own is decoded by its scalar reference.
#pragma once

#include "kernels/cpu/panel_pack.h"

namespace rung::cpu {
namespace {

struct WeightRow {
  const std::byte* data = nullptr;  // its first block; not meaningful when rows do not start at a block
  int64_t first_block = 0;
  int64_t index = 0;
  const float* tile_scales = nullptr;  // of each group, or nullptr: 1
  const uint8_t* zeros = nullptr;
};

// Divides: worth a call, and not worth its room in every kernel.
[[gnu::noinline]] inline WeightRow RowOf(const format::Matrix& matrix, const format::Info& info,
                                         int64_t row) {
  const int64_t first_block = row * matrix.cols / info.block;
  WeightRow at{matrix.data + first_block * info.block_bytes, first_block, row};
  const format::TileScales& tiles = matrix.tiles;
  if (tiles.scale) at.tile_scales = tiles.scale + row / tiles.rows * tiles.groups;
  if (tiles.zero) at.zeros = tiles.zero + row * tiles.groups;
  return at;
}

// BlockScales::At, without its volatile: this file is compiled without contraction into fused multiply-adds.
RUNG_INLINE float ScaleOf(const format::BlockScales& scales, int64_t block) {
  if (!scales.codes) return scales.absmax[block];
  const float product = scales.map[scales.codes[block]] * scales.absmax[static_cast<uint64_t>(block) / 256];
  return product + scales.offset;
}

// Weights [k, k + count) of a row, then zeros, by the scalar reference; count <= kRegs registers.
template <class Core, int kRegs>
void LoadByReference(const format::Matrix& matrix, const WeightRow& row, int64_t k, int64_t count,
                     typename Core::Reg* out) {
  alignas(64) float weights[kRegs * kLanes<Core>] = {};
  const int64_t begin = row.index * matrix.cols + k;
  format::Of(matrix.format).decode(matrix, begin, begin + count, weights);
  for (int q = 0; q < kRegs; ++q) out[q] = Core::Round(weights + q * kLanes<Core>);
}

template <class Core>
struct ReferenceLoader {
  static constexpr int64_t kSpan = 32;
  static void Load(const format::Matrix& matrix, const WeightRow& row, int64_t span,
                   typename Core::Reg* out) {
    LoadByReference<Core, kSpan / kLanes<Core>>(matrix, row, span * kSpan, kSpan, out);
  }
};

template <class Core, class Loader>
inline constexpr int kRegs = static_cast<int>(Loader::kSpan / kLanes<Core>);

// A span that may be cut short by the end of the row.
template <class Core, class Loader>
RUNG_INLINE void LoadSpan(const format::Matrix& matrix, const WeightRow& row, int64_t span,
                          typename Core::Reg* out) {
  const int64_t left = matrix.cols - span * Loader::kSpan;
  if (left >= Loader::kSpan) {
    Loader::Load(matrix, row, span, out);
  } else {
    LoadByReference<Core, kRegs<Core, Loader>>(matrix, row, span * Loader::kSpan, left, out);
  }
}

template <class Core, class Loader>
void DecodeColumns(const format::Matrix& given, int64_t row, int64_t rows, int64_t begin, int64_t end,
                   typename Core::T* out, int64_t ld) {
  const format::Matrix matrix = given;  // a copy: no store into `out` can change it
  const format::Info& info = format::Of(matrix.format);
  for (int64_t r = 0; r < rows; ++r, out += ld) {
    const WeightRow from = RowOf(matrix, info, row + r);
    for (int64_t span = begin / Loader::kSpan, k; (k = span * Loader::kSpan) < end; ++span) {
      typename Core::Reg regs[kRegs<Core, Loader>];
      LoadSpan<Core, Loader>(matrix, from, span, regs);
      if (k >= begin && end - k >= Loader::kSpan) {
        for (int q = 0; q < kRegs<Core, Loader>; ++q)
          Core::Store(out + (k - begin) + q * kLanes<Core>, regs[q]);
        continue;
      }
      alignas(64) typename Core::T part[Loader::kSpan];
      for (int q = 0; q < kRegs<Core, Loader>; ++q) Core::Store(part + q * kLanes<Core>, regs[q]);
      for (int64_t i = k < begin ? begin - k : 0; i < Loader::kSpan && k + i < end; ++i)
        out[k + i - begin] = part[i];
    }
  }
}

// As many streams as a Reg has dwords are read at once, more than the hardware foresees: each step asks for
// the bytes this far ahead in its row, and at a row's end for those of the row that follows in its place.
inline constexpr int64_t kPanelAhead = 512;

template <class Core, class Loader>
void DecodePanel(const format::Matrix& given, int64_t row, int64_t rows, typename Core::T* panel) {
  constexpr int kWide = static_cast<int>(kWidth<Core>);
  const format::Matrix matrix = given;
  const format::Info& info = format::Of(matrix.format);
  const int64_t depth = Depth<Core>(matrix.cols);
  const int64_t row_bytes = matrix.cols * info.block_bytes / info.block;
  const int64_t span_bytes = Loader::kSpan * info.block_bytes / info.block;
  for (int64_t r = 0; r < kPanelRows; r += kWide) {
    const int64_t count = rows - r < kWide ? rows - r : kWide;
    WeightRow from[kWide];
    for (int64_t i = 0; i < count; ++i) from[i] = RowOf(matrix, info, row + r + i);
    for (int64_t span = 0; span * Loader::kSpan < matrix.cols; ++span) {
      int64_t ahead = span * span_bytes + kPanelAhead;
      if (ahead >= row_bytes) ahead += (kWide - 1) * row_bytes;
      typename Core::Reg square[kRegs<Core, Loader>][kWide];
      for (int64_t i = 0; i < kWide; ++i) {
        typename Core::Reg regs[kRegs<Core, Loader>];
        if (i < count) {
          for (int64_t at = 0; at < span_bytes; at += 64) __builtin_prefetch(from[i].data + ahead + at);
          LoadSpan<Core, Loader>(matrix, from[i], span, regs);
        } else {
          for (auto& reg : regs) reg = Core::Zero();
        }
        for (int q = 0; q < kRegs<Core, Loader>; ++q) square[q][i] = regs[q];
      }
      for (int q = 0; q < kRegs<Core, Loader>; ++q) {
        const int64_t d = span * (Loader::kSpan / Core::kDword) + q * kWide;
        if (d < depth) StoreSquare<Core>(square[q], panel, depth, d, r);
      }
    }
  }
}

}  // namespace
}  // namespace rung::cpu
