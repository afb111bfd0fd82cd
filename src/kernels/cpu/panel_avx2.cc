#include "kernels/cpu/panel_apart.h"
#include "kernels/cpu/panel_few_parts.h"
#include "kernels/cpu/panel_kquants.h"

namespace rung::cpu {
namespace {

struct Core {
  using T = float;
  using V = VecAvx2;
  using Reg = VecAvx2;
  static constexpr int kDword = 1, kRows = 6, kVecs = 2, kRegisters = 16;

  RUNG_INLINE static Reg Zero() { return {_mm256_setzero_ps()}; }
  RUNG_INLINE static Reg Load(const float* p) { return {_mm256_loadu_ps(p)}; }
  RUNG_INLINE static void Store(float* p, Reg a) { _mm256_storeu_ps(p, a.x); }
  RUNG_INLINE static Reg Round(const float* p) { return Load(p); }
  RUNG_INLINE static Reg Broadcast(const float* p) { return {_mm256_broadcast_ss(p)}; }
  RUNG_INLINE static Reg Column(const float* src, int64_t) { return Load(src); }
  RUNG_INLINE static V Dot(V sum, Reg a, Reg b) { return {_mm256_fmadd_ps(a.x, b.x, sum.x)}; }
  RUNG_INLINE static void Transpose(Reg* r) {
    __m256 t[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      t[i] = _mm256_unpacklo_ps(r[i].x, r[i + 1].x);
      t[i + 1] = _mm256_unpackhi_ps(r[i].x, r[i + 1].x);
    }
    // Now four[4a + c] holds, in lane l, column 4l + c of rows 4a ... 4a+3.
    __m256 four[8];
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
      four[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
      four[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
      four[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
      four[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      r[c].x = _mm256_permute2f128_ps(four[c], four[c + 4], 0x20);
      r[c + 4].x = _mm256_permute2f128_ps(four[c], four[c + 4], 0x31);
    }
  }
};

struct F32Loader {
  static constexpr int64_t kSpan = 32;
  RUNG_INLINE static void Load(const format::Matrix&, const WeightRow& row, int64_t span, Core::Reg* out) {
    const auto* at = reinterpret_cast<const float*>(row.data + span * 128);
    for (int i = 0; i < 4; ++i) out[i].x = _mm256_loadu_ps(at + 8 * i);
  }
};

struct F16Loader {
  static constexpr int64_t kSpan = 32;
  RUNG_INLINE static void Load(const format::Matrix&, const WeightRow& row, int64_t span, Core::Reg* out) {
    for (int i = 0; i < 4; ++i) out[i].x = _mm256_cvtph_ps(Load128(row.data + span * 64 + 16 * i));
  }
};

struct Bf16Loader {
  static constexpr int64_t kSpan = 32;
  RUNG_INLINE static void Load(const format::Matrix&, const WeightRow& row, int64_t span, Core::Reg* out) {
    for (int i = 0; i < 4; ++i) {
      const __m256i wide = _mm256_cvtepu16_epi32(Load128(row.data + span * 64 + 16 * i));
      out[i].x = _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
    }
  }
};

struct Q8_0Loader {
  static constexpr int64_t kSpan = 32;
  RUNG_INLINE static void Load(const format::Matrix&, const WeightRow& row, int64_t span, Core::Reg* out) {
    const std::byte* block = row.data + span * 34;
    const __m256 d = _mm256_set1_ps(ReadF16(block));
    for (int i = 0; i < 4; ++i) {
      const __m256i codes = _mm256_cvtepi8_epi32(Load64(block + 2 + 8 * i));
      out[i].x = _mm256_mul_ps(d, _mm256_cvtepi32_ps(codes));
    }
  }
};

// The codes of a block of 32 nibbles, less `zero`, as floats: low nibbles first.
RUNG_INLINE void LoadNibbles(const std::byte* codes, int zero, __m256* out) {
  const __m128i bytes = Load128(codes), mask = _mm_set1_epi8(15);
  const __m128i half[2] = {_mm_and_si128(bytes, mask), _mm_and_si128(_mm_srli_epi16(bytes, 4), mask)};
  for (int i = 0; i < 4; ++i) {
    const __m128i eight = i % 2 ? _mm_srli_si128(half[i / 2], 8) : half[i / 2];
    out[i] = _mm256_cvtepi32_ps(_mm256_sub_epi32(_mm256_cvtepu8_epi32(eight), _mm256_set1_epi32(zero)));
  }
}

struct Q4_0Loader {
  static constexpr int64_t kSpan = 32;
  RUNG_INLINE static void Load(const format::Matrix&, const WeightRow& row, int64_t span, Core::Reg* out) {
    const std::byte* block = row.data + span * 18;
    const __m256 d = _mm256_set1_ps(ReadF16(block));
    __m256 codes[4];
    LoadNibbles(block + 2, 8, codes);
    for (int i = 0; i < 4; ++i) out[i].x = _mm256_mul_ps(d, codes[i]);
  }
};

struct Q4_1Loader {
  static constexpr int64_t kSpan = 32;
  RUNG_INLINE static void Load(const format::Matrix&, const WeightRow& row, int64_t span, Core::Reg* out) {
    const std::byte* block = row.data + span * 20;
    const __m256 d = _mm256_set1_ps(ReadF16(block)), m = _mm256_set1_ps(ReadF16(block + 2));
    __m256 codes[4];
    LoadNibbles(block + 4, 0, codes);
    for (int i = 0; i < 4; ++i) out[i].x = _mm256_add_ps(_mm256_mul_ps(d, codes[i]), m);
  }
};

template <const std::array<float, 16>& kLevels>
struct BlockScaledLoader {
  static constexpr LevelTable kTable = CopyOf(kLevels);
  static constexpr int64_t kSpan = 64;
  RUNG_INLINE static void Load(const format::Matrix& matrix, const WeightRow& row, int64_t span,
                               Core::Reg* out) {
    const __m256 scale = _mm256_set1_ps(ScaleOf(matrix.scales, row.first_block + span));
    const __m256 low = _mm256_mul_ps(_mm256_load_ps(kTable.level), scale);
    const __m256 high = _mm256_mul_ps(_mm256_load_ps(kTable.level + 8), scale);
    const __m256i shift =
        _mm256_set1_epi64x(4);  // dwords 4, 0, 4, 0 ...: the first weight is the high nibble
    for (int i = 0; i < 8; ++i) {
      const __m128i bytes = _mm_cvtsi32_si128(ReadNumber<int>(row.data + span * 32 + 4 * i));
      const __m256i pairs = _mm256_cvtepu8_epi32(_mm_unpacklo_epi8(bytes, bytes));
      const __m256i code = _mm256_srlv_epi32(pairs, shift);
      // vpermps looks at the low three bits of each index, the blend at the fourth, moved to the sign.
      const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));
      out[i].x =
          _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code), _mm256_permutevar8x32_ps(high, code), upper);
    }
  }
};

// 32 signed bytes as floats.
RUNG_INLINE void WidenBytes(__m256i bytes, __m256* out) {
  const __m128i half[2] = {_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)};
  for (int i = 0; i < 4; ++i) {
    const __m128i eight = i % 2 ? _mm_srli_si128(half[i / 2], 8) : half[i / 2];
    out[i] = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(eight));
  }
}

template <class Codes>
struct CodesLoader {
  static constexpr int64_t kSpan = Codes::kSpan;
  static constexpr int kGroups = static_cast<int>(kSpan / Codes::kGroup);
  RUNG_INLINE static void Load(const format::Matrix&, const WeightRow& row, int64_t span, Core::Reg* out) {
    const std::byte* block = row.data + span * Codes::kBytes;
    alignas(32) float d[kGroups], m[kGroups];
    Codes::Scales(block, d, m);
#pragma GCC unroll 8
    for (int i = 0; i < kSpan / 32; ++i) {
      __m256 codes[4];
      WidenBytes(Codes::At(block, i), codes);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const int64_t group = (32 * i + 8 * j) / Codes::kGroup;
        const __m256 product = _mm256_mul_ps(_mm256_broadcast_ss(d + group), codes[j]);
        if constexpr (Codes::kOffset) {
          out[4 * i + j].x = _mm256_add_ps(product, _mm256_broadcast_ss(m + group));
        } else {
          out[4 * i + j].x = product;
        }
      }
    }
  }
};

struct E4m3Loader {
  static constexpr int64_t kSpan = kApartSpan;
  RUNG_INLINE static void Load(const format::Matrix& matrix, const WeightRow& row, int64_t span,
                               Core::Reg* out) {
    __m256 scale[4];
    if (!row.tile_scales) {
      for (__m256& four : scale) four = _mm256_set1_ps(1.0f);
    } else if (const int64_t group = GroupOf(matrix.tiles, span); group >= 0) {
      for (__m256& four : scale) four = _mm256_broadcast_ss(row.tile_scales + group);
    } else {
      alignas(32) float scales[kSpan];
      alignas(32) int zeros[kSpan];
      ScalesOfColumns(matrix.tiles, row, span, scales, zeros);
      for (int i = 0; i < 4; ++i) scale[i] = _mm256_load_ps(scales + 8 * i);
    }
    for (int i = 0; i < 4; ++i) {
      const __m256i halves = E4m3AsF16(Load128(row.data + span * kSpan + i / 2 * 16));
      const __m128i eight = i % 2 ? _mm256_extracti128_si256(halves, 1) : _mm256_castsi256_si128(halves);
      const __m256 value = _mm256_mul_ps(_mm256_cvtph_ps(eight), _mm256_set1_ps(kE4m3Unit));
      out[i].x = _mm256_mul_ps(value, scale[i]);
    }
  }
};

// As ScalesOfColumns, of act-order's groups: by look-ups in tables of 8 groups, less than what gathering
// costs while groups are few.
inline constexpr int64_t kMostTableGroups = 64;
RUNG_TILE void LookUpScales(const format::TileScales& tiles, const WeightRow& row, int64_t span,
                            float* scales, int* zeros) {
  const auto* first = reinterpret_cast<const __m256i*>(tiles.index + span * kApartSpan);
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256 scale[4];
  __m256i zero[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    scale[i] = _mm256_setzero_ps();
    zero[i] = _mm256_setzero_si256();
  }
  for (int64_t at = 0; at < tiles.groups; at += 8) {
    const int64_t left = tiles.groups - at < 8 ? tiles.groups - at : 8;
    const __m256i mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(left)), lanes);
    const __m256 table = _mm256_maskload_ps(row.tile_scales + at, mask);
    uint64_t bytes = 0;
    if (row.zeros && left == 8) {
      __builtin_memcpy(&bytes, row.zeros + at, sizeof(bytes));
    } else {
      for (int64_t i = 0; row.zeros && i < left; ++i) bytes |= uint64_t{row.zeros[at + i]} << (8 * i);
    }
    const __m256i zero_table = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(bytes)));
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const __m256i index = _mm256_loadu_si256(first + i);
      const __m256i here =
          _mm256_cmpeq_epi32(_mm256_srli_epi32(index, 3), _mm256_set1_epi32(static_cast<int>(at / 8)));
      scale[i] =
          _mm256_blendv_ps(scale[i], _mm256_permutevar8x32_ps(table, index), _mm256_castsi256_ps(here));
      zero[i] = _mm256_blendv_epi8(zero[i], _mm256_permutevar8x32_epi32(zero_table, index), here);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    _mm256_store_ps(scales + 8 * i, scale[i]);
    _mm256_store_si256(reinterpret_cast<__m256i*>(zeros) + i, zero[i]);
  }
}

struct Int4Loader {
  static constexpr int64_t kSpan = kApartSpan;
  RUNG_INLINE static void Load(const format::Matrix& matrix, const WeightRow& row, int64_t span,
                               Core::Reg* out) {
    __m256 scale[4];
    __m256i zero[4];
    if (const int64_t group = GroupOf(matrix.tiles, span); group >= 0) {
      for (__m256& eight : scale) eight = _mm256_broadcast_ss(row.tile_scales + group);
      for (__m256i& eight : zero) eight = _mm256_set1_epi32(ZeroOf(row, group));
    } else {
      alignas(32) float scales[kSpan];
      alignas(32) int zeros[kSpan];
      if (matrix.tiles.index && matrix.tiles.groups <= kMostTableGroups) {
        LookUpScales(matrix.tiles, row, span, scales, zeros);
      } else {
        ScalesOfColumns(matrix.tiles, row, span, scales, zeros);
      }
      for (int i = 0; i < 4; ++i) scale[i] = _mm256_load_ps(scales + 8 * i);
      for (int i = 0; i < 4; ++i) zero[i] = _mm256_load_si256(reinterpret_cast<__m256i*>(zeros) + i);
    }
    const __m256i bytes = Int4Codes(row.data + span * (kSpan / 2));
    const __m128i half[2] = {_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1)};
    for (int i = 0; i < 4; ++i) {
      const __m256i codes = _mm256_cvtepu8_epi32(i % 2 ? _mm_srli_si128(half[i / 2], 8) : half[i / 2]);
      out[i].x = _mm256_mul_ps(scale[i], _mm256_cvtepi32_ps(_mm256_sub_epi32(codes, zero[i])));
    }
  }
};

template <class Loader>
using Wide = ByParts<Core, F32Loader, Loader>;
template <class Codes>
using Coded = Wide<CodesLoader<Codes>>;

using Formats = FormatTable<Core, F32Loader, F16Loader, Bf16Loader, Q8_0Loader, Q4_0Loader, Q4_1Loader,
                            BlockScaledLoader<format::kNf4Level>, Coded<Q5_0Codes>, Coded<Q5_1Codes>,
                            Coded<Q2KCodes>, Coded<Q3KCodes>, Coded<Q4KCodes>, Coded<Q5KCodes>,
                            Coded<Q6KCodes>, Coded<Iq4NlCodes>, Coded<Iq4XsCodes>, Coded<Mxfp4Codes>,
                            BlockScaledLoader<format::kFp4Level>, Wide<E4m3Loader>, Wide<Int4Loader>>;

}  // namespace

constinit const PanelKernels<float> kPanelAvx2 = MakePanelKernels<Core, Formats>();

}  // namespace rung::cpu
