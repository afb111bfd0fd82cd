// Dropout masks by Philox 4x32-10, the generator of base/rng.h, many counters at once. Include only from
// files of one ISA.
#pragma once

#include <cstdint>

#include "kernels/cpu/rows_kernels.h"
#include "kernels/cpu/rows_sweep.h"

namespace rung::cpu {
namespace {

// Vectors of 32-bit words that go with a Vec.
//
//   Counters(c)            c + the block of each lane, so that Transpose leaves the words in order of index
//   MulWide(a,m,high,low)  both halves of the 64-bit products a*m
//   Transpose(w)           from word j of all blocks in w[j] to the words as the index counts them
//   Factor(t, s)           s where word >> 8 is at least t, else 0; t < 2^24
template <class V>
struct WordsOf;

template <>
struct WordsOf<VecBaseline> {
  VecBaseline::Bits x;

  static WordsOf Set(uint32_t a) { return {VecBaseline::Bits{a, a, a, a}}; }
  static WordsOf Counters(uint32_t c) { return {VecBaseline::Bits{c, c + 1, c + 2, c + 3}}; }
  static WordsOf Xor(WordsOf a, WordsOf b) { return {a.x ^ b.x}; }
  static void MulWide(WordsOf a, uint32_t m, WordsOf* high, WordsOf* low) {
    for (int i = 0; i < 4; ++i) {
      const uint64_t product = uint64_t{a.x[i]} * m;
      high->x[i] = static_cast<uint32_t>(product >> 32);
      low->x[i] = static_cast<uint32_t>(product);
    }
  }
  static void Transpose(WordsOf* w) {
    const WordsOf from[4] = {w[0], w[1], w[2], w[3]};
    for (int i = 0; i < 4; ++i)
      w[i].x = VecBaseline::Bits{from[0].x[i], from[1].x[i], from[2].x[i], from[3].x[i]};
  }
  VecBaseline Factor(uint32_t threshold, float scale) const {
    const VecBaseline::Bits below = (VecBaseline::Bits)((x >> 8) < threshold);
    return VecBaseline::Select(below, VecBaseline::Set(0.0f), VecBaseline::Set(scale));
  }
};

#if defined(__AVX2__)
template <>
struct WordsOf<VecAvx2> {
  __m256i x;

  static WordsOf Set(uint32_t a) { return {_mm256_set1_epi32(static_cast<int>(a))}; }
  static WordsOf Counters(uint32_t c) {
    return {_mm256_add_epi32(Set(c).x, _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7))};
  }
  static WordsOf Xor(WordsOf a, WordsOf b) { return {_mm256_xor_si256(a.x, b.x)}; }
  static void MulWide(WordsOf a, uint32_t m, WordsOf* high, WordsOf* low) {
    const __m256i even = _mm256_mul_epu32(a.x, Set(m).x);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a.x, 32), Set(m).x);
    high->x = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    low->x = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
  }
  static void Transpose(WordsOf* w) {
    const __m256i a = _mm256_unpacklo_epi32(w[0].x, w[1].x), b = _mm256_unpackhi_epi32(w[0].x, w[1].x);
    const __m256i c = _mm256_unpacklo_epi32(w[2].x, w[3].x), d = _mm256_unpackhi_epi32(w[2].x, w[3].x);
    w[0].x = _mm256_unpacklo_epi64(a, c);
    w[1].x = _mm256_unpackhi_epi64(a, c);
    w[2].x = _mm256_unpacklo_epi64(b, d);
    w[3].x = _mm256_unpackhi_epi64(b, d);
  }
  VecAvx2 Factor(uint32_t threshold, float scale) const {
    const __m256i below = _mm256_cmpgt_epi32(Set(threshold).x, _mm256_srli_epi32(x, 8));
    return {_mm256_andnot_ps(_mm256_castsi256_ps(below), _mm256_set1_ps(scale))};
  }
};
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
template <>
struct WordsOf<VecAvx512> {
  __m512i x;

  static WordsOf Set(uint32_t a) { return {_mm512_set1_epi32(static_cast<int>(a))}; }
  static WordsOf Counters(uint32_t c) {
    return {
        _mm512_add_epi32(Set(c).x, _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15))};
  }
  static WordsOf Xor(WordsOf a, WordsOf b) { return {_mm512_xor_si512(a.x, b.x)}; }
  static void MulWide(WordsOf a, uint32_t m, WordsOf* high, WordsOf* low) {
    const __m512i even = _mm512_mul_epu32(a.x, Set(m).x);
    const __m512i odd = _mm512_mul_epu32(_mm512_srli_epi64(a.x, 32), Set(m).x);
    high->x = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    low->x = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
  }
  static void Transpose(WordsOf* w) {
    const __m512i a = _mm512_unpacklo_epi32(w[0].x, w[1].x), b = _mm512_unpackhi_epi32(w[0].x, w[1].x);
    const __m512i c = _mm512_unpacklo_epi32(w[2].x, w[3].x), d = _mm512_unpackhi_epi32(w[2].x, w[3].x);
    w[0].x = _mm512_unpacklo_epi64(a, c);
    w[1].x = _mm512_unpackhi_epi64(a, c);
    w[2].x = _mm512_unpacklo_epi64(b, d);
    w[3].x = _mm512_unpackhi_epi64(b, d);
  }
  VecAvx512 Factor(uint32_t threshold, float scale) const {
    const __mmask16 kept = _mm512_cmpge_epu32_mask(_mm512_srli_epi32(x, 8), Set(threshold).x);
    return {_mm512_maskz_mov_ps(kept, _mm512_set1_ps(scale))};
  }
};
#endif

// Indices of a group start at a multiple of it: all its counters have the same upper half.
constexpr int64_t kDropGroup = 64;

// factor[i] of the indices first + i, `groups` groups from the multiple `first` of kDropGroup on.
template <class V>
void DropFactors(const DropMask& mask, uint64_t first, int64_t groups, float* factor) {
  using Words = WordsOf<V>;
  constexpr int64_t kBlocks = V::kWidth;
  for (int64_t done = 0; done < groups * kDropGroup; done += 4 * kBlocks) {
    const uint64_t block = mask.first_block + (first + static_cast<uint64_t>(done)) / 4;
    Words x[4] = {Words::Counters(static_cast<uint32_t>(block)),
                  Words::Set(static_cast<uint32_t>(block >> 32)), Words::Set(mask.stream),
                  Words::Set(mask.substream)};
    uint32_t key0 = static_cast<uint32_t>(mask.seed), key1 = static_cast<uint32_t>(mask.seed >> 32);
    for (int round = 0; round < 10; ++round, key0 += 0x9E3779B9u, key1 += 0xBB67AE85u) {
      Words high0, low0, high2, low2;
      Words::MulWide(x[0], 0xD2511F53u, &high0, &low0);
      Words::MulWide(x[2], 0xCD9E8D57u, &high2, &low2);
      x[0] = Words::Xor(Words::Xor(high2, x[1]), Words::Set(key0));
      x[1] = low2;
      x[2] = Words::Xor(Words::Xor(high0, x[3]), Words::Set(key1));
      x[3] = low0;
    }
    Words::Transpose(x);
    for (int j = 0; j < 4; ++j) x[j].Factor(mask.threshold, mask.scale).Store(factor + done + j * kBlocks);
  }
}

template <class V, class T, bool kAdd>
void DropRows(const DropMask& mask, int64_t index, int64_t step, const T* x, int64_t ldx, int64_t N,
              int64_t C, T* y, int64_t ldy) {
  constexpr int64_t kChunk = 8 * kDropGroup;
  alignas(64) float factors[kChunk];
  for (int64_t n = 0; n < N; ++n, index += step, x += ldx, y += ldy) {
    for (int64_t c = 0, count = 0; c < C; c += count) {
      const int64_t skipped = (index + c) % kDropGroup;
      count = C - c < kChunk - skipped ? C - c : kChunk - skipped;
      const int64_t groups = (skipped + count + kDropGroup - 1) / kDropGroup;
      DropFactors<V>(mask, static_cast<uint64_t>(index + c - skipped), groups, factors);
      const float* factor = factors + skipped;
      const T* from = x + c;
      T* to = y + c;
      Sweep<V>(count, [&](auto at) {
        const V dropped = V::Mul(at.Load(from), at.Load(factor));
        at.Store(kAdd ? V::Add(at.Load(to), dropped) : dropped, to);
      });
    }
  }
}

}  // namespace
}  // namespace rung::cpu
