#include "kernels/cpu/panel_avx512_apart.h"
#include "kernels/cpu/panel_few_parts.h"
#include "kernels/cpu/panel_few_super.h"

namespace rung::cpu {
namespace {

struct Core {
  using T = Bf16;
  using V = VecAvx512;
  struct Reg {
    __m512i x;
  };
  static constexpr int kDword = 2, kRows = 6, kVecs = 4, kRegisters = 32;

  RUNG_INLINE static Reg Zero() { return {_mm512_setzero_si512()}; }
  RUNG_INLINE static Reg Load(const Bf16* p) { return {_mm512_loadu_si512(p)}; }
  RUNG_INLINE static void Store(Bf16* p, Reg a) { _mm512_storeu_si512(p, a.x); }
  RUNG_INLINE static Reg Narrow(__m512 low, __m512 high) { return {(__m512i)_mm512_cvtne2ps_pbh(high, low)}; }
  RUNG_INLINE static Reg Round(const float* p) { return Narrow(_mm512_loadu_ps(p), _mm512_loadu_ps(p + 16)); }
  RUNG_INLINE static Reg Broadcast(const Bf16* p) {
    int pair;
    __builtin_memcpy(&pair, p, sizeof(pair));
    return {_mm512_set1_epi32(pair)};
  }
  RUNG_INLINE static Reg Column(const Bf16* src, int64_t ld) {
    const __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(src)));
    const __m512i odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + ld)));
    return {_mm512_or_si512(even, _mm512_slli_epi32(odd, 16))};
  }
  RUNG_INLINE static V Dot(V sum, Reg a, Reg b) {
    return {_mm512_dpbf16_ps(sum.x, (__m512bh)a.x, (__m512bh)b.x)};
  }
  RUNG_INLINE static void Transpose(Reg* r) {
    __m512i square[16];
    for (int i = 0; i < 16; ++i) square[i] = r[i].x;
    Transpose16(square);
    for (int i = 0; i < 16; ++i) r[i].x = square[i];
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
      out[i] = Core::Narrow(pair[0], pair[1]);
    }
  }
};

struct Copied {
  static constexpr int64_t kSpan = 32;
  RUNG_INLINE static void Load(const format::Matrix&, const WeightRow& row, int64_t span, Core::Reg* out) {
    out[0].x = _mm512_loadu_si512(row.data + span * 64);
  }
};

// The 16 levels are rounded once and stand twice in a register, so that vpermw gives the same for every code,
// whatever the bits above its low four are.
template <class Format>
struct LookedUp {
  static constexpr int64_t kSpan = Format::kSpan;
  RUNG_INLINE static void Load(const format::Matrix& matrix, const WeightRow& row, int64_t span,
                               Core::Reg* out) {
    const __m512 levels = Format::Levels(matrix, row, span);
    const __m512i table = Core::Narrow(levels, levels).x;
    const std::byte* codes = Format::Codes(row, span);
#pragma GCC unroll 2
    for (int i = 0; i < kSpan / 32; ++i, codes += 16) {
      __m512i words;
      if constexpr (Format::kInOrder) {
        // Each quadword gets two bytes, and its four words the bits from 4, 0, 12 and 8 on.
        const __m512i pairs = _mm512_cvtepu16_epi64(Load128(codes));
        words = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x0008000c00000004), pairs);
      } else {
        // Quadwords 0 0 1 1 0 0 1 1 of the codes; words 4j ... 4j+3 take the bits from 0, 8, 16, 24 or 32,
        // 40, 48, 56 on, in the second half 4 more.
        const __m512i spread = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 0, 0, 1, 1),
                                                        _mm512_castsi128_si512(Load128(codes)));
        const long long low = 0x0018001000080000, step = 0x0020002000200020, high = 0x0004000400040004;
        const __m512i shift = _mm512_setr_epi64(low, low + step, low, low + step, low + high,
                                                low + step + high, low + high, low + step + high);
        words = _mm512_multishift_epi64_epi8(shift, spread);
      }
      out[i].x = _mm512_permutexvar_epi16(words, table);
    }
  }
};

template <class Weights>
using Wide = ByParts<Core, Copied, Computed<Weights>>;
template <class Codes>
using Coded = Wide<WeightsOfCodes<Codes>>;
template <class Codes>
using Super = WithSuperDot<Coded<Codes>, Codes>;

using Formats =
    FormatTable<Core, Computed<F32Weights>, Computed<F16Weights>, Copied,
                WithDot<Core, Computed<Q8_0Weights>, DotQ8_0>, WithDot<Core, LookedUp<Q4_0Levels>, DotQ4_0>,
                WithDot<Core, LookedUp<Q4_1Levels>, DotQ4_1>, LookedUp<Nf4Levels>, Coded<Q5_0Codes>,
                Coded<Q5_1Codes>, Super<Q2KCodes>, Super<Q3KCodes>, Super<Q4KCodes>, Super<Q5KCodes>,
                Super<Q6KCodes>, Coded<Iq4NlCodes>, Coded<Iq4XsCodes>, Coded<Mxfp4Codes>, LookedUp<Fp4Levels>,
                Wide<E4m3Weights>, Wide<Int4Weights>>;

}  // namespace

constinit const PanelKernels<Bf16> kPanelAvx512Bf16 = MakePanelKernels<Core, Formats>();

}  // namespace rung::cpu
