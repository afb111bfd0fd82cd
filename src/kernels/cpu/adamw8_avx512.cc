#include "kernels/cpu/adamw8_impl.h"

#if defined(__x86_64__)
namespace rung::cpu {

constinit const AdamW8Kernels kAdamW8Avx512 = {UpdateBlocks<VecAvx512>};

}  // namespace rung::cpu
#endif
