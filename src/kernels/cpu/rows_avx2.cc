#include "kernels/cpu/rows_impl.h"

#if defined(__x86_64__)
namespace rung::cpu {

constinit const RowsKernels kRowsAvx2 = MakeRowsKernels<VecAvx2>();

}  // namespace rung::cpu
#endif
