// One vector type per ISA with the same member functions, so that a kernel is written once as a template over
// it. Include only from files compiled for that ISA: the types of newer ISAs exist only there.
//
//   Vec::kWidth            floats in a vector
//   Load / Store           unaligned; float or Bf16 memory (Bf16 rounds to nearest even)
//   LoadPart / StorePart   the first n < kWidth elements; the rest of a loaded vector is 0
//   Fma(a,b,c)             a*b + c (fused where the ISA has it)
//   Max / Min              the second operand when one is NaN
//   Round                  to the nearest whole number, ties to even; |a| < 2^22
//   Positive(a)            1 where a > 0, else 0 (also for NaN)
//
// Elements are converted by the functions here and not by those of half.h, which have external linkage: the
// linker could keep a copy of theirs that was compiled for a newer machine.
#pragma once

#include <cstdint>
#if defined(__AVX2__) || defined(__AVX512F__)
// g++ 12 takes the undefined operand of its own intrinsics for a mistake of ours.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
#endif

#include "base/half.h"

namespace rung::cpu {
namespace {

inline float GetElement(const float* p) { return *p; }
inline float GetElement(const Bf16* p) { return __builtin_bit_cast(float, uint32_t{p->bits} << 16); }
inline void SetElement(float* p, float x) { *p = x; }
inline void SetElement(Bf16* p, float x) {  // as ToBf16
  const uint32_t u = __builtin_bit_cast(uint32_t, x);
  const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
  p->bits = static_cast<uint16_t>((nan ? u | 0x400000u : u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

// Four floats by the vector types of g++ and clang: SSE2 on x86-64, NEON on ARM. An array of four floats is
// not kept in registers, which makes an exponential many times slower.
struct VecBaseline {
  using Floats = float __attribute__((vector_size(16)));
  using Bits = uint32_t __attribute__((vector_size(16)));
  using Halves = uint16_t __attribute__((vector_size(8)));

  static constexpr int kWidth = 4;
  static constexpr float kWhole = 12582912.0f;  // 3 * 2^22: its sum with |a| < 2^22 has no fraction bits
  Floats x;

  static VecBaseline Set(float a) { return {Floats{a, a, a, a}}; }
  static VecBaseline Load(const float* p) {
    VecBaseline v;
    __builtin_memcpy(&v.x, p, sizeof(v.x));
    return v;
  }
  static VecBaseline Load(const Bf16* p) {
    Halves half;
    __builtin_memcpy(&half, p, sizeof(half));
    return {(Floats)(__builtin_convertvector(half, Bits) << 16)};
  }
  template <class T>
  static VecBaseline LoadPart(const T* p, int64_t n) {
    float part[4] = {};
    for (int64_t i = 0; i < n; ++i) part[i] = GetElement(p + i);
    return Load(part);
  }
  void Store(float* p) const { __builtin_memcpy(p, &x, sizeof(x)); }
  void Store(Bf16* p) const {
    const Bits bits = (Bits)x, nan = (Bits)(x != x), rounded = bits + 0x7fffu + ((bits >> 16) & 1u);
    const Bits kept = (nan & (bits | 0x400000u)) | (~nan & rounded);
    const Halves half = __builtin_convertvector(kept >> 16, Halves);
    __builtin_memcpy(p, &half, sizeof(half));
  }
  template <class T>
  void StorePart(T* p, int64_t n) const {
    for (int64_t i = 0; i < n; ++i) SetElement(p + i, x[i]);
  }

  // a where every bit of `where` is set, b where none is.
  static VecBaseline Select(Bits where, VecBaseline a, VecBaseline b) {
    return {(Floats)((where & (Bits)a.x) | (~where & (Bits)b.x))};
  }
  static VecBaseline Add(VecBaseline a, VecBaseline b) { return {a.x + b.x}; }
  static VecBaseline Sub(VecBaseline a, VecBaseline b) { return {a.x - b.x}; }
  static VecBaseline Mul(VecBaseline a, VecBaseline b) { return {a.x * b.x}; }
  static VecBaseline Div(VecBaseline a, VecBaseline b) { return {a.x / b.x}; }
  static VecBaseline Max(VecBaseline a, VecBaseline b) { return Select((Bits)(a.x > b.x), a, b); }
  static VecBaseline Min(VecBaseline a, VecBaseline b) { return Select((Bits)(a.x < b.x), a, b); }
  static VecBaseline Fma(VecBaseline a, VecBaseline b, VecBaseline c) { return Add(Mul(a, b), c); }
  static VecBaseline Sqrt(VecBaseline a) {
    return {Floats{__builtin_sqrtf(a.x[0]), __builtin_sqrtf(a.x[1]), __builtin_sqrtf(a.x[2]),
                   __builtin_sqrtf(a.x[3])}};
  }
  // SSE2 has no rounding instruction, and a call of nearbyint per element would be most of an exponential.
  static VecBaseline Round(VecBaseline a) { return {(a.x + kWhole) - kWhole}; }
  static VecBaseline Positive(VecBaseline a) { return Select((Bits)(a.x > 0.0f), Set(1.0f), Set(0.0f)); }
  // a * 2^n for a vector n of whole numbers in [-126, 127].
  static VecBaseline Scale2(VecBaseline a, VecBaseline n) {
    return {a.x * (Floats)(((Bits)(n.x + kWhole) + 127u) << 23)};
  }
  float Sum() const { return (x[0] + x[1]) + (x[2] + x[3]); }
  float Largest() const {
    const float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
  }
};

#if defined(__AVX2__)
struct VecAvx2 {
  static constexpr int kWidth = 8;
  __m256 x;

  static __m128i Narrow(__m256 wide) {
    const __m256i bits = _mm256_castps_si256(wide);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
    const __m256i rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(wide, wide, _CMP_UNORD_Q));
    const __m256i kept = _mm256_srli_epi32(_mm256_blendv_epi8(rounded, quiet, nan), 16);
    return _mm_packus_epi32(_mm256_castsi256_si128(kept), _mm256_extracti128_si256(kept, 1));
  }

  static VecAvx2 Set(float a) { return {_mm256_set1_ps(a)}; }
  static VecAvx2 Load(const float* p) { return {_mm256_loadu_ps(p)}; }
  static VecAvx2 Load(const Bf16* p) {
    const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
    return {_mm256_castsi256_ps(_mm256_slli_epi32(wide, 16))};
  }
  template <class T>
  static VecAvx2 LoadPart(const T* p, int64_t n) {
    alignas(32) float part[8] = {};
    for (int64_t i = 0; i < n; ++i) part[i] = GetElement(p + i);
    return Load(part);
  }
  void Store(float* p) const { _mm256_storeu_ps(p, x); }
  void Store(Bf16* p) const { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), Narrow(x)); }
  template <class T>
  void StorePart(T* p, int64_t n) const {
    T part[8];
    Store(part);
    for (int64_t i = 0; i < n; ++i) p[i] = part[i];
  }
  static VecAvx2 Add(VecAvx2 a, VecAvx2 b) { return {_mm256_add_ps(a.x, b.x)}; }
  static VecAvx2 Sub(VecAvx2 a, VecAvx2 b) { return {_mm256_sub_ps(a.x, b.x)}; }
  static VecAvx2 Mul(VecAvx2 a, VecAvx2 b) { return {_mm256_mul_ps(a.x, b.x)}; }
  static VecAvx2 Div(VecAvx2 a, VecAvx2 b) { return {_mm256_div_ps(a.x, b.x)}; }
  static VecAvx2 Max(VecAvx2 a, VecAvx2 b) { return {_mm256_max_ps(a.x, b.x)}; }
  static VecAvx2 Min(VecAvx2 a, VecAvx2 b) { return {_mm256_min_ps(a.x, b.x)}; }
  static VecAvx2 Fma(VecAvx2 a, VecAvx2 b, VecAvx2 c) { return {_mm256_fmadd_ps(a.x, b.x, c.x)}; }
  static VecAvx2 Sqrt(VecAvx2 a) { return {_mm256_sqrt_ps(a.x)}; }
  static VecAvx2 Round(VecAvx2 a) {
    return {_mm256_round_ps(a.x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static VecAvx2 Positive(VecAvx2 a) {
    return {_mm256_and_ps(_mm256_cmp_ps(a.x, _mm256_setzero_ps(), _CMP_GT_OQ), _mm256_set1_ps(1.0f))};
  }
  static VecAvx2 Scale2(VecAvx2 a, VecAvx2 n) {
    const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n.x), _mm256_set1_epi32(127));
    return {_mm256_mul_ps(a.x, _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23)))};
  }
  float Sum() const {
    const __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
  }
  float Largest() const {
    const __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    const __m128 quarter = _mm_max_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_max_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
  }
};
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
struct VecAvx512 {
  static constexpr int kWidth = 16;
  __m512 x;

  static __mmask16 Mask(int64_t n) { return static_cast<__mmask16>((1u << n) - 1u); }
  static __m512 Widen(__m256i half) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
  }
  static __m256i Narrow(__m512 wide) {
#if defined(__AVX512BF16__)
    return (__m256i)_mm512_cvtneps_pbh(wide);  // subnormals become 0, which ToBf16 keeps; else the same
#else
    const __m512i bits = _mm512_castps_si512(wide);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __mmask16 nan = _mm512_cmp_ps_mask(wide, wide, _CMP_UNORD_Q);
    const __m512i kept = _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x400000));
    return _mm512_cvtepi32_epi16(_mm512_srli_epi32(kept, 16));
#endif
  }

  static VecAvx512 Set(float a) { return {_mm512_set1_ps(a)}; }
  static VecAvx512 Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  static VecAvx512 Load(const Bf16* p) {
    return {Widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
  }
  static VecAvx512 LoadPart(const float* p, int64_t n) { return {_mm512_maskz_loadu_ps(Mask(n), p)}; }
  static VecAvx512 LoadPart(const Bf16* p, int64_t n) {
    return {Widen(_mm256_maskz_loadu_epi16(Mask(n), p))};
  }
  void Store(float* p) const { _mm512_storeu_ps(p, x); }
  void Store(Bf16* p) const { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), Narrow(x)); }
  void StorePart(float* p, int64_t n) const { _mm512_mask_storeu_ps(p, Mask(n), x); }
  void StorePart(Bf16* p, int64_t n) const { _mm256_mask_storeu_epi16(p, Mask(n), Narrow(x)); }
  static VecAvx512 Add(VecAvx512 a, VecAvx512 b) { return {_mm512_add_ps(a.x, b.x)}; }
  static VecAvx512 Sub(VecAvx512 a, VecAvx512 b) { return {_mm512_sub_ps(a.x, b.x)}; }
  static VecAvx512 Mul(VecAvx512 a, VecAvx512 b) { return {_mm512_mul_ps(a.x, b.x)}; }
  static VecAvx512 Div(VecAvx512 a, VecAvx512 b) { return {_mm512_div_ps(a.x, b.x)}; }
  static VecAvx512 Max(VecAvx512 a, VecAvx512 b) { return {_mm512_max_ps(a.x, b.x)}; }
  static VecAvx512 Min(VecAvx512 a, VecAvx512 b) { return {_mm512_min_ps(a.x, b.x)}; }
  static VecAvx512 Fma(VecAvx512 a, VecAvx512 b, VecAvx512 c) { return {_mm512_fmadd_ps(a.x, b.x, c.x)}; }
  static VecAvx512 Sqrt(VecAvx512 a) { return {_mm512_sqrt_ps(a.x)}; }
  static VecAvx512 Round(VecAvx512 a) {
    return {_mm512_roundscale_ps(a.x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
  }
  static VecAvx512 Positive(VecAvx512 a) {
    return {
        _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a.x, _mm512_setzero_ps(), _CMP_GT_OQ), _mm512_set1_ps(1.0f))};
  }
  static VecAvx512 Scale2(VecAvx512 a, VecAvx512 n) { return {_mm512_scalef_ps(a.x, n.x)}; }
  float Sum() const { return _mm512_reduce_add_ps(x); }
  float Largest() const { return _mm512_reduce_max_ps(x); }
};
#endif

// 2^r for r in [-1/2, 1/2], relative error below 1.6e-7, and exactly 1 at 0. The minimax polynomial of degree
// 5 with that constraint (1.1e-7 before the rounding of its evaluation).
template <class V>
inline V Exp2OfFraction(V r) {
  V p = V::Set(1.32647331e-3f);
  p = V::Fma(p, r, V::Set(9.67151485e-3f));
  p = V::Fma(p, r, V::Set(5.55073358e-2f));
  p = V::Fma(p, r, V::Set(2.40222424e-1f));
  p = V::Fma(p, r, V::Set(6.93147004e-1f));
  return V::Fma(p, r, V::Set(1.0f));
}

// 2^x to 2e-7 relative for x in [-126, 127]; below, 2^-126 (the caller's sums cannot tell it from 0). NaN
// stays NaN.
template <class V>
inline V Exp2(V x) {
  x = V::Max(V::Set(-126.0f), x);
  const V n = V::Round(x);
  return V::Scale2(Exp2OfFraction(V::Sub(x, n)), n);
}

// e^x to 3e-7 relative for |x| <= 87, beyond as at 87 (1e-38 or 6e37: never infinite). NaN stays NaN. Scaling
// x by log2(e) and calling Exp2 would lose |x| * 1e-7; here ln 2 is subtracted in two parts, the first short
// enough for an exact product (Cody and Waite).
template <class V>
inline V Exp(V x) {
  x = V::Max(V::Set(-87.0f), V::Min(V::Set(87.0f), x));
  const V n = V::Round(V::Mul(x, V::Set(1.44269504f)));
  V r = V::Fma(n, V::Set(-0.693359375f), x);
  r = V::Fma(n, V::Set(2.12194440e-4f), r);
  return V::Scale2(Exp2OfFraction(V::Mul(r, V::Set(1.44269504f))), n);
}

// tanh x = E / (2 + E), E = e^2x - 1, to 4e-7 relative for every x: E is made of 2^r - 1 = r q(r), which does
// not cancel near 0 (q: minimax, 2e-8 relative). Beyond |x| = 10 it is 1. NaN stays NaN.
template <class V>
inline V Tanh(V x) {
  x = V::Max(V::Set(-10.0f), V::Min(V::Set(10.0f), x));
  const V y = V::Mul(x, V::Set(2.88539008f));  // 2^y = e^2x
  const V n = V::Round(y), r = V::Sub(y, n);
  V q = V::Set(1.54035122e-4f);
  q = V::Fma(q, r, V::Set(1.33907353e-3f));
  q = V::Fma(q, r, V::Set(9.61823761e-3f));
  q = V::Fma(q, r, V::Set(5.55035733e-2f));
  q = V::Fma(q, r, V::Set(2.40226492e-1f));
  q = V::Fma(q, r, V::Set(6.93147182e-1f));
  const V power = V::Scale2(V::Set(1.0f), n);
  const V e = V::Fma(V::Mul(q, r), power, V::Sub(power, V::Set(1.0f)));
  return V::Div(e, V::Add(e, V::Set(2.0f)));
}

}  // namespace
}  // namespace rung::cpu
