// AdamW (arXiv 1711.05101) with both moments in 8 bits (arXiv 2110.02861), by the rule of bitsandbytes'
// block-wise AdamW8bit.
//
// Blocks of 256 elements. A moment is a code per element and one f32 per block, its largest magnitude:
//   m = DynamicMap(kSigned)[code] * absmax,  v = DynamicMap(kUnsigned)[code] * absmax
// A step decodes a block, updates m, v and the weights in f32 as AdamWUpdate does, takes the new maxima and
// writes the nearest codes. The weights never see the rounding of their own step.
//
// bitsandbytes 0.50 has three back ends, which differ in details. The rules here, and whose they are:
// - The nearest code is exact, of x * (1/absmax); halfway the even one (CUDA). The CPU code rounds to
//   multiples of 2/65535 first, which loses most codes of |x| < 1e-4.
// - An m < 0 that would get the code of 0 gets the one below (CUDA).
// - A v > 0 that would get the code of 0 gets the one above (ours). Else, where the gradients of a block span
//   four decades, an m that survived is divided by a v that did not, and a quadratic diverges that f32
//   moments solve. CUDA writes 0; the CPU code never does, because its grid has no 0.
// - Decay is of the weight before the step (CPU, Triton and the paper). CUDA decays the result, which differs
//   by learning_rate * decay of one change.
// - An absmax below 2^-126 has no finite inverse and becomes 0. Codes of a block of zeros mean nothing.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/cpu/rows.h"

namespace rung::cpu {

inline constexpr int64_t kAdamW8Block = 256;
constexpr int64_t AdamW8Blocks(int64_t n) { return (n + kAdamW8Block - 1) / kAdamW8Block; }

enum class DynamicSign : uint8_t { kSigned, kUnsigned };
// bitsandbytes' create_dynamic_map(signed), ascending: seven decades from 1e-7 to 1, each with twice the
// levels of the one below, and 0 and 1.
const std::array<float, 256>& DynamicMap(DynamicSign sign);

// The moments of n elements. Zeroed memory is the state before the first step.
struct Moments8 {
  uint8_t *m, *v;              // (n)
  float *m_absmax, *v_absmax;  // (AdamW8Blocks(n))
};

// One step over a flat array. Scaled gradients are finite and below 1e19, else v overflows.
void AdamW8Update(const Context& context, const AdamW& step, const float* gradient, int64_t n, float* weight,
                  const Moments8& moments);

}  // namespace rung::cpu
