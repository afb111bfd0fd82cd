// Formats whose scales stand apart by tile (TileScales).
#include <algorithm>
#include <array>
#include <bit>

#include "format/decoders.h"

namespace rung::format {
namespace {

// E4M3 without infinities: 4 bits of exponent with bias 7, 3 of mantissa, NaN at 0x7f and 0xff.
float F8Of(uint32_t code) {
  const uint32_t sign = (code & 0x80u) << 24, exponent = code >> 3 & 15u, mantissa = code & 7u;
  if ((code & 0x7fu) == 0x7fu) return std::bit_cast<float>(sign | 0x7ff00000u);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 120) << 23 | mantissa << 20);
  return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(static_cast<float>(mantissa) * 0x1p-9f));
}

std::array<float, 256> MakeF8Values() {
  std::array<float, 256> values;
  for (uint32_t code = 0; code < 256; ++code) values[code] = F8Of(code);
  return values;
}

// Calls run(row, column, stop, group) for stretches of columns of one row and one group.
template <class Run>
void ForEachRun(const Matrix& matrix, int64_t begin, int64_t end, const Run& run) {
  const TileScales& tiles = matrix.tiles;
  for (int64_t i = begin; i < end;) {
    const int64_t row = i / matrix.cols, k = i % matrix.cols;
    const int64_t group = tiles.index ? tiles.index[k] : k / tiles.cols;
    const int64_t width = tiles.index ? 1 : tiles.cols - k % tiles.cols;
    const int64_t stop = std::min({k + width, matrix.cols, k + end - i});
    run(row, k, stop, group);
    i += stop - k;
  }
}

}  // namespace

void DecodeF8E4m3(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  static const std::array<float, 256> values = MakeF8Values();
  const auto value = [&](int64_t i) { return values[std::to_integer<size_t>(matrix.data[i])]; };
  const TileScales& tiles = matrix.tiles;
  if (!tiles.scale) {
    for (int64_t i = begin; i < end; ++i) *out++ = value(i);
    return;
  }
  ForEachRun(matrix, begin, end, [&](int64_t row, int64_t k, int64_t stop, int64_t group) {
    const float scale = tiles.scale[row / tiles.rows * tiles.groups + group];
    for (; k < stop; ++k) *out++ = scale * value(row * matrix.cols + k);
  });
}

void DecodeInt4(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  const TileScales& tiles = matrix.tiles;
  ForEachRun(matrix, begin, end, [&](int64_t row, int64_t k, int64_t stop, int64_t group) {
    const float scale = tiles.scale[row / tiles.rows * tiles.groups + group];
    const int zero = tiles.zero ? tiles.zero[row * tiles.groups + group] : 0;
    for (; k < stop; ++k) {
      const int64_t i = row * matrix.cols + k;
      const int byte = std::to_integer<int>(matrix.data[i / 2]);
      *out++ = scale * static_cast<float>((i % 2 ? byte >> 4 : byte & 15) - zero);
    }
  });
}

}  // namespace rung::format
