#include "kernels/cpu/attention_blocks.h"

namespace rung::cpu {
constexpr AttentionKernels<float> kAttentionAvx512Bf16F32 = MakeAttentionKernels<VecAvx512, float>();
constexpr AttentionKernels<Bf16> kAttentionAvx512Bf16 = MakeAttentionKernels<VecAvx512, Bf16>();
}  // namespace rung::cpu
