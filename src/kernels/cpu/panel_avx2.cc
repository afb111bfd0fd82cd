#include <immintrin.h>

#include "format/nf4.h"
#include "kernels/cpu/panel_table.h"

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

RUNG_INLINE float ReadF16(const std::byte* at) {
  uint16_t bits;
  __builtin_memcpy(&bits, at, sizeof(bits));
  return _cvtsh_ss(bits);
}
RUNG_INLINE __m128i Load128(const std::byte* at) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
}
RUNG_INLINE __m128i Load64(const std::byte* at) {
  return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at));
}

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

struct Nf4Loader {
  struct Table {
    alignas(32) float level[16];
  };
  // A copy made when compiling: std::array's functions must not be called from here.
  static constexpr Table kTable = [] {
    Table table{};
    for (size_t i = 0; i < 16; ++i) table.level[i] = format::kNf4Level[i];
    return table;
  }();
  static constexpr int64_t kSpan = 64;
  RUNG_INLINE static void Load(const format::Matrix& matrix, const WeightRow& row, int64_t span,
                               Core::Reg* out) {
    const __m256 scale = _mm256_set1_ps(ScaleOf(matrix.scales, row.first_block + span));
    const __m256 low = _mm256_mul_ps(_mm256_load_ps(kTable.level), scale);
    const __m256 high = _mm256_mul_ps(_mm256_load_ps(kTable.level + 8), scale);
    const __m256i shift =
        _mm256_set1_epi64x(4);  // dwords 4, 0, 4, 0 ...: the first weight is the high nibble
    for (int i = 0; i < 8; ++i) {
      const __m128i bytes = _mm_cvtsi32_si128(LoadInt(row.data + span * 32 + 4 * i));
      const __m256i pairs = _mm256_cvtepu8_epi32(_mm_unpacklo_epi8(bytes, bytes));
      const __m256i code = _mm256_srlv_epi32(pairs, shift);
      // vpermps looks at the low three bits of each index, the blend at the fourth, moved to the sign.
      const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(code, 28));
      out[i].x =
          _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, code), _mm256_permutevar8x32_ps(high, code), upper);
    }
  }
  RUNG_INLINE static int LoadInt(const std::byte* at) {
    int value;
    __builtin_memcpy(&value, at, sizeof(value));
    return value;
  }
};

using Formats =
    FormatTable<Core, F32Loader, F16Loader, Bf16Loader, Q8_0Loader, Q4_0Loader, Q4_1Loader, Nf4Loader>;

}  // namespace

constinit const PanelKernels<float> kPanelAvx2 = MakePanelKernels<Core, Formats>();

}  // namespace rung::cpu
