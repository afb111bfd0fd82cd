#include "kernels/cpu/attention_blocks.h"

namespace rung::cpu {
namespace {

// The sums of four vectors.
__m128 SumsOf(const __m512 (&x)[4]) {
  const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(x[0], x[1]), _mm512_unpackhi_ps(x[0], x[1]));
  const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(x[2], x[3]), _mm512_unpackhi_ps(x[2], x[3]));
  const __m512i low = _mm512_unpacklo_epi64(_mm512_castps_si512(ab), _mm512_castps_si512(cd));
  const __m512i high = _mm512_unpackhi_epi64(_mm512_castps_si512(ab), _mm512_castps_si512(cd));
  const __m512 all = _mm512_add_ps(_mm512_castsi512_ps(low), _mm512_castsi512_ps(high));
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(all), _mm512_extractf32x8_ps(all, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}

// kRows queries of width 32 * kRegs, which stay in registers, by all keys.
template <int kRows, int kRegs>
void ScoresOfRows(const float* q, const Bf16* k, int64_t ldk, int64_t keys, float* score, int64_t ld_score,
                  const Bf16* next, int64_t ld_next) {
  constexpr int64_t D = 32 * kRegs;
  __m512bh query[kRows][kRegs];
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < kRegs; ++i) {
      const float* at = q + r * D + i * 32;
      query[r][i] = _mm512_cvtne2ps_pbh(_mm512_loadu_ps(at + 16), _mm512_loadu_ps(at));
    }
  }
  for (int64_t j = 0; j < keys; j += 4) {
    const Bf16* key[4];
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t row = Smaller(j + i, keys - 1);  // surplus keys repeat the last one
      key[i] = k + row * ldk;
      if (next) Prefetch(next + row * ld_next, D);
    }
    __m512 sum[kRows][4];
    for (int i = 0; i < 4; ++i) {
      for (int r = 0; r < kRows; ++r) sum[r][i] = _mm512_setzero_ps();
      for (int d = 0; d < kRegs; ++d) {
        const auto x = (__m512bh)_mm512_loadu_si512(key[i] + 32 * d);
        for (int r = 0; r < kRows; ++r) sum[r][i] = _mm512_dpbf16_ps(sum[r][i], query[r][d], x);
      }
    }
    for (int r = 0; r < kRows; ++r) {
      float* to = score + r * ld_score + j;
      if (keys - j >= 4) {
        _mm_storeu_ps(to, SumsOf(sum[r]));
      } else {
        _mm_mask_storeu_ps(to, static_cast<__mmask8>((1 << (keys - j)) - 1), SumsOf(sum[r]));
      }
    }
  }
}

template <int kRegs>
void ScoresOfWidth(const float* q, int64_t rows, const Bf16* k, int64_t ldk, int64_t keys, float* score,
                   int64_t ld_score, const Bf16* next, int64_t ld_next) {
  for (int64_t r = 0, n = 0; r < rows; r += n) {
    n = RowsOfTile(rows - r);
    const float* from = q + r * 32 * kRegs;
    float* to = score + r * ld_score;
    if (n == 3) {
      ScoresOfRows<3, kRegs>(from, k, ldk, keys, to, ld_score, next, ld_next);
    } else if (n == 2) {
      ScoresOfRows<2, kRegs>(from, k, ldk, keys, to, ld_score, next, ld_next);
    } else {
      ScoresOfRows<1, kRegs>(from, k, ldk, keys, to, ld_score, next, ld_next);
    }
    next = nullptr;
  }
}

void ScoresByDots(const float* q, int64_t rows, const Bf16* k, int64_t ldk, int64_t keys, int64_t D,
                  float* score, int64_t ld_score, const Bf16* next, int64_t ld_next) {
  if (D == 64) return ScoresOfWidth<2>(q, rows, k, ldk, keys, score, ld_score, next, ld_next);
  if (D == 128) return ScoresOfWidth<4>(q, rows, k, ldk, keys, score, ld_score, next, ld_next);
  Scores<VecAvx512, Bf16>(q, rows, k, ldk, keys, D, score, ld_score, next, ld_next);
}

constexpr AttentionKernels<Bf16> WithDots() {
  AttentionKernels<Bf16> kernels = MakeAttentionKernels<VecAvx512, Bf16>();
  kernels.scores = ScoresByDots;
  return kernels;
}

}  // namespace

constexpr AttentionKernels<float> kAttentionAvx512Bf16F32 = MakeAttentionKernels<VecAvx512, float>();
constexpr AttentionKernels<Bf16> kAttentionAvx512Bf16 = WithDots();
}  // namespace rung::cpu
