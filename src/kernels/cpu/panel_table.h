// The table of an ISA: a row per format, and the rest of PanelKernels.
#pragma once

#include "kernels/cpu/panel_decode.h"
#include "kernels/cpu/panel_few.h"
#include "kernels/cpu/panel_multiply.h"

namespace rung::cpu {
namespace {

template <class Core>
struct FormatKernels {
  using T = typename Core::T;
  void (*decode_columns)(const format::Matrix& matrix, int64_t row, int64_t rows, int64_t begin, int64_t end,
                         T* out, int64_t ld);
  void (*decode_panel)(const format::Matrix& matrix, int64_t row, int64_t rows, T* panel);
  void (*multiply_few)(const T* A, int64_t lda, int64_t N, const format::Matrix& matrix, int64_t row,
                       int64_t rows, float* C, int64_t ldc);
};

// A loader may bring its own product of few rows.
template <class Core, class Loader>
constexpr FormatKernels<Core> KernelsOf() {
  if constexpr (requires { Loader::MultiplyFew; }) {
    return {DecodeColumns<Core, Loader>, DecodePanel<Core, Loader>, Loader::MultiplyFew};
  } else {
    return {DecodeColumns<Core, Loader>, DecodePanel<Core, Loader>, MultiplyFew<Core, Loader>};
  }
}

// One loader per format, in the order of format::Format; ReferenceLoader<Core> where there is no faster one.
template <class Core, class... Loaders>
struct FormatTable {
  static_assert(sizeof...(Loaders) == format::kFormatCount);
  static const FormatKernels<Core>& For(const format::Matrix& matrix) {
    static constexpr FormatKernels<Core> kByReference = KernelsOf<Core, ReferenceLoader<Core>>();
    static constexpr FormatKernels<Core> kTable[] = {KernelsOf<Core, Loaders>()...};
    // A row that starts inside a block (NF4 and FP4 only) is beyond the loaders.
    if (matrix.cols % format::Of(matrix.format).block != 0) return kByReference;
    return kTable[static_cast<int>(matrix.format)];
  }
  static void Rows(const format::Matrix& matrix, int64_t row, int64_t rows, typename Core::T* out,
                   int64_t ld) {
    For(matrix).decode_columns(matrix, row, rows, 0, matrix.cols, out, ld);
  }
  static void Columns(const format::Matrix& matrix, int64_t row, int64_t rows, int64_t begin, int64_t end,
                      typename Core::T* out, int64_t ld) {
    For(matrix).decode_columns(matrix, row, rows, begin, end, out, ld);
  }
  static void Panel(const format::Matrix& matrix, int64_t row, int64_t rows, typename Core::T* panel) {
    For(matrix).decode_panel(matrix, row, rows, panel);
  }
  static void Few(const typename Core::T* A, int64_t lda, int64_t N, const format::Matrix& matrix,
                  int64_t row, int64_t rows, float* C, int64_t ldc) {
    For(matrix).multiply_few(A, lda, N, matrix, row, rows, C, ldc);
  }
};

template <class Core, class Table>
constexpr PanelKernels<typename Core::T> MakePanelKernels() {
  return {Table::Rows,    Table::Columns,   Table::Panel, PackRows<Core>,  PackCols<Core>,
          Multiply<Core>, MultiplyTo<Core>, Table::Few,   AddBiasTo<Core>, Spin<Core>};
}

}  // namespace
}  // namespace rung::cpu
