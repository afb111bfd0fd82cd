// Formats whose scales stand apart by tile (format::TileScales), on 256-bit registers: what the cores of AVX2
// and AVX-512 share. Include only from files compiled for AVX2 or above.
#pragma once

#include "kernels/cpu/panel_codes.h"

namespace rung::cpu {
namespace {

inline constexpr int64_t kApartSpan = 32;

// The group of all columns of a span, or -1 when they have several.
RUNG_INLINE int64_t GroupOf(const format::TileScales& tiles, int64_t span) {
  if (tiles.index) return -1;
  const auto width = static_cast<uint64_t>(tiles.cols), first = static_cast<uint64_t>(span * kApartSpan);
  const uint64_t last = first + kApartSpan - 1;
  // Tiles are mostly a power of two wide, and a division is slow.
  if ((width & (width - 1)) == 0) {
    const int bits = __builtin_ctzll(width);
    return first >> bits == last >> bits ? static_cast<int64_t>(first >> bits) : -1;
  }
  return first / width == last / width ? static_cast<int64_t>(first / width) : -1;
}

RUNG_INLINE int ZeroOf(const WeightRow& row, int64_t group) { return row.zeros ? row.zeros[group] : 0; }

// Scales and zeros of each column of a span whose groups are in any order.
[[gnu::noinline]] inline void ScalesOfColumns(const format::TileScales& tiles, const WeightRow& row,
                                              int64_t span, float* scales, int* zeros) {
  const int64_t first = span * kApartSpan;
  if (!tiles.index || !row.zeros) {
    for (int64_t i = 0; i < kApartSpan; ++i) {
      const int64_t group = tiles.index ? tiles.index[first + i] : (first + i) / tiles.cols;
      scales[i] = row.tile_scales[group];
      zeros[i] = ZeroOf(row, group);
    }
    return;
  }
  // Zeros are single bytes: gathered as the aligned dwords they lie in, which never leave their page.
  const auto address = reinterpret_cast<uintptr_t>(row.zeros);
  const __m256i offset = _mm256_set1_epi32(static_cast<int>(address % 4)), three = _mm256_set1_epi32(3);
  const auto* dwords = reinterpret_cast<const int*>(address - address % 4);
  for (int64_t i = 0; i < kApartSpan; i += 8) {
    const __m256i group = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(tiles.index + first + i));
    _mm256_store_ps(scales + i, _mm256_i32gather_ps(row.tile_scales, group, 4));
    const __m256i byte = _mm256_add_epi32(group, offset);
    const __m256i four = _mm256_i32gather_epi32(dwords, _mm256_srli_epi32(byte, 2), 4);
    const __m256i zero = _mm256_srlv_epi32(four, _mm256_slli_epi32(_mm256_and_si256(byte, three), 3));
    _mm256_store_si256(reinterpret_cast<__m256i*>(zeros + i), _mm256_and_si256(zero, _mm256_set1_epi32(255)));
  }
}

// E4M3 as f16 of 2^-8 times the value: exponent and fraction fit as they are. The two NaNs stay NaN.
inline constexpr float kE4m3Unit = 256.0f;
RUNG_INLINE __m256i E4m3AsF16(__m128i bytes) {
  const __m256i wide = _mm256_slli_epi16(_mm256_cvtepu8_epi16(bytes), 7);
  const __m256i magnitude = _mm256_and_si256(wide, _mm256_set1_epi16(0x3f80));
  const __m256i is_nan = _mm256_cmpeq_epi16(magnitude, _mm256_set1_epi16(0x3f80));
  // Bit 14 is the sign as it fell, 15 where it belongs.
  const __m256i sign = _mm256_slli_epi16(_mm256_srli_epi16(wide, 14), 15);
  return _mm256_or_si256(_mm256_or_si256(magnitude, sign),
                         _mm256_and_si256(is_nan, _mm256_set1_epi16(0x7c00)));
}

// The 32 codes of a span of kInt4.
RUNG_INLINE __m256i Int4Codes(const std::byte* at) {
  const __m128i bytes = Load128(at), mask = _mm_set1_epi8(15);
  const __m128i even = _mm_and_si128(bytes, mask), odd = _mm_and_si128(_mm_srli_epi16(bytes, 4), mask);
  return _mm256_set_m128i(_mm_unpackhi_epi8(even, odd), _mm_unpacklo_epi8(even, odd));
}

}  // namespace
}  // namespace rung::cpu
