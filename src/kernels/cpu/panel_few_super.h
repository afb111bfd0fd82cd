// Products of few rows with superblocks (panel_kquants.h) on AVX-512 with BF16: codes are dotted as the whole
// numbers that they are, and the f32 sums of a group are scaled. Nothing but sums is rounded, and no weight
// is built.
#pragma once

#include "kernels/cpu/panel_few_bf16.h"
#include "kernels/cpu/panel_kquants.h"

namespace rung::cpu {
namespace {

// The Bf16 of the whole numbers from -32 to 31, by their low six bits.
struct SmallNumbers {
  alignas(64) uint16_t bits[64];
};
constexpr SmallNumbers MakeSmallNumbers() {
  SmallNumbers numbers{};
  for (int i = 0; i < 64; ++i) {
    const float value = static_cast<float>(i < 32 ? i : i - 64);  // exact in eight bits of significand
    numbers.bits[i] = static_cast<uint16_t>(__builtin_bit_cast(uint32_t, value) >> 16);
  }
  return numbers;
}
inline constexpr SmallNumbers kSmallNumbers = MakeSmallNumbers();

RUNG_INLINE __m512i SmallNumbersOf(__m256i codes) {
  const __m512i low = _mm512_load_si512(kSmallNumbers.bits),
                high = _mm512_load_si512(kSmallNumbers.bits + 32);
  return _mm512_permutex2var_epi16(low, _mm512_cvtepi8_epi16(codes), high);
}

// Two groups of 16 share a register of sums: the factors of each, from a register of 16.
RUNG_INLINE __m512 FactorsOfHalves(__m512 factors, int i) {
  const __m512i first = _mm512_set1_epi32(2 * i);
  return _mm512_permutexvar_ps(_mm512_mask_add_epi32(first, 0xff00, first, _mm512_set1_epi32(1)), factors);
}

// Rows of A that a tile of weight rows is worth: with more, building each weight once is faster.
inline constexpr int kMostSuperRows = 4;
// Wider matrices are left to MultiplyParts.
inline constexpr int64_t kMostSuperCols = 32768;

// sums[n][g] = sum of group g of row n of A.
template <class Codes, int kN>
RUNG_TILE void SumGroups(const Bf16* A, int64_t lda, int64_t groups, float* sums) {
  const __m512i ones = _mm512_set1_epi16(0x3f80);
  for (int n = 0; n < kN; ++n) {
    const Bf16* a = A + n * lda;
    for (int64_t g = 0; g < groups; a += 32) {
      const __m512 pairs = DotBf16(_mm512_setzero_ps(), LoadBf16(a), ones);
      if constexpr (Codes::kGroup == 32) {
        sums[n * groups + g++] = _mm512_reduce_add_ps(pairs);
      } else {
        sums[n * groups + g++] = _mm512_mask_reduce_add_ps(0x00ff, pairs);
        sums[n * groups + g++] = _mm512_mask_reduce_add_ps(0xff00, pairs);
      }
    }
  }
}

// C[n*kR + r] for kR weight rows of `blocks` superblocks.
template <class Codes, int kN, int kR>
RUNG_TILE void SuperTile(const WeightRow* from, int64_t blocks, const Bf16* A, int64_t lda, const float* sums,
                         float* C) {
  constexpr int kGroups = static_cast<int>(Codes::kSpan / Codes::kGroup);
  const std::byte* rows[kR];
  __m512 dots[kR][kN];
  __m256 offset[kR][kN];
#pragma GCC unroll 4
  for (int r = 0; r < kR; ++r) {
    rows[r] = from[r].data;
#pragma GCC unroll 8
    for (int n = 0; n < kN; ++n) dots[r][n] = _mm512_setzero_ps();
#pragma GCC unroll 8
    for (int n = 0; n < kN; ++n) offset[r][n] = _mm256_setzero_ps();
  }
  // The next tile's rows, or later ones, one after the other; each step asks for as many bytes as it uses.
  const int64_t tile_bytes = kR * blocks * Codes::kBytes;
  const std::byte* ahead = rows[0] + (tile_bytes < kPrefetchBytes ? kPrefetchBytes : tile_bytes);
  for (int64_t block = 0; block < blocks; ++block) {
    for (int64_t at = 0; at < kR * Codes::kBytes; at += 64) __builtin_prefetch(ahead + at);
    ahead += kR * Codes::kBytes;
    const Bf16* a = A + block * Codes::kSpan;
#pragma GCC unroll 4
    for (int r = 0; r < kR; ++r) {
      const std::byte* at = rows[r] + block * Codes::kBytes;
      alignas(64) float d[kGroups], m[kGroups];
      Codes::Scales(at, d, m);
      asm("" : "+m"(d), "+m"(m));
      if constexpr (Codes::kOffset) {
#pragma GCC unroll 8
        for (int n = 0; n < kN; ++n) {
          const float* sum = sums + (n * blocks + block) * kGroups;
#pragma GCC unroll 2
          for (int g = 0; g < kGroups; g += 8) {
            offset[r][n] = _mm256_fmadd_ps(_mm256_load_ps(m + g), _mm256_loadu_ps(sum + g), offset[r][n]);
          }
        }
      }
#pragma GCC unroll 8
      for (int i = 0; i < Codes::kSpan / 32; ++i) {
        const __m512i codes = SmallNumbersOf(Codes::At(at, i));
        __m512 factors;
        if constexpr (Codes::kGroup == 32) {
          factors = _mm512_set1_ps(d[i]);
        } else {
          factors = FactorsOfHalves(_mm512_load_ps(d), i);
        }
#pragma GCC unroll 8
        for (int n = 0; n < kN; ++n) {
          const __m512 dot = DotBf16(_mm512_setzero_ps(), codes, LoadBf16(a + n * lda + 32 * i));
          dots[r][n] = _mm512_fmadd_ps(dot, factors, dots[r][n]);
        }
      }
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < kN; ++n) {
#pragma GCC unroll 4
    for (int r = 0; r < kR; ++r) {
      const __m512 both = _mm512_add_ps(dots[r][n], _mm512_zextps256_ps512(offset[r][n]));
      C[n * kR + r] = _mm512_reduce_add_ps(both);
    }
  }
}

template <class Codes, int kN>
void SuperFewOf(const Bf16* A, int64_t lda, const format::Matrix& matrix, int64_t row, int64_t rows, float* C,
                int64_t ldc) {
  constexpr int kR = kN <= 2 ? 4 : 2;
  alignas(64) float sums[Codes::kOffset ? kN * kMostSuperCols / Codes::kGroup : 1];
  const format::Info& info = format::Of(matrix.format);
  const int64_t blocks = matrix.cols / Codes::kSpan;
  if constexpr (Codes::kOffset) SumGroups<Codes, kN>(A, lda, matrix.cols / Codes::kGroup, sums);
  for (int64_t r = 0; r < rows; r += kR) {
    // Surplus rows of the tile repeat the last one; their results are dropped.
    WeightRow from[kR];
    for (int64_t i = 0; i < kR; ++i) from[i] = RowOf(matrix, info, row + (r + i < rows ? r + i : rows - 1));
    float result[kN * kR];
    SuperTile<Codes, kN, kR>(from, blocks, A, lda, sums, result);
    for (int64_t n = 0; n < kN; ++n) {
      for (int64_t i = 0; i < kR && r + i < rows; ++i) C[n * ldc + r + i] = result[n * kR + i];
    }
  }
}

template <class Codes, int kN = kMostSuperRows>
void SuperFew(const Bf16* A, int64_t lda, int64_t N, const format::Matrix& matrix, int64_t row, int64_t rows,
              float* C, int64_t ldc) {
  if constexpr (kN > 0) {
    if (N == kN) return SuperFewOf<Codes, kN>(A, lda, matrix, row, rows, C, ldc);
    SuperFew<Codes, kN - 1>(A, lda, N, matrix, row, rows, C, ldc);
  }
}

// A loader of superblocks whose products of few rows are dots of codes; of more, the loader's own.
template <class Loader, class Codes>
struct WithSuperDot : Loader {
  static void MultiplyFew(const Bf16* A, int64_t lda, int64_t N, const format::Matrix& matrix, int64_t row,
                          int64_t rows, float* C, int64_t ldc) {
    if (N <= kMostSuperRows && matrix.cols <= kMostSuperCols) {
      SuperFew<Codes>(A, lda, N, matrix, row, rows, C, ldc);
    } else {
      Loader::MultiplyFew(A, lda, N, matrix, row, rows, C, ldc);
    }
  }
};

}  // namespace
}  // namespace rung::cpu
