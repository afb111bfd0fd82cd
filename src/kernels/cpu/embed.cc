#include "base/threads.h"
#include "kernels/cpu/panel.h"

namespace rung::cpu {

void EmbedRows(const Context& context, const format::Matrix& matrix, const int32_t* ids, int64_t N,
               float* out, int64_t ldo) {
  const PanelKernels<float>& kernels = *PanelFor<float>(context.isa);
  OnEachThread(context.threads, [&](int thread) {
    const Share share = ShareOf(N, thread, context.threads);
    for (int64_t n = share.begin; n < share.end; ++n)
      kernels.decode_rows(matrix, ids[n], 1, out + n * ldo, ldo);
  });
}

void DecodeMatrix(const Context& context, const format::Matrix& matrix, float* out, int64_t ldo) {
  const PanelKernels<float>& kernels = *PanelFor<float>(context.isa);
  OnEachThread(context.threads, [&](int thread) {
    const Share share = ShareOf(matrix.rows, thread, context.threads);
    kernels.decode_rows(matrix, share.begin, share.end - share.begin, out + share.begin * ldo, ldo);
  });
}

}  // namespace rung::cpu
