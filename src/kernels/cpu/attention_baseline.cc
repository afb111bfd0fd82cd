#include "kernels/cpu/attention_blocks.h"

namespace rung::cpu {
constexpr AttentionKernels<float> kAttentionBaseline = MakeAttentionKernels<VecBaseline, float>();
}  // namespace rung::cpu
