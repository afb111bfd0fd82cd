#include "kernels/cpu/int8.h"
#include "kernels/cpu/int8_kernels.h"
#include "kernels/cpu/panel_core.h"

namespace rung::cpu {
namespace {

constexpr int64_t kRows = 6;           // of a tile: 24 sums, 4 registers of the panel and one of x
constexpr float kLeast = 0x1p-100f;    // limits below it count as 0: their inverse may not be finite
constexpr float kWhole = 12582912.0f;  // 3 * 2^22: the low bits of its sum with a small number are round(it)

RUNG_INLINE __m512 EvenOf(__m512i pairs) { return _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)); }
RUNG_INLINE __m512 OddOf(__m512i pairs) {
  return _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}
// |x| as an unsigned number of 16 bits: in the order of the magnitudes, infinity and NaN last.
RUNG_INLINE __m512i KeysOf(__m512i pairs) { return _mm512_and_si512(pairs, _mm512_set1_epi16(0x7fff)); }
RUNG_INLINE float MagnitudeOf(uint32_t key) { return __builtin_bit_cast(float, key << 16); }
// Two's complement in the low 16 bits of each dword. Rounds once.
RUNG_INLINE __m512i Nearest(__m512 x, __m512 inverse) {
  return _mm512_castps_si512(_mm512_fmadd_ps(x, inverse, _mm512_set1_ps(kWhole)));
}

struct Row {
  const Bf16* x;
  int64_t K;
  RUNG_INLINE __m512i Load(int64_t k) const {  // 32 elements, 0 beyond the row
    if (K - k >= 32) return _mm512_loadu_si512(x + k);
    return _mm512_maskz_loadu_epi16((1u << (K - k)) - 1u, x + k);
  }
};

struct Magnitudes {
  uint32_t largest;  // a key
  float mean;
};

RUNG_TILE Magnitudes Measure(Row row) {
  const __m512 sign = _mm512_set1_ps(-0.0f);
  __m512 even = _mm512_setzero_ps(), odd = even;
  __m512i most = _mm512_setzero_si512();
  for (int64_t k = 0; k < row.K; k += 32) {
    const __m512i pairs = row.Load(k);
    most = _mm512_max_epu16(most, KeysOf(pairs));
    even = _mm512_add_ps(even, _mm512_andnot_ps(sign, EvenOf(pairs)));
    odd = _mm512_add_ps(odd, _mm512_andnot_ps(sign, OddOf(pairs)));
  }
  const __m512i low = _mm512_and_si512(most, _mm512_set1_epi32(0xffff)), high = _mm512_srli_epi32(most, 16);
  return {_mm512_reduce_max_epu32(_mm512_max_epu32(low, high)),
          _mm512_reduce_add_ps(_mm512_add_ps(even, odd)) / static_cast<float>(row.K)};
}

// Codes of the numbers up to `limit` (a key), and a list of the others. Returns how many those are, or -1
// when they are more than `most`.
RUNG_TILE int32_t Encode(Row row, uint32_t limit, float inverse, uint8_t* codes, int64_t ld,
                         Outlier* outliers, int64_t most) {
  const __m512i bound = _mm512_set1_epi16(static_cast<int16_t>(limit));
  const __m512 factor = _mm512_set1_ps(inverse);
  int32_t count = 0;
  for (int64_t k = 0; k < row.K; k += 32) {
    const __m512i pairs = row.Load(k);
    const __m512i even = Nearest(EvenOf(pairs), factor), odd = Nearest(OddOf(pairs), factor);
    __m512i words = _mm512_mask_blend_epi16(0xaaaaaaaau, even, _mm512_slli_epi32(odd, 16));
    uint32_t above = _mm512_cmpgt_epu16_mask(KeysOf(pairs), bound);
    words = _mm512_maskz_mov_epi16(~above, words);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + k),
                        _mm256_xor_si256(_mm512_cvtepi16_epi8(words), _mm256_set1_epi8(-128)));
    if (above != 0 && count + __builtin_popcount(above) > most) return -1;
    for (; above != 0; above &= above - 1) {
      const int64_t i = k + __builtin_ctz(above);
      outliers[count++] = {static_cast<int32_t>(i / 2), uint32_t{row.x[i].bits} << (i % 2 * 16)};
    }
  }
  for (int64_t k = (row.K + 31) / 32 * 32; k < ld; ++k) codes[k] = 128;
  return count;
}

void QuantiseRows(const Bf16* x, int64_t ldx, int64_t N, int64_t K, const Int8Rows& rows) {
  constexpr uint32_t kHalfOctave = 64;  // in keys
  for (int64_t n = 0; n < N; ++n) {
    const Row row{x + n * ldx, K};
    const Magnitudes magnitudes = Measure(row);
    const bool finite = magnitudes.largest < 0x7f80;
    uint32_t key = __builtin_bit_cast(uint32_t, kOutlierMeans * magnitudes.mean) >> 16;
    int32_t count = -1;
    for (; count < 0; key += kHalfOctave) {
      if (key > magnitudes.largest || !finite) key = magnitudes.largest;
      const float limit = MagnitudeOf(key);
      const bool zero = limit < kLeast;
      count = Encode(row, key, zero || !finite ? 0.0f : 127.0f / limit, rows.codes + n * rows.ld, rows.ld,
                     rows.outliers + n * rows.most, rows.most);
      rows.scale[n] = zero ? 0.0f : finite ? limit / 127.0f : __builtin_nanf("");
    }
    rows.outlier_count[n] = count;
  }
}

// Four whole numbers of 16 bits, as the bytes of each dword.
RUNG_INLINE __m512i Quads(__m512i a, __m512i b, __m512i c, __m512i d) {
  const __m512i step = _mm512_setr_epi32(
      0x40004000, 0x44044404, 0x48084808, 0x4c0c4c0c, 0x50105010, 0x54145414, 0x58185818, 0x5c1c5c1c,
      0x60206020, 0x64246424, 0x68286828, 0x6c2c6c2c, 0x70307030, 0x74347434, 0x78387838, 0x7c3c7c3c);
  const __m512i low = _mm512_permutex2var_epi8(a, step, b), high = _mm512_permutex2var_epi8(c, step, d);
  return _mm512_mask_blend_epi16(0xaaaaaaaau, low, high);
}

// In the order of memory: a panel is as large as a level-2 cache may be.
RUNG_TILE void QuantisePanel(const Bf16* panel, int64_t K, const Int8Panel& out) {
  constexpr int64_t kStep = 2 * kPanelRows;
  const int64_t depth = (K + 1) / 2;
  const __m512i zero = _mm512_setzero_si512();
  __m512i most[4] = {zero, zero, zero, zero}, sum[4] = {zero, zero, zero, zero};
  for (int64_t d = 0; d < depth; ++d) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      most[j] = _mm512_max_epu16(most[j], KeysOf(_mm512_load_si512(panel + d * kStep + 32 * j)));
  }
  __m512 factor[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    // As integers: NaN is the largest.
    const __m512 limit = _mm512_castsi512_ps(
        _mm512_max_epu32(_mm512_castps_si512(EvenOf(most[j])), _mm512_castps_si512(OddOf(most[j]))));
    const __mmask16 counts = _mm512_cmp_ps_mask(limit, _mm512_set1_ps(kLeast), _CMP_NLT_UQ);
    factor[j] = _mm512_maskz_div_ps(counts, _mm512_set1_ps(127.0f), limit);
    _mm512_store_ps(out.scale + 16 * j, _mm512_maskz_div_ps(counts, limit, _mm512_set1_ps(127.0f)));
  }
  const __m512i ones = _mm512_set1_epi8(1);
  int8_t* to = out.codes;
  for (int64_t d = 0; d < depth; d += 2, to += 4 * kPanelRows) {
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const Bf16* from = panel + d * kStep + 32 * j;
      const __m512i first = _mm512_load_si512(from);
      const __m512i second = d + 1 < depth ? _mm512_load_si512(from + kStep) : zero;
      const __m512i quads = Quads(Nearest(EvenOf(first), factor[j]), Nearest(OddOf(first), factor[j]),
                                  Nearest(EvenOf(second), factor[j]), Nearest(OddOf(second), factor[j]));
      _mm512_store_si512(to + 64 * j, quads);
      sum[j] = _mm512_dpbusd_epi32(sum[j], ones, quads);
    }
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) _mm512_store_si512(out.sum + 16 * j, sum[j]);
}

// C (kR, 64) f32 = the scaled sums of whole numbers. x is q + 128: hence the sums begin at -128 sum_k u.
template <int kR>
RUNG_TILE void Tile(const uint8_t* x, int64_t ldx, const float* scale, const Int8Panel& panel, int64_t quads,
                    float* C) {
  __m512i sum[kR][4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512i codes = _mm512_load_si512(panel.sum + 16 * j);
    const __m512i first = _mm512_slli_epi32(_mm512_sub_epi32(_mm512_setzero_si512(), codes), 7);
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) sum[i][j] = first;
  }
  const int8_t* from = panel.codes;
  for (int64_t d = 0; d < quads; ++d) {
    __m512i b[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) b[j] = _mm512_load_si512(from + 64 * j);
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      int quad;
      __builtin_memcpy(&quad, x + i * ldx, sizeof(quad));
      const __m512i a = _mm512_set1_epi32(quad);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) asm("vpdpbusd %2, %1, %0" : "+v"(sum[i][j]) : "v"(a), "v"(b[j]));
    }
    x += 4;
    from += 4 * kPanelRows;
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const __m512 of_weights = _mm512_load_ps(panel.scale + 16 * j);
#pragma GCC unroll 8
    for (int i = 0; i < kR; ++i) {
      const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(sum[i][j]), _mm512_set1_ps(scale[i]));
      _mm512_store_ps(C + i * kPanelRows + 16 * j, _mm512_mul_ps(scaled, of_weights));
    }
  }
}

template <int kR>
void TileOfRows(int64_t rows, const uint8_t* x, int64_t ldx, const float* scale, const Int8Panel& panel,
                int64_t quads, float* C) {
  if constexpr (kR > 0) {
    if (rows == kR) return Tile<kR>(x, ldx, scale, panel, quads, C);
    TileOfRows<kR - 1>(rows, x, ldx, scale, panel, quads, C);
  }
}

RUNG_INLINE VecAvx512 Load16(const float* from, int64_t n) {
  return n >= 16 ? VecAvx512::Load(from) : VecAvx512::LoadPart(from, n);
}
RUNG_INLINE VecAvx512 Load16(const Bf16* from, int64_t n) {
  return n >= 16 ? VecAvx512::Load(from) : VecAvx512::LoadPart(from, n);
}
template <class T>
RUNG_INLINE void Store16(VecAvx512 x, T* to, int64_t n) {
  if (n >= 16) return x.Store(to);
  x.StorePart(to, n);
}

// The rest of row `n` of the result: what outliers and bias add, then the store. C (64) f32.
RUNG_TILE void Finish(const float* C, const Outlier* outliers, int64_t count, const Bf16* panel,
                      const Int8Result& result, int64_t n) {
  using Store = Product::Store;
  __m512 more[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) more[j] = _mm512_setzero_ps();
  for (int64_t i = 0; i < count; ++i) {
    const auto values = (__m512bh)_mm512_set1_epi32(static_cast<int>(outliers[i].values));
    const Bf16* weights = panel + outliers[i].pair * 2 * kPanelRows;
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j)
      more[j] = _mm512_dpbf16_ps(more[j], values, (__m512bh)_mm512_load_si512(weights + 32 * j));
  }
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    const int64_t at = 16 * j, left = result.cols - at;
    if (left <= 0) return;
    VecAvx512 y{_mm512_add_ps(_mm512_load_ps(C + at), more[j])};
    if (result.bias) y = VecAvx512::Add(y, Load16(result.bias + at, left));
    if (result.store == Store::kCompute || result.store == Store::kAddCompute) {
      Bf16* to = static_cast<Bf16*>(result.out) + n * result.ldo + at;
      if (result.store == Store::kAddCompute) y = VecAvx512::Add(Load16(to, left), y);
      Store16(y, to, left);
    } else {
      float* to = static_cast<float*>(result.out) + n * result.ldo + at;
      if (result.store == Store::kAddF32) y = VecAvx512::Add(Load16(to, left), y);
      Store16(y, to, left);
    }
  }
}

void Multiply(const Int8Rows& rows, int64_t begin, int64_t end, const Int8Panel& panel,
              const Bf16* bf16_panel, int64_t K, const Int8Result& result) {
  const int64_t quads = (K + 3) / 4;
  alignas(64) float C[kRows * kPanelRows];
  for (int64_t n = begin; n < end; n += kRows) {
    const int64_t count = end - n < kRows ? end - n : kRows;
    TileOfRows<kRows>(count, rows.codes + n * rows.ld, rows.ld, rows.scale + n, panel, quads, C);
    for (int64_t i = n; i < n + count; ++i) {
      Finish(C + (i - n) * kPanelRows, rows.outliers + i * rows.most, rows.outlier_count[i], bf16_panel,
             result, i);
    }
  }
}

}  // namespace

constinit const Int8Kernels kInt8Avx512Vnni = {QuantiseRows, QuantisePanel, Multiply};

}  // namespace rung::cpu
