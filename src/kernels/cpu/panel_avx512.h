// What the f32 and the Bf16 cores of AVX-512 share. Include only from files compiled for AVX-512.
#pragma once

#include <immintrin.h>

#include "format/nf4.h"
#include "kernels/cpu/panel_codes.h"

namespace rung::cpu {
namespace {

// 16 x 16 dwords.
RUNG_INLINE void Transpose16(__m512i* r) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  // Now r[4a + c] holds, in lane l, column 4l + c of rows 4a ... 4a+3.
#pragma GCC unroll 4
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  // A 4 x 4 transpose of lanes for each c.
#pragma GCC unroll 4
  for (int c = 0; c < 4; ++c) {
    const __m512i low01 = _mm512_shuffle_i32x4(r[c], r[c + 4], 0x44);
    const __m512i high01 = _mm512_shuffle_i32x4(r[c], r[c + 4], 0xee);
    const __m512i low23 = _mm512_shuffle_i32x4(r[c + 8], r[c + 12], 0x44);
    const __m512i high23 = _mm512_shuffle_i32x4(r[c + 8], r[c + 12], 0xee);
    r[c] = _mm512_shuffle_i32x4(low01, low23, 0x88);
    r[c + 4] = _mm512_shuffle_i32x4(low01, low23, 0xdd);
    r[c + 8] = _mm512_shuffle_i32x4(high01, high23, 0x88);
    r[c + 12] = _mm512_shuffle_i32x4(high01, high23, 0xdd);
  }
}

// Broadcast before it is widened: fewer instructions than the other way round.
RUNG_INLINE __m512 BroadcastF16(const std::byte* at) {
  return _mm512_cvtph_ps(_mm256_set1_epi16(ReadNumber<short>(at)));
}

// Formats of 4-bit codes: the 16 weights that a block can hold, as Levels(matrix, row, span) computes them,
// then a look-up of each code in them.
template <const std::array<float, 16>& kLevels>
struct BlockScaledLevels {
  static constexpr LevelTable kTable = CopyOf(kLevels);
  static constexpr int64_t kSpan = 64, kBytes = 32;
  static constexpr bool kInOrder = true;  // neighbours share a byte, the first in the high nibble
  RUNG_INLINE static __m512 Levels(const format::Matrix& matrix, const WeightRow& row, int64_t span) {
    const float scale = ScaleOf(matrix.scales, row.first_block + span);
    return _mm512_mul_ps(_mm512_load_ps(kTable.level), _mm512_set1_ps(scale));
  }
  RUNG_INLINE static const std::byte* Codes(const WeightRow& row, int64_t span) {
    return row.data + span * kBytes;
  }
};
using Nf4Levels = BlockScaledLevels<format::kNf4Level>;
using Fp4Levels = BlockScaledLevels<format::kFp4Level>;

RUNG_INLINE __m512 Integers(float first) {
  return _mm512_add_ps(_mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                       _mm512_set1_ps(first));
}

struct Q4_0Levels {
  static constexpr int64_t kSpan = 32, kBytes = 18;
  static constexpr bool kInOrder = false;  // the block's halves share bytes, the first in the low nibbles
  RUNG_INLINE static __m512 Levels(const format::Matrix&, const WeightRow& row, int64_t span) {
    return _mm512_mul_ps(Integers(-8.0f), BroadcastF16(row.data + span * kBytes));
  }
  RUNG_INLINE static const std::byte* Codes(const WeightRow& row, int64_t span) {
    return row.data + span * kBytes + 2;
  }
};

struct Q4_1Levels {
  static constexpr int64_t kSpan = 32, kBytes = 20;
  static constexpr bool kInOrder = false;
  RUNG_INLINE static __m512 Levels(const format::Matrix&, const WeightRow& row, int64_t span) {
    const std::byte* block = row.data + span * kBytes;
    // By way of memory: a broadcast load costs no shuffle, and shuffles set the pace here.
    float d_and_m[4];
    _mm_storeu_ps(d_and_m, _mm_cvtph_ps(_mm_loadu_si32(block)));
    asm("" : "+m"(d_and_m));
    // d * q is exact in f32: fused or not, the sum rounds once.
    return _mm512_fmadd_ps(Integers(0.0f), _mm512_set1_ps(d_and_m[0]), _mm512_set1_ps(d_and_m[1]));
  }
  RUNG_INLINE static const std::byte* Codes(const WeightRow& row, int64_t span) {
    return row.data + span * kBytes + 4;
  }
};

}  // namespace
}  // namespace rung::cpu
