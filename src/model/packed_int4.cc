#include "model/packed_int4.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

namespace rung::model {
namespace {

// The bits of a word where AWQ's kernels want the code of row n % 8: the inverse of 0 2 4 6 1 3 5 7.
constexpr std::array<int, kInt4Word> kAwqShift = {0, 16, 4, 20, 8, 24, 12, 28};

uint32_t WordAt(std::span<const std::byte> bytes, int64_t index) {
  uint32_t word;
  std::memcpy(&word, bytes.data() + index * 4, sizeof(word));
  return word;
}

Status CheckParts(const Int4Parts& p) {
  if (p.rows < kInt4Word || p.cols < kInt4Word || p.rows % kInt4Word != 0 || p.cols % kInt4Word != 0) {
    return Failure{fmt::format("{} x {}: rows and columns must be multiples of 8", p.rows, p.cols)};
  }
  if (p.groups < 1 || p.groups > p.cols) return Failure{fmt::format("{} groups of columns", p.groups)};
  const auto words = [](int64_t a, int64_t b) { return static_cast<size_t>(a * b / kInt4Word * 4); };
  if (p.qweight.size() != words(p.rows, p.cols) || p.qzeros.size() != words(p.groups, p.rows) ||
      p.scales.size() != static_cast<size_t>(p.groups * p.rows)) {
    return Failure{fmt::format("qweight, qzeros and scales are not those of {} x {} in {} groups", p.rows,
                               p.cols, p.groups)};
  }
  for (size_t i = 0; i < p.scales.size(); ++i) {
    if (std::isfinite(p.scales[i])) continue;
    const auto place = static_cast<int64_t>(i);
    return Failure{fmt::format("the scale of group {}, row {} is {}: the file is damaged", place / p.rows,
                               place % p.rows, p.scales[i])};
  }
  return Ok{};
}

// Rows [begin, end) of the codes, a multiple of 8 of them.
void RepackGptqRows(const Int4Parts& p, int64_t begin, int64_t end, std::byte* codes) {
  const int64_t words = p.cols / kInt4Word;
  for (int64_t w = 0; w < words; ++w) {
    // A word has the codes of 8 columns as they stand in a row.
    for (int64_t row = begin; row < end; ++row) {
      std::memcpy(codes + (row * words + w) * 4, p.qweight.data() + (w * p.rows + row) * 4, 4);
    }
  }
}

void RepackAwqRows(const Int4Parts& p, int64_t begin, int64_t end, std::byte* codes) {
  const int64_t bytes = p.cols / 2;
  for (int64_t col = 0; col < p.cols; col += 2) {
    for (int64_t row = begin; row < end; row += kInt4Word) {
      const uint32_t low = WordAt(p.qweight, (col * p.rows + row) / kInt4Word);
      const uint32_t high = WordAt(p.qweight, ((col + 1) * p.rows + row) / kInt4Word);
      for (int64_t r = 0; r < kInt4Word; ++r) {
        const int shift = kAwqShift[static_cast<size_t>(r)];
        codes[(row + r) * bytes + col / 2] =
            static_cast<std::byte>((low >> shift & 15u) | (high >> shift & 15u) << 4);
      }
    }
  }
}

}  // namespace

Result<Int4Matrix> RepackInt4(const Int4Parts& p) {
  if (Status checked = CheckParts(p); !checked.ok()) return checked.failure();
  Int4Matrix out;
  out.codes.resize(static_cast<size_t>(p.rows * p.cols / 2));
  out.scales.resize(static_cast<size_t>(p.rows * p.groups));
  out.zeros.resize(out.scales.size());
  // Rows that share cache lines of the file's words.
  constexpr int64_t kRows = 128;
  for (int64_t begin = 0; begin < p.rows; begin += kRows) {
    const int64_t end = std::min(begin + kRows, p.rows);
    (p.layout == Int4Layout::kGptq ? RepackGptqRows : RepackAwqRows)(p, begin, end, out.codes.data());
  }
  for (int64_t g = 0; g < p.groups; ++g) {
    for (int64_t row = 0; row < p.rows; ++row) {
      const auto place = static_cast<size_t>(row * p.groups + g);
      const int shift = p.layout == Int4Layout::kAwq ? kAwqShift[static_cast<size_t>(row % kInt4Word)]
                                                     : static_cast<int>(row % kInt4Word * 4);
      const unsigned stored = WordAt(p.qzeros, (g * p.rows + row) / kInt4Word) >> shift & 15u;
      out.scales[place] = p.scales[static_cast<size_t>(g * p.rows + row)];
      out.zeros[place] = static_cast<uint8_t>(p.zeros_less_one ? (stored + 1) & 15u : stored);
    }
  }
  return out;
}

Result<int64_t> GroupsOf(std::span<const int32_t> g_idx, int64_t cols, int64_t group,
                         std::vector<int32_t>* index) {
  index->clear();
  const int64_t width = group > 0 ? group : cols;
  const int64_t groups = (cols + width - 1) / width;
  if (g_idx.empty()) return groups;
  if (static_cast<int64_t>(g_idx.size()) != cols) {
    return Failure{fmt::format("g_idx has {} numbers for {} columns", g_idx.size(), cols)};
  }
  bool ascending = true;
  for (int64_t k = 0; k < cols; ++k) {
    const int32_t g = g_idx[static_cast<size_t>(k)];
    if (g < 0 || g >= groups) {
      return Failure{
          fmt::format("g_idx of column {} is {}, there are {} groups of {} columns", k, g, groups, width)};
    }
    ascending = ascending && g == k / width;
  }
  if (!ascending) index->assign(g_idx.begin(), g_idx.end());
  return groups;
}

format::Matrix ViewOf(const Int4Matrix& owned, int64_t rows, int64_t cols, int64_t groups, int64_t group) {
  format::Matrix matrix;
  matrix.format = format::Format::kInt4;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.data = owned.codes.data();
  matrix.tiles.scale = owned.scales.data();
  matrix.tiles.zero = owned.zeros.data();
  matrix.tiles.index = owned.index.empty() ? nullptr : owned.index.data();
  matrix.tiles.rows = 1;
  matrix.tiles.cols = group > 0 ? group : cols;
  matrix.tiles.groups = groups;
  return matrix;
}

uint64_t Int4Bytes(int64_t rows, int64_t cols, int64_t groups, bool has_index) {
  return static_cast<uint64_t>(rows * cols / 2 + rows * groups * 5 + (has_index ? cols * 4 : 0));
}

}  // namespace rung::model
