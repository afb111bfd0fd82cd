// The K-quants of GGUF as Codes (panel_codes.h): superblocks of 256 weights whose groups have whole-numbered
// scales of their own. Include only from files compiled for AVX2 or above.
#pragma once

#include "kernels/cpu/panel_codes.h"

namespace rung::cpu {
namespace {

// out = d * scale, 8 and 16 of them.
RUNG_INLINE void StoreScaled8(__m128i scales, float d, float* out) {
  _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_set1_ps(d), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(scales))));
}
RUNG_INLINE void StoreScaled16(__m128i scales, float d, float* out) {
  StoreScaled8(scales, d, out);
  StoreScaled8(_mm_unpackhi_epi64(scales, scales), d, out + 8);
}

// Two bits of each of 32 bytes: codes [32i, 32i + 32) of a half stand in bits 2i and 2i + 1.
RUNG_INLINE __m256i TwoBits(const std::byte* codes, int i) {
  return _mm256_and_si256(_mm256_srli_epi16(Load256(codes + 32 * (i / 4)), 2 * (i % 4)), _mm256_set1_epi8(3));
}
// Four bits: the low nibbles of 32 bytes, then their high nibbles.
RUNG_INLINE __m256i FourBits(const std::byte* codes, int i) {
  return _mm256_and_si256(_mm256_srli_epi16(Load256(codes + 32 * (i / 2)), 4 * (i % 2)),
                          _mm256_set1_epi8(15));
}

// 16 bytes of scales (low nibble: of codes, high: of minima), codes of two bits, f16 d, f16 dmin.
struct Q2KCodes {
  static constexpr int64_t kSpan = 256, kBytes = 84, kGroup = 16;
  static constexpr bool kOffset = true;
  RUNG_INLINE static void Scales(const std::byte* block, float* d, float* m) {
    const __m128i both = Load128(block), mask = _mm_set1_epi8(15);
    StoreScaled16(_mm_and_si128(both, mask), ReadF16(block + 80), d);
    StoreScaled16(_mm_and_si128(_mm_srli_epi16(both, 4), mask), -ReadF16(block + 82), m);
  }
  RUNG_INLINE static __m256i At(const std::byte* block, int i) { return TwoBits(block + 16, i); }
};

// 32 bytes of third bits, codes of two bits, 16 scales of six bits in 12 bytes, f16 d.
struct Q3KCodes {
  static constexpr int64_t kSpan = 256, kBytes = 110, kGroup = 16;
  static constexpr bool kOffset = false;
  RUNG_INLINE static void Scales(const std::byte* block, float* d, float*) {
    const __m128i low = Load64(block + 96), all = _mm_set1_epi32(ReadNumber<int>(block + 104));
    const __m128i nibbles = _mm_and_si128(_mm_unpacklo_epi64(low, _mm_srli_epi16(low, 4)), _mm_set1_epi8(15));
    const __m128i high = _mm_and_si128(_mm_srlv_epi32(all, _mm_setr_epi32(0, 2, 4, 6)), _mm_set1_epi8(3));
    const __m128i six = _mm_or_si128(nibbles, _mm_slli_epi16(high, 4));
    StoreScaled16(_mm_sub_epi8(six, _mm_set1_epi8(32)), ReadF16(block + 108), d);
  }
  RUNG_INLINE static __m256i At(const std::byte* block, int i) {
    // The third bit counts 4 and is stored inverted: set means that nothing is taken off.
    const __m256i bits = Load256(block);
    const __m256i moved = i < 2 ? _mm256_slli_epi16(bits, 2 - i) : _mm256_srli_epi16(bits, i - 2);
    const __m256i three =
        _mm256_or_si256(TwoBits(block + 32, i), _mm256_and_si256(moved, _mm256_set1_epi8(4)));
    return _mm256_sub_epi8(three, _mm256_set1_epi8(4));
  }
};

// d and dmin in f16, then 8 scales and 8 minima of six bits in 12 bytes: the first four of each in the low
// bits of bytes 0 ... 7, the last four as nibbles in bytes 8 ... 11 with their upper bits above the first.
RUNG_INLINE void StoreScalesAndMinima(const std::byte* header, float* d, float* m) {
  const auto a = ReadNumber<uint32_t>(header + 4), b = ReadNumber<uint32_t>(header + 8),
             c = ReadNumber<uint32_t>(header + 12);
  constexpr uint32_t kSix = 0x3f3f3f3f, kFour = 0x0f0f0f0f, kUpper = 0x30303030;
  const __m128i scales = _mm_insert_epi32(_mm_cvtsi32_si128(static_cast<int>(a & kSix)),
                                          static_cast<int>((c & kFour) | (a >> 2 & kUpper)), 1);
  const __m128i minima = _mm_insert_epi32(_mm_cvtsi32_si128(static_cast<int>(b & kSix)),
                                          static_cast<int>((c >> 4 & kFour) | (b >> 2 & kUpper)), 1);
  StoreScaled8(scales, ReadF16(header), d);
  StoreScaled8(minima, -ReadF16(header + 2), m);
}

struct Q4KCodes {
  static constexpr int64_t kSpan = 256, kBytes = 144, kGroup = 32;
  static constexpr bool kOffset = true;
  RUNG_INLINE static void Scales(const std::byte* block, float* d, float* m) {
    StoreScalesAndMinima(block, d, m);
  }
  RUNG_INLINE static __m256i At(const std::byte* block, int i) { return FourBits(block + 16, i); }
};

// As Q4_K, with 32 bytes of fifth bits before the nibbles.
struct Q5KCodes {
  static constexpr int64_t kSpan = 256, kBytes = 176, kGroup = 32;
  static constexpr bool kOffset = true;
  RUNG_INLINE static void Scales(const std::byte* block, float* d, float* m) {
    StoreScalesAndMinima(block, d, m);
  }
  RUNG_INLINE static __m256i At(const std::byte* block, int i) {
    const __m256i bits = Load256(block + 16);
    const __m256i moved = i < 4 ? _mm256_slli_epi16(bits, 4 - i) : _mm256_srli_epi16(bits, i - 4);
    return _mm256_or_si256(FourBits(block + 48, i), _mm256_and_si256(moved, _mm256_set1_epi8(16)));
  }
};

// 128 bytes of nibbles, 64 of upper bits, 16 scales of 8 bits, f16 d. Each half of the superblock takes its
// 128 codes from 64 bytes of nibbles, low ones first, and from 32 bytes of upper bits.
struct Q6KCodes {
  static constexpr int64_t kSpan = 256, kBytes = 210, kGroup = 16;
  static constexpr bool kOffset = false;
  RUNG_INLINE static void Scales(const std::byte* block, float* d, float*) {
    StoreScaled16(Load128(block + 192), ReadF16(block + 208), d);
  }
  RUNG_INLINE static __m256i At(const std::byte* block, int i) {
    const __m256i bytes = Load256(block + 64 * (i / 4) + 32 * (i % 2));
    const __m256i nibbles = _mm256_and_si256(_mm256_srli_epi16(bytes, 4 * (i / 2 % 2)), _mm256_set1_epi8(15));
    const __m256i upper = _mm256_slli_epi16(TwoBits(block + 128, i), 4);
    return _mm256_sub_epi8(_mm256_or_si256(nibbles, upper), _mm256_set1_epi8(32));
  }
};

}  // namespace
}  // namespace rung::cpu
