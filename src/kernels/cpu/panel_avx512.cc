#include "kernels/cpu/panel_avx512_apart.h"
#include "kernels/cpu/panel_few_parts.h"
#include "kernels/cpu/panel_kquants.h"

namespace rung::cpu {
namespace {

struct Core {
  using T = float;
  using V = VecAvx512;
  using Reg = VecAvx512;
  static constexpr int kDword = 1, kRows = 6, kVecs = 4, kRegisters = 32;

  RUNG_INLINE static Reg Zero() { return {_mm512_setzero_ps()}; }
  RUNG_INLINE static Reg Load(const float* p) { return {_mm512_loadu_ps(p)}; }
  RUNG_INLINE static void Store(float* p, Reg a) { _mm512_storeu_ps(p, a.x); }
  RUNG_INLINE static Reg Round(const float* p) { return Load(p); }
  RUNG_INLINE static Reg Broadcast(const float* p) { return {_mm512_set1_ps(*p)}; }
  RUNG_INLINE static Reg Column(const float* src, int64_t) { return Load(src); }
  RUNG_INLINE static V Dot(V sum, Reg a, Reg b) { return {_mm512_fmadd_ps(a.x, b.x, sum.x)}; }
  RUNG_INLINE static void Transpose(Reg* r) {
    __m512i square[16];
    for (int i = 0; i < 16; ++i) square[i] = _mm512_castps_si512(r[i].x);
    Transpose16(square);
    for (int i = 0; i < 16; ++i) r[i].x = _mm512_castsi512_ps(square[i]);
  }
};

template <class Weights>
struct Computed {
  static constexpr int64_t kSpan = Weights::kSpan;
  RUNG_INLINE static void Load(const format::Matrix& matrix, const WeightRow& row, int64_t span,
                               Core::Reg* out) {
    const Weights weights(matrix, row, span);
#pragma GCC unroll 8
    for (int i = 0; i < kSpan / 32; ++i) {
      __m512 pair[2];
      weights.Pair(i, pair);
      out[2 * i].x = pair[0];
      out[2 * i + 1].x = pair[1];
    }
  }
};

// vpermps looks at the low four bits of each index only: what is above them need not be cleared.
template <class Format>
struct LookedUp {
  static constexpr int64_t kSpan = Format::kSpan;
  RUNG_INLINE static void Load(const format::Matrix& matrix, const WeightRow& row, int64_t span,
                               Core::Reg* out) {
    const __m512 levels = Format::Levels(matrix, row, span);
    const std::byte* codes = Format::Codes(row, span);
#pragma GCC unroll 2
    for (int i = 0; i < kSpan / 32; ++i, codes += 16) {
      if constexpr (Format::kInOrder) {
        const __m128i bytes = Load128(codes);
        const __m512i shift = _mm512_set1_epi64(4);  // dwords 4, 0, 4, 0 ...
        const __m512i first = _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(bytes, bytes));
        const __m512i second = _mm512_cvtepu8_epi32(_mm_unpackhi_epi8(bytes, bytes));
        out[2 * i].x = _mm512_permutexvar_ps(_mm512_srlv_epi32(first, shift), levels);
        out[2 * i + 1].x = _mm512_permutexvar_ps(_mm512_srlv_epi32(second, shift), levels);
      } else {
        const __m512i bytes = _mm512_cvtepu8_epi32(Load128(codes));
        out[2 * i].x = _mm512_permutexvar_ps(bytes, levels);
        out[2 * i + 1].x = _mm512_permutexvar_ps(_mm512_srli_epi32(bytes, 4), levels);
      }
    }
  }
};

template <class Weights>
using Wide = ByParts<Core, Computed<F32Weights>, Computed<Weights>>;
template <class Codes>
using Coded = Wide<WeightsOfCodes<Codes>>;

using Formats =
    FormatTable<Core, Computed<F32Weights>, Computed<F16Weights>, Computed<Bf16Weights>,
                Computed<Q8_0Weights>, LookedUp<Q4_0Levels>, LookedUp<Q4_1Levels>, LookedUp<Nf4Levels>,
                Coded<Q5_0Codes>, Coded<Q5_1Codes>, Coded<Q2KCodes>, Coded<Q3KCodes>, Coded<Q4KCodes>,
                Coded<Q5KCodes>, Coded<Q6KCodes>, Coded<Iq4NlCodes>, Coded<Iq4XsCodes>, Coded<Mxfp4Codes>,
                LookedUp<Fp4Levels>, Wide<E4m3Weights>, Wide<Int4Weights>>;

}  // namespace

constinit const PanelKernels<float> kPanelAvx512 = MakePanelKernels<Core, Formats>();

}  // namespace rung::cpu
