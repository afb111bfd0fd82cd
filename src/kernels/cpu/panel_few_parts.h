// Products of few rows for formats whose loaders are too wide for FewTile: parts of weight rows are decoded
// into a buffer that fits L1 and multiplied from there, as a plain matrix. Include only from panel_<isa>.cc.
#pragma once

#include "kernels/cpu/panel_table.h"

namespace rung::cpu {
namespace {

// Weights of a part: a multiple of every span, and few enough that four rows and their inputs stay in L1.
template <class Core>
inline constexpr int64_t kPart = 4096 / static_cast<int64_t>(sizeof(typename Core::T));

// Weights [k, k + count) of a row; k is a multiple of kPart. Asks for the bytes `ahead` of those it reads.
template <class Core, class Loader>
void DecodePart(const format::Matrix& given, const WeightRow& row, int64_t k, int64_t count, int64_t ahead,
                typename Core::T* out) {
  static_assert(kPart<Core> % Loader::kSpan == 0);
  const format::Matrix matrix = given;
  const format::Info& info = format::Of(matrix.format);
  const int64_t span_bytes = Loader::kSpan * info.block_bytes / info.block;
  const std::byte* soon = row.data + k * info.block_bytes / info.block + ahead;
  int64_t i = 0;
  for (; i + Loader::kSpan <= count; i += Loader::kSpan) {
    for (int64_t at = 0; at < span_bytes; at += 64) __builtin_prefetch(soon + at);
    soon += span_bytes;
    typename Core::Reg regs[kRegs<Core, Loader>];
    Loader::Load(matrix, row, (k + i) / Loader::kSpan, regs);
    for (int q = 0; q < kRegs<Core, Loader>; ++q) Core::Store(out + i + q * kLanes<Core>, regs[q]);
  }
  if (i == count) return;
  typename Core::Reg regs[kRegs<Core, Loader>];
  LoadByReference<Core, kRegs<Core, Loader>>(matrix, row, k + i, count - i, regs);
  alignas(64) typename Core::T part[Loader::kSpan];
  for (int q = 0; q < kRegs<Core, Loader>; ++q) Core::Store(part + q * kLanes<Core>, regs[q]);
  for (int64_t j = 0; i + j < count; ++j) out[i + j] = part[j];
}

template <class Core>
using PartDecoder = void (*)(const format::Matrix& matrix, const WeightRow& row, int64_t k, int64_t count,
                             int64_t ahead, typename Core::T* out);

// Plain is the loader of matrices of Core::T.
template <class Core, class Plain, int kN>
void MultiplyPartsOf(PartDecoder<Core> decode, const typename Core::T* A, int64_t lda,
                     const format::Matrix& matrix, int64_t row, int64_t rows, float* C, int64_t ldc) {
  using T = typename Core::T;
  constexpr int kR = kN <= 2 ? 4 : kN * 2 < Core::kRegisters ? 2 : 1;
  const format::Info& info = format::Of(matrix.format);
  const int64_t row_bytes = matrix.cols * info.block_bytes / info.block;
  const int64_t ahead = row_bytes < 4096 ? 4096 : row_bytes;
  alignas(64) T buffer[kR * kPart<Core>];
  format::Matrix plain;
  plain.format = sizeof(T) == sizeof(float) ? format::Format::kF32 : format::Format::kBf16;
  plain.rows = kR;
  plain.data = reinterpret_cast<const std::byte*>(buffer);
  for (int64_t r = 0; r < rows; r += kR) {
    // Surplus rows of the tile repeat the last one; their results are dropped.
    WeightRow from[kR];
    for (int64_t i = 0; i < kR; ++i) from[i] = RowOf(matrix, info, row + (r + i < rows ? r + i : rows - 1));
    float sum[kN][kR] = {};
    for (int64_t k = 0; k < matrix.cols; k += kPart<Core>) {
      plain.cols = matrix.cols - k < kPart<Core> ? matrix.cols - k : kPart<Core>;
      WeightRow decoded[kR];
      for (int64_t i = 0; i < kR; ++i) {
        decode(matrix, from[i], k, plain.cols, ahead, buffer + i * plain.cols);
        decoded[i].data = plain.data + i * plain.cols * static_cast<int64_t>(sizeof(T));
        decoded[i].index = i;
      }
      float part[kN][kR];
      FewTile<Core, Plain, kN, kR>(plain, decoded, A + k, lda, part);
      for (int n = 0; n < kN; ++n) {
        for (int i = 0; i < kR; ++i) sum[n][i] += part[n][i];
      }
    }
    for (int64_t n = 0; n < kN; ++n) {
      for (int64_t i = 0; i < kR && r + i < rows; ++i) C[n * ldc + r + i] = sum[n][i];
    }
  }
}

template <class Core, class Plain, int kN = kFewRows>
void MultiplyParts(PartDecoder<Core> decode, const typename Core::T* A, int64_t lda, int64_t N,
                   const format::Matrix& matrix, int64_t row, int64_t rows, float* C, int64_t ldc) {
  if constexpr (kN > 0) {
    if (N == kN) return MultiplyPartsOf<Core, Plain, kN>(decode, A, lda, matrix, row, rows, C, ldc);
    MultiplyParts<Core, Plain, kN - 1>(decode, A, lda, N, matrix, row, rows, C, ldc);
  }
}

template <class Core, class Plain, class Loader>
struct ByParts : Loader {
  static void MultiplyFew(const typename Core::T* A, int64_t lda, int64_t N, const format::Matrix& matrix,
                          int64_t row, int64_t rows, float* C, int64_t ldc) {
    MultiplyParts<Core, Plain>(DecodePart<Core, Loader>, A, lda, N, matrix, row, rows, C, ldc);
  }
};

}  // namespace
}  // namespace rung::cpu
