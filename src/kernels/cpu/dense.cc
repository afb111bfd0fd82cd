#include "kernels/cpu/dense.h"

#include <omp.h>
#include <oneapi/dnnl/dnnl.h>

#include "base/error.h"

namespace rung::cpu {
namespace {

// oneDNN forms a team as large as OpenMP would give it, and cuts the work accordingly.
class TeamSize {
 public:
  explicit TeamSize(int threads) : before_(omp_get_max_threads()) { omp_set_num_threads(threads); }
  ~TeamSize() { omp_set_num_threads(before_); }
  TeamSize(const TeamSize&) = delete;
  TeamSize& operator=(const TeamSize&) = delete;

 private:
  int before_;
};

// c (M,N) (+)= a b, over K; a, b as stored or transposed ('T').
void Multiply(const Context& context, char transpose_a, char transpose_b, int64_t M, int64_t N, int64_t K,
              const float* a, int64_t lda, const float* b, int64_t ldb, bool add, float* c, int64_t ldc) {
  if (M == 0 || N == 0) return;
  if (K == 0) {  // oneDNN leaves c as it is
    for (int64_t i = 0; i < M && !add; ++i) {
      for (int64_t j = 0; j < N; ++j) c[i * ldc + j] = 0.0f;
    }
    return;
  }
  const TeamSize team(context.threads);
  const dnnl_status_t status =
      dnnl_sgemm(transpose_a, transpose_b, M, N, K, 1.0f, a, lda, b, ldb, add ? 1.0f : 0.0f, c, ldc);
  RUNG_CHECK(status == dnnl_success, "dnnl_sgemm refused a product: extents or strides are wrong");
}

}  // namespace

void Dense(const Context& context, const float* x, int64_t ldx, const float* w, int64_t ldw, int64_t N,
           int64_t K, int64_t O, bool add, float* y, int64_t ldy) {
  Multiply(context, 'N', 'T', N, O, K, x, ldx, w, ldw, add, y, ldy);
}

void DenseGradInput(const Context& context, const float* dy, int64_t lddy, const float* w, int64_t ldw,
                    int64_t N, int64_t K, int64_t O, bool add, float* dx, int64_t lddx) {
  Multiply(context, 'N', 'N', N, K, O, dy, lddy, w, ldw, add, dx, lddx);
}

void DenseGradWeight(const Context& context, const float* dy, int64_t lddy, const float* x, int64_t ldx,
                     int64_t N, int64_t K, int64_t O, bool add, float* dw, int64_t lddw) {
  Multiply(context, 'T', 'N', O, K, N, dy, lddy, x, ldx, add, dw, lddw);
}

}  // namespace rung::cpu
