#include "kernels/cpu/attention_kernels.h"

namespace rung::cpu {

template <>
const AttentionKernels<float>* AttentionFor<float>(Isa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case Isa::kAvx2:
      return &kAttentionAvx2;
    case Isa::kAvx512:
      return &kAttentionAvx512;
    case Isa::kAvx512Bf16:
      return &kAttentionAvx512Bf16F32;
#endif
    default:
      return &kAttentionBaseline;
  }
}

template <>
const AttentionKernels<Bf16>* AttentionFor<Bf16>(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512Bf16) return &kAttentionAvx512Bf16;
#endif
  return nullptr;
}

}  // namespace rung::cpu
