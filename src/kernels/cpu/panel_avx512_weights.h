// Loaders of computed weights that the f32 and the Bf16 cores of AVX-512 share. Include only from files
// compiled for AVX-512.
#pragma once

#include "kernels/cpu/panel_avx512.h"

namespace rung::cpu {
namespace {

// Formats whose weights are computed, as one span: a Weights(matrix, row, span) gives by Pair(i, out) weights
// [32i, 32i + 32) as two vectors.
struct F32Weights {
  static constexpr int64_t kSpan = 32;
  const std::byte* at;
  RUNG_INLINE F32Weights(const format::Matrix&, const WeightRow& row, int64_t span)
      : at(row.data + span * 128) {}
  RUNG_INLINE void Pair(int, __m512* out) const {
    out[0] = _mm512_loadu_ps(at);
    out[1] = _mm512_loadu_ps(at + 64);
  }
};

struct F16Weights {
  static constexpr int64_t kSpan = 32;
  const std::byte* at;
  RUNG_INLINE F16Weights(const format::Matrix&, const WeightRow& row, int64_t span)
      : at(row.data + span * 64) {}
  RUNG_INLINE void Pair(int, __m512* out) const {
    out[0] = _mm512_cvtph_ps(Load256(at));
    out[1] = _mm512_cvtph_ps(Load256(at + 32));
  }
};

struct Bf16Weights {
  static constexpr int64_t kSpan = 32;
  const std::byte* at;
  RUNG_INLINE Bf16Weights(const format::Matrix&, const WeightRow& row, int64_t span)
      : at(row.data + span * 64) {}
  RUNG_INLINE void Pair(int, __m512* out) const {
    out[0] = VecAvx512::Widen(Load256(at));
    out[1] = VecAvx512::Widen(Load256(at + 32));
  }
};

struct Q8_0Weights {
  static constexpr int64_t kSpan = 32;
  const std::byte* block;
  RUNG_INLINE Q8_0Weights(const format::Matrix&, const WeightRow& row, int64_t span)
      : block(row.data + span * 34) {}
  RUNG_INLINE void Pair(int, __m512* out) const {
    const __m512 d = BroadcastF16(block);
    out[0] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(Load128(block + 2))));
    out[1] = _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(Load128(block + 18))));
  }
};

// Signed bytes as floats, the first 16 and the last.
RUNG_INLINE void WidenBytes(__m256i bytes, __m512* out) {
  out[0] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(bytes)));
  out[1] = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(bytes, 1)));
}

template <class Codes>
struct WeightsOfCodes {
  static constexpr int64_t kSpan = Codes::kSpan;
  static constexpr int kGroups = static_cast<int>(kSpan / Codes::kGroup);
  const std::byte* block;
  alignas(64) float d[kGroups], m[kGroups];
  RUNG_INLINE WeightsOfCodes(const format::Matrix&, const WeightRow& row, int64_t span)
      : block(row.data + span * Codes::kBytes) {
    Codes::Scales(block, d, m);
    // By way of memory: a broadcast load costs no shuffle, and shuffles set the pace here.
    if constexpr (kGroups > 1) asm("" : "+m"(d), "+m"(m));
  }
  RUNG_INLINE void Pair(int i, __m512* out) const {
    __m512 codes[2];
    WidenBytes(Codes::At(block, i), codes);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const int64_t group = (32 * i + 16 * half) / Codes::kGroup;
      if constexpr (Codes::kOffset) {
        out[half] = _mm512_fmadd_ps(_mm512_set1_ps(d[group]), codes[half], _mm512_set1_ps(m[group]));
      } else {
        out[half] = _mm512_mul_ps(_mm512_set1_ps(d[group]), codes[half]);
      }
    }
  }
};

}  // namespace
}  // namespace rung::cpu
