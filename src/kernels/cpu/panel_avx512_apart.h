// Formats whose scales stand apart by tile, for both cores of AVX-512. Include only from files compiled for
// AVX-512.
#pragma once

#include "kernels/cpu/panel_apart.h"
#include "kernels/cpu/panel_avx512_weights.h"

namespace rung::cpu {
namespace {

struct E4m3Weights {
  static constexpr int64_t kSpan = kApartSpan;
  const std::byte* at;
  __m512 scale[2];
  RUNG_INLINE E4m3Weights(const format::Matrix& matrix, const WeightRow& row, int64_t span)
      : at(row.data + span * kSpan) {
    if (!row.tile_scales) {
      scale[0] = scale[1] = _mm512_set1_ps(1.0f);
    } else if (const int64_t group = GroupOf(matrix.tiles, span); group >= 0) {
      scale[0] = scale[1] = _mm512_set1_ps(row.tile_scales[group]);
    } else {
      alignas(64) float scales[kSpan];
      alignas(64) int zeros[kSpan];
      ScalesOfColumns(matrix.tiles, row, span, scales, zeros);
      for (int i = 0; i < 2; ++i) scale[i] = _mm512_load_ps(scales + 16 * i);
    }
  }
  RUNG_INLINE void Pair(int, __m512* out) const {
    for (int i = 0; i < 2; ++i) {
      const __m512 value = _mm512_cvtph_ps(E4m3AsF16(Load128(at + 16 * i)));
      out[i] = _mm512_mul_ps(_mm512_mul_ps(value, _mm512_set1_ps(kE4m3Unit)), scale[i]);
    }
  }
};

// As ScalesOfColumns, of act-order's groups: by look-ups in tables of 16 or 32 groups, a fraction of what
// gathering costs while groups are few.
inline constexpr int64_t kMostTableGroups = 256;
RUNG_TILE inline void LookUpScales(const format::TileScales& tiles, const WeightRow& row, int64_t span,
                                   float* scales, int* zeros) {
  const int32_t* first = tiles.index + span * kApartSpan;
  const __m512i index[2] = {_mm512_loadu_si512(first), _mm512_loadu_si512(first + 16)};
  __m512 scale[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
  __m512i zero[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (int64_t at = 0; at < tiles.groups; at += 32) {
    const int64_t left = tiles.groups - at;
    const __mmask32 all = left >= 32 ? ~0u : (1u << left) - 1;
    const auto low_half = static_cast<__mmask16>(all), high_half = static_cast<__mmask16>(all >> 16);
    const __m256i bytes = row.zeros ? _mm256_maskz_loadu_epi8(all, row.zeros + at) : _mm256_setzero_si256();
    const __m512 low = _mm512_maskz_loadu_ps(low_half, row.tile_scales + at);
    const __m512i low_zero = _mm512_cvtepu8_epi32(_mm256_castsi256_si128(bytes));
    if (tiles.groups <= 16) {
      for (int i = 0; i < 2; ++i) {
        scale[i] = _mm512_permutexvar_ps(index[i], low);
        zero[i] = _mm512_permutexvar_epi32(index[i], low_zero);
      }
      break;
    }
    const __m512 high = _mm512_maskz_loadu_ps(high_half, row.tile_scales + at + 16);
    const __m512i high_zero = _mm512_cvtepu8_epi32(_mm256_extracti128_si256(bytes, 1));
    for (int i = 0; i < 2; ++i) {
      const __mmask16 here = _mm512_cmpeq_epi32_mask(_mm512_srli_epi32(index[i], 5),
                                                     _mm512_set1_epi32(static_cast<int>(at / 32)));
      scale[i] = _mm512_mask_mov_ps(scale[i], here, _mm512_permutex2var_ps(low, index[i], high));
      zero[i] =
          _mm512_mask_mov_epi32(zero[i], here, _mm512_permutex2var_epi32(low_zero, index[i], high_zero));
    }
  }
#pragma GCC unroll 2
  for (int i = 0; i < 2; ++i) {
    _mm512_store_ps(scales + 16 * i, scale[i]);
    _mm512_store_si512(zeros + 16 * i, zero[i]);
  }
}

struct Int4Weights {
  static constexpr int64_t kSpan = kApartSpan;
  const std::byte* at;
  __m512 scale[2];
  __m512i zero[2];
  RUNG_INLINE Int4Weights(const format::Matrix& matrix, const WeightRow& row, int64_t span)
      : at(row.data + span * (kSpan / 2)) {
    if (const int64_t group = GroupOf(matrix.tiles, span); group >= 0) {
      scale[0] = scale[1] = _mm512_set1_ps(row.tile_scales[group]);
      zero[0] = zero[1] = _mm512_set1_epi32(ZeroOf(row, group));
      return;
    }
    alignas(64) float scales[kSpan];
    alignas(64) int zeros[kSpan];
    if (matrix.tiles.index && matrix.tiles.groups <= kMostTableGroups) {
      LookUpScales(matrix.tiles, row, span, scales, zeros);
    } else {
      ScalesOfColumns(matrix.tiles, row, span, scales, zeros);
    }
    for (int i = 0; i < 2; ++i) {
      scale[i] = _mm512_load_ps(scales + 16 * i);
      zero[i] = _mm512_load_si512(zeros + 16 * i);
    }
  }
  RUNG_INLINE void Pair(int, __m512* out) const {
    const __m256i bytes = Int4Codes(at);
    const __m512i codes[2] = {_mm512_cvtepu8_epi32(_mm256_castsi256_si128(bytes)),
                              _mm512_cvtepu8_epi32(_mm256_extracti128_si256(bytes, 1))};
    for (int i = 0; i < 2; ++i) {
      out[i] = _mm512_mul_ps(scale[i], _mm512_cvtepi32_ps(_mm512_sub_epi32(codes[i], zero[i])));
    }
  }
};

}  // namespace
}  // namespace rung::cpu
