#include "kernels/cpu/rows_impl.h"

namespace rung::cpu {

constinit const RowsKernels kRowsBaseline = MakeRowsKernels<VecBaseline>();

}  // namespace rung::cpu
