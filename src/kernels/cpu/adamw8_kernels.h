// The table behind adamw8.h: one step on whole blocks, on the calling thread, and the tables that it
// searches.
//
// Codes are found by one look-up. The bits of a positive float x, cut after a few bits of its mantissa, are a
// bucket; buckets are so narrow that each holds one border between two levels at most:
//   level(x) = entry[bucket] >> 24, and one more where the bits that were cut off exceed entry[bucket]'s low
//   bits
// Buckets below the lowest border give level 0, those from 1 on the highest.
#pragma once

#include <cstdint>

#include "kernels/cpu/adamw8.h"

namespace rung::cpu {

// kBits: of the mantissa that name a bucket. kExponent: the biased exponent of the lowest border.
template <int kBits, int kExponent>
struct LevelSearch {
  static constexpr int kCut = 23 - kBits;
  static constexpr uint32_t kCutMask = (1u << kCut) - 1;
  static constexpr int32_t kFirst = (kExponent << kBits) - 1;
  static constexpr int32_t kCount = (127 << kBits) - kFirst + 1;
  alignas(64) uint32_t entry[kCount];
};
// Levels of magnitudes, 0..128: 64 in the highest decade. The lowest border is 2.75e-7.
using SignedSearch = LevelSearch<6, 105>;
// 0..255: 128 in the highest decade. The lowest border is 1.6e-7.
using UnsignedSearch = LevelSearch<7, 104>;

struct AdamW8Tables {
  alignas(64) float m_level[256], v_level[256];  // by code
  SignedSearch m_search;
  UnsignedSearch v_search;
};

struct AdamW8Kernels {
  void (*blocks)(const AdamW8Tables& tables, const AdamW& step, const float* gradient, int64_t blocks,
                 float* weight, const Moments8& moments);
};

extern const AdamW8Kernels kAdamW8Baseline;
#if defined(__x86_64__)
extern const AdamW8Kernels kAdamW8Avx2, kAdamW8Avx512;
#endif

}  // namespace rung::cpu
