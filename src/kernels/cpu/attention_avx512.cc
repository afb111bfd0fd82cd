#include "kernels/cpu/attention_blocks.h"

namespace rung::cpu {
constexpr AttentionKernels<float> kAttentionAvx512 = MakeAttentionKernels<VecAvx512, float>();
}  // namespace rung::cpu
