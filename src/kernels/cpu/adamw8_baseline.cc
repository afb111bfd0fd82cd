#include "kernels/cpu/adamw8_impl.h"

namespace rung::cpu {

constinit const AdamW8Kernels kAdamW8Baseline = {UpdateBlocks<VecBaseline>};

}  // namespace rung::cpu
