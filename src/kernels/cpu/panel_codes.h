// Block formats as whole numbers and scales, w = d * code + m, on 256-bit registers: what the cores of AVX2
// and AVX-512 share. Include only from files compiled for AVX2 or above.
//
// A Codes is one format:
//
//   kSpan, kBytes           weights and bytes of a block
//   kGroup                  weights that share a scale: 16, 32 or more
//   kOffset                 whether there is an m
//   Scales(block, d, m)     d and m of each group; m is untouched without kOffset
//   At(block, i)            codes [32i, 32i + 32), signed bytes
//
// Where there is an m, d * code is exact in f32: fused or not, the sum rounds once.
#pragma once

#include <immintrin.h>

#include <array>

#include "format/nf4.h"
#include "kernels/cpu/panel_table.h"

namespace rung::cpu {
namespace {

RUNG_INLINE __m128i Load64(const std::byte* at) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
}
RUNG_INLINE __m128i Load128(const std::byte* at) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}
RUNG_INLINE __m256i Load256(const std::byte* at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
}
template <class N>
RUNG_INLINE N ReadNumber(const std::byte* at) {
  N value;
  __builtin_memcpy(&value, at, sizeof(value));
  return value;
}
RUNG_INLINE float ReadF16(const std::byte* at) { return _cvtsh_ss(ReadNumber<uint16_t>(at)); }

// A copy made when compiling: std::array's functions must not be called from here.
struct LevelTable {
  alignas(64) float level[16];
};
constexpr LevelTable CopyOf(const std::array<float, 16>& levels) {
  LevelTable table{};
  for (size_t i = 0; i < 16; ++i) table.level[i] = levels[i];
  return table;
}

// 16 bytes: the low nibbles, then the high nibbles.
RUNG_INLINE __m256i NibbleHalves(const std::byte* at) {
  const __m128i bytes = Load128(at);
  return _mm256_and_si256(_mm256_set_m128i(_mm_srli_epi16(bytes, 4), bytes), _mm256_set1_epi8(15));
}

// 0xff in byte i where bit i of the 32 at `at` is set, 0 elsewhere.
RUNG_INLINE __m256i SpreadBits(const std::byte* at) {
  const __m256i all = _mm256_set1_epi32(ReadNumber<int>(at));
  const __m256i source = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
  const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201u));
  return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(all, source), bit), bit);
}

struct Q5_0Codes {
  static constexpr int64_t kSpan = 32, kBytes = 22, kGroup = 32;
  static constexpr bool kOffset = false;
  RUNG_INLINE static void Scales(const std::byte* block, float* d, float*) { d[0] = ReadF16(block); }
  RUNG_INLINE static __m256i At(const std::byte* block, int) {
    // Without its fifth bit a code is less by 16: four ones above the nibble.
    const __m256i above = _mm256_andnot_si256(SpreadBits(block + 2), _mm256_set1_epi8(-16));
    return _mm256_or_si256(NibbleHalves(block + 6), above);
  }
};

struct Q5_1Codes {
  static constexpr int64_t kSpan = 32, kBytes = 24, kGroup = 32;
  static constexpr bool kOffset = true;
  RUNG_INLINE static void Scales(const std::byte* block, float* d, float* m) {
    d[0] = ReadF16(block);
    m[0] = ReadF16(block + 2);
  }
  RUNG_INLINE static __m256i At(const std::byte* block, int) {
    const __m256i fifth = _mm256_and_si256(SpreadBits(block + 4), _mm256_set1_epi8(16));
    return _mm256_or_si256(NibbleHalves(block + 8), fifth);
  }
};

// The levels of IQ4_NL and IQ4_XS.
RUNG_INLINE __m256i Iq4Level(__m256i code) {
  const __m128i levels =
      _mm_setr_epi8(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113);
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(levels), code);
}

struct Iq4NlCodes {
  static constexpr int64_t kSpan = 32, kBytes = 18, kGroup = 32;
  static constexpr bool kOffset = false;
  RUNG_INLINE static void Scales(const std::byte* block, float* d, float*) { d[0] = ReadF16(block); }
  RUNG_INLINE static __m256i At(const std::byte* block, int) { return Iq4Level(NibbleHalves(block + 2)); }
};

// f16 d, 8 x 2 bits, 8 x 4 bits: scales of 6 bits less 32; then 8 times the codes of an IQ4_NL.
struct Iq4XsCodes {
  static constexpr int64_t kSpan = 256, kBytes = 136, kGroup = 32;
  static constexpr bool kOffset = false;
  RUNG_INLINE static void Scales(const std::byte* block, float* d, float*) {
    const __m128i low = _mm_cvtsi32_si128(ReadNumber<int>(block + 4));
    const __m128i nibbles = _mm_and_si128(_mm_unpacklo_epi8(low, _mm_srli_epi16(low, 4)), _mm_set1_epi8(15));
    const __m256i shift = _mm256_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14);
    const __m256i high = _mm256_and_si256(
        _mm256_srlv_epi32(_mm256_set1_epi32(ReadNumber<uint16_t>(block + 2)), shift), _mm256_set1_epi32(3));
    const __m256i six = _mm256_or_si256(_mm256_cvtepu8_epi32(nibbles), _mm256_slli_epi32(high, 4));
    const __m256 scale = _mm256_cvtepi32_ps(_mm256_sub_epi32(six, _mm256_set1_epi32(32)));
    _mm256_storeu_ps(d, _mm256_mul_ps(_mm256_set1_ps(ReadF16(block)), scale));
  }
  RUNG_INLINE static __m256i At(const std::byte* block, int i) {
    return Iq4Level(NibbleHalves(block + 8 + 16 * i));
  }
};

// A power of two, and codes of twice the levels of FP4 (E2M1).
struct Mxfp4Codes {
  static constexpr int64_t kSpan = 32, kBytes = 17, kGroup = 32;
  static constexpr bool kOffset = false;
  RUNG_INLINE static void Scales(const std::byte* block, float* d, float*) {
    const auto exponent = ReadNumber<uint8_t>(block);  // of twice d; below 2 d is subnormal
    const uint32_t bits = exponent < 2 ? 0x00200000u << exponent : static_cast<uint32_t>(exponent - 1) << 23;
    __builtin_memcpy(d, &bits, sizeof(bits));
  }
  RUNG_INLINE static __m256i At(const std::byte* block, int) {
    const __m128i levels = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(levels), NibbleHalves(block + 1));
  }
};

}  // namespace
}  // namespace rung::cpu
