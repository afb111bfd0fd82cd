#include "kernels/cpu/panel.h"

namespace rung::cpu {

template <>
const PanelKernels<float>* PanelFor<float>(Isa isa) {
#if defined(__x86_64__)
  switch (isa) {
    case Isa::kAvx512Bf16:
    case Isa::kAvx512:
      return &kPanelAvx512;
    case Isa::kAvx2:
      return &kPanelAvx2;
    case Isa::kBaseline:
      break;
  }
#endif
  static_cast<void>(isa);
  return &kPanelBaseline;
}

template <>
const PanelKernels<Bf16>* PanelFor<Bf16>(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512Bf16) return &kPanelAvx512Bf16;
#endif
  static_cast<void>(isa);
  return nullptr;
}

}  // namespace rung::cpu
