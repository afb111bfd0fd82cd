#include "kernels/cpu/rows_impl.h"

#if defined(__x86_64__)
namespace rung::cpu {

constinit const RowsKernels kRowsAvx512 = MakeRowsKernels<VecAvx512>();

}  // namespace rung::cpu
#endif
