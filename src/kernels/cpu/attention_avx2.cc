#include "kernels/cpu/attention_blocks.h"

namespace rung::cpu {
constexpr AttentionKernels<float> kAttentionAvx2 = MakeAttentionKernels<VecAvx2, float>();
}  // namespace rung::cpu
