// The code of adamw8_kernels.h as a template over the vector type. Include only from files of one ISA.
#pragma once

#include "kernels/cpu/adamw8_kernels.h"
#include "kernels/cpu/vec.h"

namespace rung::cpu {
namespace {

// Codes of a vector's elements: Decode looks levels up, EncodeSigned and EncodeUnsigned find the nearest, but
// give the code of 0 neither to a negative number nor, of v, to a positive one. No x of EncodeUnsigned is -0.
template <class V>
struct Codes;

template <>
struct Codes<VecBaseline> {
  template <class Search>
  static int32_t Level(const Search& search, uint32_t bits) {
    int32_t bucket = static_cast<int32_t>(bits >> Search::kCut) - Search::kFirst;
    bucket = bucket < 0 ? 0 : bucket < Search::kCount ? bucket : Search::kCount - 1;
    const uint32_t entry = search.entry[bucket];
    return static_cast<int32_t>(entry >> 24) +
           ((bits & Search::kCutMask) > (entry & Search::kCutMask) ? 1 : 0);
  }
  static VecBaseline Decode(const uint8_t* codes, const float* level) {
    const float x[4] = {level[codes[0]], level[codes[1]], level[codes[2]], level[codes[3]]};
    return VecBaseline::Load(x);
  }
  static void EncodeSigned(const SignedSearch& search, VecBaseline x, uint8_t* codes) {
    for (int i = 0; i < 4; ++i) {
      const uint32_t bits = __builtin_bit_cast(uint32_t, static_cast<float>(x.x[i]));
      const int32_t level = Level(search, bits & 0x7fffffffu);
      const int32_t below = level < 1 ? 1 : level > 127 ? 127 : level;
      codes[i] = static_cast<uint8_t>(x.x[i] < 0.0f ? 127 - below : 127 + level);
    }
  }
  static void EncodeUnsigned(const UnsignedSearch& search, VecBaseline x, uint8_t* codes) {
    for (int i = 0; i < 4; ++i) {
      const uint32_t bits = __builtin_bit_cast(uint32_t, static_cast<float>(x.x[i]));
      const int32_t level = Level(search, bits);
      codes[i] = static_cast<uint8_t>(level == 0 && bits != 0 ? 1 : level);
    }
  }
};

#if defined(__AVX2__)
template <>
struct Codes<VecAvx2> {
  template <class Search>
  static __m256i Level(const Search& search, __m256i bits) {
    __m256i bucket =
        _mm256_sub_epi32(_mm256_srli_epi32(bits, Search::kCut), _mm256_set1_epi32(Search::kFirst));
    bucket = _mm256_max_epi32(bucket, _mm256_setzero_si256());
    bucket = _mm256_min_epi32(bucket, _mm256_set1_epi32(Search::kCount - 1));
    const __m256i entry = _mm256_i32gather_epi32(reinterpret_cast<const int*>(search.entry), bucket, 4);
    const __m256i mask = _mm256_set1_epi32(static_cast<int>(Search::kCutMask));
    const __m256i beyond = _mm256_cmpgt_epi32(_mm256_and_si256(bits, mask), _mm256_and_si256(entry, mask));
    return _mm256_sub_epi32(_mm256_srli_epi32(entry, 24), beyond);
  }
  static void Store(__m256i code, uint8_t* codes) {
    const __m128i words = _mm_packus_epi32(_mm256_castsi256_si128(code), _mm256_extracti128_si256(code, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(codes), _mm_packus_epi16(words, words));
  }
  static VecAvx2 Decode(const uint8_t* codes, const float* level) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes));
    return {_mm256_i32gather_ps(level, _mm256_cvtepu8_epi32(bytes), 4)};
  }
  static void EncodeSigned(const SignedSearch& search, VecAvx2 x, uint8_t* codes) {
    const __m256i bits = _mm256_castps_si256(x.x);
    const __m256i level = Level(search, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
    const __m256i below =
        _mm256_min_epi32(_mm256_max_epi32(level, _mm256_set1_epi32(1)), _mm256_set1_epi32(127));
    const __m256i middle = _mm256_set1_epi32(127);
    const __m256i negative = _mm256_castps_si256(_mm256_cmp_ps(x.x, _mm256_setzero_ps(), _CMP_LT_OQ));
    Store(_mm256_blendv_epi8(_mm256_add_epi32(middle, level), _mm256_sub_epi32(middle, below), negative),
          codes);
  }
  static void EncodeUnsigned(const UnsignedSearch& search, VecAvx2 x, uint8_t* codes) {
    const __m256i bits = _mm256_castps_si256(x.x);
    Store(_mm256_max_epi32(Level(search, bits), _mm256_min_epu32(bits, _mm256_set1_epi32(1))), codes);
  }
};
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
template <>
struct Codes<VecAvx512> {
  template <class Search>
  static __m512i Level(const Search& search, __m512i bits) {
    __m512i bucket =
        _mm512_sub_epi32(_mm512_srli_epi32(bits, Search::kCut), _mm512_set1_epi32(Search::kFirst));
    bucket = _mm512_max_epi32(bucket, _mm512_setzero_si512());
    bucket = _mm512_min_epi32(bucket, _mm512_set1_epi32(Search::kCount - 1));
    const __m512i entry = _mm512_i32gather_epi32(bucket, search.entry, 4);
    const __m512i mask = _mm512_set1_epi32(static_cast<int>(Search::kCutMask));
    const __mmask16 beyond =
        _mm512_cmpgt_epi32_mask(_mm512_and_si512(bits, mask), _mm512_and_si512(entry, mask));
    const __m512i level = _mm512_srli_epi32(entry, 24);
    return _mm512_mask_add_epi32(level, beyond, level, _mm512_set1_epi32(1));
  }
  static void Store(__m512i code, uint8_t* codes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtepi32_epi8(code));
  }
  static VecAvx512 Decode(const uint8_t* codes, const float* level) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes));
    return {_mm512_i32gather_ps(_mm512_cvtepu8_epi32(bytes), level, 4)};
  }
  static void EncodeSigned(const SignedSearch& search, VecAvx512 x, uint8_t* codes) {
    const __m512i bits = _mm512_castps_si512(x.x), middle = _mm512_set1_epi32(127);
    const __m512i level = Level(search, _mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)));
    const __m512i below = _mm512_min_epi32(_mm512_max_epi32(level, _mm512_set1_epi32(1)), middle);
    const __mmask16 negative = _mm512_cmp_ps_mask(x.x, _mm512_setzero_ps(), _CMP_LT_OQ);
    Store(_mm512_mask_sub_epi32(_mm512_add_epi32(middle, level), negative, middle, below), codes);
  }
  static void EncodeUnsigned(const UnsignedSearch& search, VecAvx512 x, uint8_t* codes) {
    const __m512i bits = _mm512_castps_si512(x.x);
    Store(_mm512_max_epi32(Level(search, bits), _mm512_min_epu32(bits, _mm512_set1_epi32(1))), codes);
  }
};
#endif

// Writes the block's maximum and returns its inverse; 0 and 0 when the inverse would be infinite.
inline float Inverse(float largest, float* absmax) {
  const bool zero = largest < 0x1p-126f;
  *absmax = zero ? 0.0f : largest;
  return zero ? 0.0f : 1.0f / largest;
}

template <class V>
void UpdateBlocks(const AdamW8Tables& tables, const AdamW& step, const float* gradient, int64_t blocks,
                  float* weight, const Moments8& moments) {
  constexpr int kW = V::kWidth, kBlock = static_cast<int>(kAdamW8Block);
  // As AdamWUpdate: lr * (m/bias1) / (sqrt(v/bias2) + eps) = (lr/bias1) m / (sqrt(v) / sqrt(bias2) + eps)
  const V scale = V::Set(step.gradient_scale), beta1 = V::Set(step.beta1), beta2 = V::Set(step.beta2);
  const V rest1 = V::Set(1.0f - step.beta1), rest2 = V::Set(1.0f - step.beta2);
  const V rate = V::Set(-step.learning_rate / step.bias1);
  const V root = V::Set(1.0f / __builtin_sqrtf(step.bias2)), epsilon = V::Set(step.epsilon);
  const V shrink = V::Set(-step.learning_rate * step.decay), zero = V::Set(0.0f);
  alignas(64) float m[kBlock], v[kBlock];
  for (int64_t b = 0; b < blocks; ++b) {
    const float* g = gradient + b * kBlock;
    float* w = weight + b * kBlock;
    uint8_t *m_code = moments.m + b * kBlock, *v_code = moments.v + b * kBlock;
    const V m_scale = V::Set(moments.m_absmax[b]), v_scale = V::Set(moments.v_absmax[b]);
    V m_largest = zero, v_largest = zero;
    for (int i = 0; i < kBlock; i += kW) {
      const V gi = V::Mul(V::Load(g + i), scale), wi = V::Load(w + i);
      const V m0 = V::Mul(Codes<V>::Decode(m_code + i, tables.m_level), m_scale);
      const V v0 = V::Mul(Codes<V>::Decode(v_code + i, tables.v_level), v_scale);
      const V m1 = V::Fma(beta1, m0, V::Mul(rest1, gi));
      const V v1 = V::Fma(beta2, v0, V::Mul(rest2, V::Mul(gi, gi)));
      const V change = V::Div(V::Mul(rate, m1), V::Fma(V::Sqrt(v1), root, epsilon));
      V::Add(wi, V::Fma(shrink, wi, change)).Store(w + i);
      m1.Store(m + i);
      v1.Store(v + i);
      m_largest = V::Max(m_largest, V::Max(m1, V::Sub(zero, m1)));
      v_largest = V::Max(v_largest, v1);
    }
    const V m_inverse = V::Set(Inverse(m_largest.Largest(), moments.m_absmax + b));
    const V v_inverse = V::Set(Inverse(v_largest.Largest(), moments.v_absmax + b));
    for (int i = 0; i < kBlock; i += kW) {
      Codes<V>::EncodeSigned(tables.m_search, V::Mul(V::Load(m + i), m_inverse), m_code + i);
      Codes<V>::EncodeUnsigned(tables.v_search, V::Mul(V::Load(v + i), v_inverse), v_code + i);
    }
  }
}

}  // namespace
}  // namespace rung::cpu
