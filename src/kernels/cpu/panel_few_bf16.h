// Products of few rows with block formats on AVX-512 with BF16: codes are dotted as the whole numbers or
// levels that they are, and the f32 sum of a block is scaled. Nothing but sums is rounded, and no weight is
// built.
//
// A Dot is one format:
//
//   kBlock, kBytes          weights and bytes of a block
//   kMostRows               with more rows of A than these, building each weight once is faster
//   Inputs                  a block of A in the order in which the format's codes are unpacked
//   sums                    part of Inputs: the factors of (d, m) of a block, for four weight rows
//   Prepare(a)              Inputs of kBlock elements
//   Codes                   one block of codes; Load(bytes)
//   Dots(codes, inputs)     the sums of their products, in any order
//   Scales(...)             (d, m) of a block of up to four weight rows, also in memory; m may be any number
//   kOffset                 whether sums are used
#pragma once

#include "kernels/cpu/panel_avx512.h"

namespace rung::cpu {
namespace {

RUNG_INLINE __m512 DotBf16(__m512 sum, __m512i a, __m512i b) {
  return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}
RUNG_INLINE __m512i LoadBf16(const Bf16* p) { return _mm512_loadu_si512(p); }

// The first two f16 of a block of kR rows. By way of memory each can be broadcast without a shuffle.
template <int kR>
RUNG_INLINE __m256 ReadPairs(const WeightRow* rows, int64_t at, float* pairs) {
  __m128i all = _mm_loadu_si32(rows[0].data + at);
  const auto dword = [&](int r) __attribute__((always_inline)) {
    int bits;
    __builtin_memcpy(&bits, rows[r].data + at, sizeof(bits));
    return bits;
  };
  if constexpr (kR > 1) all = _mm_insert_epi32(all, dword(1), 1);
  if constexpr (kR > 2) all = _mm_insert_epi32(_mm_insert_epi32(all, dword(2), 2), dword(3), 3);
  const __m256 wide = _mm256_cvtph_ps(all);
  _mm256_store_ps(pairs, wide);
  return wide;
}

// Blocks of 16 bytes of codes: byte i is weight i (low nibble) and weight 16 + i (high nibble). Each of the
// four lanes of a register takes one nibble of all eight words and puts it into the significand of 16.0: the
// Bf16 is 16 + code. What that and the block's minimum add, kBias * d + m, is the same for all weights: it
// multiplies the sum of the inputs.
template <int kBlockBytes, int kCodesAt, int kBias, bool kHasMinimum>
struct DotQ4 {
  static constexpr int64_t kBlock = 32, kBytes = kBlockBytes;
  static constexpr bool kOffset = true;
  struct Inputs {
    __m512i x;
    __m256 sums;
  };
  struct Codes {
    __m512i x;
  };
  static constexpr uint16_t Source(int word) {
    const int nibble = word / 8, byte = word % 8 * 2 + nibble / 2;
    return static_cast<uint16_t>(nibble % 2 * 16 + byte);
  }
  struct Tables {
    alignas(64) uint16_t source[32];
    alignas(64) uint8_t shift[64];
  };
  static constexpr Tables kTables = [] {
    Tables tables{};
    for (int i = 0; i < 32; ++i) tables.source[i] = Source(i);
    // Bits 3 to 6 of each word are the nibble.
    for (int i = 0; i < 64; ++i)
      tables.shift[i] = static_cast<uint8_t>((i % 8 / 2 * 16 + i / 16 * 4 + 61) % 64);
    return tables;
  }();

  RUNG_INLINE static Inputs Prepare(const Bf16* a) {
    const __m512i x = LoadBf16(a), ones = _mm512_set1_epi16(0x3f80);
    const float sum = _mm512_reduce_add_ps(DotBf16(_mm512_setzero_ps(), x, ones));
    const float d = kBias * sum, m = kHasMinimum ? sum : 0.0f;
    return {_mm512_permutexvar_epi16(_mm512_load_si512(kTables.source), x),
            _mm256_setr_ps(d, m, d, m, d, m, d, m)};
  }
  RUNG_INLINE static Codes Load(const std::byte* block) {
    const __m512i all = _mm512_broadcast_i32x4(Load128(block + kCodesAt));
    const __m512i shifted = _mm512_multishift_epi64_epi8(_mm512_load_si512(kTables.shift), all);
    constexpr int kAndOr = 0xea;  // (first & second) | third
    return {_mm512_ternarylogic_epi32(shifted, _mm512_set1_epi16(0x0078), _mm512_set1_epi16(0x4180), kAndOr)};
  }
  RUNG_INLINE static __m512 Dots(const Codes& codes, const Inputs& in) {
    return DotBf16(_mm512_setzero_ps(), codes.x, in.x);
  }
  template <int kR>
  RUNG_INLINE static __m256 Scales(const WeightRow* rows, int64_t block, float* pairs) {
    const __m256 wide = ReadPairs<kR>(rows, block * kBytes, pairs);
    // Without a minimum, m is made of codes: an infinite one would make 0 * m a NaN.
    return kHasMinimum ? wide : _mm256_moveldup_ps(wide);
  }
};
struct DotQ4_0 : DotQ4<18, 2, -24, false> {
  static constexpr int64_t kMostRows = 2;
};
struct DotQ4_1 : DotQ4<20, 4, -16, true> {
  static constexpr int64_t kMostRows = 5;
};

RUNG_INLINE __m512 WidenLow(__m512i x) { return VecAvx512::Widen(_mm512_castsi512_si256(x)); }
RUNG_INLINE __m512 WidenHigh(__m512i x) { return VecAvx512::Widen(_mm512_extracti64x4_epi64(x, 1)); }

struct DotQ8_0 {
  static constexpr int64_t kBlock = 32, kBytes = 34, kMostRows = 2;
  static constexpr bool kOffset = false;
  struct Inputs {
    __m512 x[2];
    static constexpr __m256 sums = {};
  };
  struct Codes {
    __m512 x[2];
  };
  RUNG_INLINE static Inputs Prepare(const Bf16* a) {
    const __m512i x = LoadBf16(a);
    return {{WidenLow(x), WidenHigh(x)}};
  }
  RUNG_INLINE static Codes Load(const std::byte* block) {
    return {{_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(Load128(block + 2))),
             _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(Load128(block + 18)))}};
  }
  RUNG_INLINE static __m512 Dots(const Codes& codes, const Inputs& in) {
    return _mm512_fmadd_ps(codes.x[1], in.x[1], _mm512_mul_ps(codes.x[0], in.x[0]));
  }
  template <int kR>
  RUNG_INLINE static __m256 Scales(const WeightRow* rows, int64_t block, float* pairs) {
    return ReadPairs<kR>(rows, block * kBytes, pairs);
  }
};

// How far ahead of use weights are asked for, at least: rows are too short for the processor to foresee the
// next.
constexpr int64_t kPrefetchBytes = 4096;

// C[n*kR + r] for kR weight rows of `blocks` blocks.
template <class Dot, int kN, int kR>
RUNG_TILE void DotTile(const WeightRow* from, int64_t blocks, const typename Dot::Inputs* inputs, float* C) {
  WeightRow rows[kR];
  __m512 dots[kR][kN];
  __m256 offset[kN];
#pragma GCC unroll 4
  for (int r = 0; r < kR; ++r) {
    rows[r] = from[r];
#pragma GCC unroll 8
    for (int n = 0; n < kN; ++n) dots[r][n] = _mm512_setzero_ps();
  }
#pragma GCC unroll 8
  for (int n = 0; n < kN; ++n) offset[n] = _mm256_setzero_ps();
  // The next tile's rows, or later ones, one after the other; each step asks for as many bytes as it uses.
  const int64_t tile_bytes = kR * blocks * Dot::kBytes;
  const std::byte* ahead = rows[0].data + (tile_bytes < kPrefetchBytes ? kPrefetchBytes : tile_bytes);
  for (int64_t block = 0; block < blocks; ++block) {
#pragma GCC unroll 4
    for (int64_t at = 0; at < kR * Dot::kBytes; at += 64) __builtin_prefetch(ahead + at);
    ahead += kR * Dot::kBytes;
    const typename Dot::Inputs* in = inputs + block;
    alignas(32) float pairs[8];
    const __m256 scales = Dot::template Scales<kR>(rows, block, pairs);
    asm("" : "+m"(pairs));
    if constexpr (Dot::kOffset) {
#pragma GCC unroll 8
      for (int n = 0; n < kN; ++n) offset[n] = _mm256_fmadd_ps(scales, in[n * blocks].sums, offset[n]);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kR; ++r) {
      const typename Dot::Codes codes = Dot::Load(rows[r].data + block * Dot::kBytes);
#pragma GCC unroll 8
      for (int n = 0; n < kN; ++n) {
        dots[r][n] =
            _mm512_fmadd_ps(Dot::Dots(codes, in[n * blocks]), _mm512_set1_ps(pairs[2 * r]), dots[r][n]);
      }
    }
  }
#pragma GCC unroll 8
  for (int n = 0; n < kN; ++n) {
    alignas(32) float both[8];
    _mm256_store_ps(both, offset[n]);
#pragma GCC unroll 4
    for (int r = 0; r < kR; ++r) {
      C[n * kR + r] = _mm512_reduce_add_ps(dots[r][n]) + (both[2 * r] + both[2 * r + 1]);
    }
  }
}

// Wider matrices are left to MultiplyFew: with their inputs in the way, this is not faster.
constexpr int64_t kMostDotCols = 2048;

template <class Dot, int kN>
void DotFewOf(const Bf16* A, int64_t lda, const format::Matrix& matrix, int64_t row, int64_t rows, float* C,
              int64_t ldc) {
  constexpr int kR = kN <= 2 ? 4 : kN <= 4 ? 2 : 1;
  typename Dot::Inputs inputs[kN * kMostDotCols / Dot::kBlock];  // (N, blocks)
  const format::Info& info = format::Of(matrix.format);
  const int64_t blocks = matrix.cols / Dot::kBlock;
  for (int64_t at = 0; at < kPrefetchBytes; at += 64) {
    __builtin_prefetch(matrix.data + row * blocks * Dot::kBytes + at);
  }
  for (int n = 0; n < kN; ++n) {
    for (int64_t b = 0; b < blocks; ++b) inputs[n * blocks + b] = Dot::Prepare(A + n * lda + b * Dot::kBlock);
  }
  for (int64_t r = 0; r < rows; r += kR) {
    // Surplus rows of the tile repeat the last one; their results are dropped.
    WeightRow from[kR];
    for (int64_t i = 0; i < kR; ++i) from[i] = RowOf(matrix, info, row + (r + i < rows ? r + i : rows - 1));
    float result[kN * kR];
    DotTile<Dot, kN, kR>(from, blocks, inputs, result);
    for (int64_t n = 0; n < kN; ++n) {
      for (int64_t i = 0; i < kR && r + i < rows; ++i) C[n * ldc + r + i] = result[n * kR + i];
    }
  }
}

template <class Dot, int kN = Dot::kMostRows>
void DotFew(const Bf16* A, int64_t lda, int64_t N, const format::Matrix& matrix, int64_t row, int64_t rows,
            float* C, int64_t ldc) {
  if constexpr (kN > 0) {
    if (N == kN) return DotFewOf<Dot, kN>(A, lda, matrix, row, rows, C, ldc);
    DotFew<Dot, kN - 1>(A, lda, N, matrix, row, rows, C, ldc);
  }
}

// A loader whose products of few rows are a Dot's.
template <class Core, class Loader, class Dot>
struct WithDot : Loader {
  static void MultiplyFew(const Bf16* A, int64_t lda, int64_t N, const format::Matrix& matrix, int64_t row,
                          int64_t rows, float* C, int64_t ldc) {
    if (N <= Dot::kMostRows && matrix.cols <= kMostDotCols) {
      DotFew<Dot>(A, lda, N, matrix, row, rows, C, ldc);
    } else {
      cpu::MultiplyFew<Core, Loader>(A, lda, N, matrix, row, rows, C, ldc);
    }
  }
};

}  // namespace
}  // namespace rung::cpu
