// GPTQ's and AWQ's packed codes turned into rows of Format::kInt4. Layouts: docs/formats/int4.md.
//
// A layer (out = rows, in = cols) is stored transposed: groups of columns share a scale and a zero point for
// each row, and 32-bit words hold eight codes, the first in the lowest bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/result.h"
#include "format/format.h"

namespace rung::model {

inline constexpr int64_t kInt4Word = 8;  // codes of a word

enum class Int4Layout : uint8_t { kGptq, kAwq };

// What a file has of one matrix, whole.
struct Int4Parts {
  Int4Layout layout = Int4Layout::kGptq;
  int64_t rows = 0, cols = 0;
  int64_t groups = 0;
  std::span<const std::byte> qweight;  // u32: kGptq (cols/8, rows), kAwq (cols, rows/8)
  std::span<const std::byte> qzeros;   // u32 (groups, rows/8)
  std::span<const float> scales;       // (groups, rows)
  bool zeros_less_one = false;         // a zero point is what is stored + 1, modulo 16
};

// In the form of TileScales; moving it does not move what it points to.
struct Int4Matrix {
  std::vector<std::byte> codes;  // (rows, cols/2)
  std::vector<float> scales;     // (rows, groups)
  std::vector<uint8_t> zeros;    // (rows, groups)
  std::vector<int32_t> index;    // (cols), or empty: column k is of group k / group_cols
};

// Checks extents: rows and cols positive multiples of 8, every part of its exact size, scales finite. The
// message has no name of the tensor: the caller's.
Result<Int4Matrix> RepackInt4(const Int4Parts& parts);

// Groups of columns as a file has them: `g_idx` empty where there is none, `group` columns in a group (0:
// all). *index stays empty where column k belongs to group k / group. Returns the number of groups.
Result<int64_t> GroupsOf(std::span<const int32_t> g_idx, int64_t cols, int64_t group,
                         std::vector<int32_t>* index);

// A view of `owned`, which outlives it. group: columns of a group where there is no index.
format::Matrix ViewOf(const Int4Matrix& owned, int64_t rows, int64_t cols, int64_t groups, int64_t group);

// Bytes that such a matrix takes, scales and zero points included.
uint64_t Int4Bytes(int64_t rows, int64_t cols, int64_t groups, bool has_index);

}  // namespace rung::model
