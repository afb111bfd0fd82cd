#include "kernels/cpu/dense.h"

#include <omp.h>

#include "kernels/cpu/rows_testing.h"

namespace rung::cpu {
namespace {

struct Extents {
  int64_t N, K, O;
};
constexpr Extents kExtents[] = {{1, 1, 1},     {7, 3, 5},     {33, 64, 17},
                                {5, 576, 128}, {700, 64, 33}, {2048, 33, 9}};

// Sum over k of a(k) b(k), in f64.
template <class Term>
double Sum(int64_t K, const Term& term) {
  double sum = 0.0;
  for (int64_t k = 0; k < K; ++k) sum += term(k);
  return sum;
}

// run(context, out) for 1, 2 and 3 threads with and without add against expected(n, c), twice each for the
// same bits. Terms are below 4 and independent of sign: f32 sums of K of them are good to some 1e-7 sqrt(K).
template <class Run, class Expected>
void Check(int64_t rows, int64_t cols, int64_t K, const Run& run, const Expected& expected) {
  const auto old = Matrix<float>::Random(rows, cols, 9);
  for (const int threads : {1, 2, 3}) {
    const Context context{BestIsa(), threads};
    for (const bool add : {false, true}) {
      SCOPED_TRACE(testing::Message() << threads << " threads, add " << add);
      Matrix<float> out = add ? old : Matrix<float>(rows, cols), again = out;
      run(context, add, &out);
      ExpectNear(out, 1e-6, 4.0 * std::sqrt(static_cast<double>(K)),
                 [&](int64_t n, int64_t c) { return expected(n, c) + (add ? old(n, c) : 0.0); });
      run(context, add, &again);
      EXPECT_TRUE(out.SameBits(again)) << "two runs differ";
    }
  }
}

TEST(Dense, ThreeProductsMatchTextbook) {
  for (const Extents& extents : kExtents) {
    const int64_t N = extents.N, K = extents.K, O = extents.O;
    SCOPED_TRACE(testing::Message() << "N=" << N << " K=" << K << " O=" << O);
    const auto x = Matrix<float>::Random(N, K, 1, -2, 2, 1), w = Matrix<float>::Random(O, K, 2);
    const auto dy = Matrix<float>::Random(N, O, 3, -2, 2, 5);
    Check(
        N, O, K,
        [&](const Context& on, bool add, Matrix<float>* y) {
          Dense(on, x.ptr(), x.ld, w.ptr(), w.ld, N, K, O, add, y->ptr(), y->ld);
        },
        [&](int64_t n, int64_t o) { return Sum(K, [&](int64_t k) { return x(n, k) * w(o, k); }); });
    Check(
        N, K, O,
        [&](const Context& on, bool add, Matrix<float>* dx) {
          DenseGradInput(on, dy.ptr(), dy.ld, w.ptr(), w.ld, N, K, O, add, dx->ptr(), dx->ld);
        },
        [&](int64_t n, int64_t k) { return Sum(O, [&](int64_t o) { return dy(n, o) * w(o, k); }); });
    Check(
        O, K, N,
        [&](const Context& on, bool add, Matrix<float>* dw) {
          DenseGradWeight(on, dy.ptr(), dy.ld, x.ptr(), x.ld, N, K, O, add, dw->ptr(), dw->ld);
        },
        [&](int64_t o, int64_t k) { return Sum(N, [&](int64_t n) { return dy(n, o) * x(n, k); }); });
  }
}

TEST(Dense, EmptySumsAreZeroAndEmptyResultsAreLeftAlone) {
  const Context context{BestIsa(), 2};
  Matrix<float> dw(2, 3), none(1, 1);
  DenseGradWeight(context, none.ptr(), 2, none.ptr(), 3, 0, 3, 2, false, dw.ptr(), dw.ld);
  ExpectNear(dw, 0.0, 0.0, [](int64_t, int64_t) { return 0.0; });
  DenseGradWeight(context, none.ptr(), 2, none.ptr(), 3, 0, 3, 2, true, dw.ptr(), dw.ld);
  ExpectNear(dw, 0.0, 0.0, [](int64_t, int64_t) { return 0.0; });
  Dense(context, none.ptr(), 3, dw.ptr(), dw.ld, 0, 3, 2, false, none.ptr(), 2);
  EXPECT_TRUE(std::isnan(none(0, 0)));
}

TEST(Dense, LeavesTheTeamSizeAsItWas) {
  const int before = omp_get_max_threads();
  const auto x = Matrix<float>::Random(4, 4, 1);
  Matrix<float> y(4, 4);
  Dense(Context{BestIsa(), before + 2}, x.ptr(), x.ld, x.ptr(), x.ld, 4, 4, 4, false, y.ptr(), y.ld);
  EXPECT_EQ(omp_get_max_threads(), before);
}

}  // namespace
}  // namespace rung::cpu
