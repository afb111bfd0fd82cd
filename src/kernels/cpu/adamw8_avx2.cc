#include "kernels/cpu/adamw8_impl.h"

#if defined(__x86_64__)
namespace rung::cpu {

constinit const AdamW8Kernels kAdamW8Avx2 = {UpdateBlocks<VecAvx2>};

}  // namespace rung::cpu
#endif
