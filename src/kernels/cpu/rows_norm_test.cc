// Layer norm against the textbook in f64, its gradient against complex steps. RMS norm: rows_test.cc.
#include <algorithm>
#include <complex>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/rows_testing.h"

namespace rung::cpu {
namespace {

using Complex = std::complex<double>;
constexpr double kStep = 1e-30;  // complex step: no cancellation, so as small as one likes
constexpr float kEps = 1e-5f;
constexpr auto kDoubleEps = static_cast<double>(kEps);

struct Stats {
  double rstd, mean;
};

template <class T>
Stats StatsOf(const Matrix<T>& x, int64_t n) {
  double mean = 0.0, variance = 0.0;
  for (int64_t c = 0; c < x.C; ++c) mean += x(n, c) / static_cast<double>(x.C);
  for (int64_t c = 0; c < x.C; ++c)
    variance += (x(n, c) - mean) * (x(n, c) - mean) / static_cast<double>(x.C);
  return {1.0 / std::sqrt(variance + kDoubleEps), mean};
}

// `center`: what the values lie around, within 2 of it.
template <class TIn, class TOut>
void TestLayerNorm(double center, double tolerance) {
  ForEachSize([&](const Context& context, int64_t N, int64_t C) {
    const auto x = Matrix<TIn>::Random(N, C, 1, center - 2, center + 2);
    const auto gain = Matrix<float>::Random(1, C, 2), bias = Matrix<float>::Random(1, C, 3);
    Matrix<float> stats(2, N);
    for (const bool with_bias : {true, false}) {
      const float* b = with_bias ? bias.ptr() : nullptr;
      const auto y = OnThreads(context, [&](const Context& on) {
        Matrix<TOut> out(N, C, 5);
        LayerNorm(on, x.ptr(), x.ld, gain.ptr(), b, kEps, N, C, out.ptr(), out.ld, stats.ptr(), stats.ld);
        return out;
      });
      std::vector<Stats> want;
      for (int64_t n = 0; n < N; ++n) want.push_back(StatsOf(x, n));
      const auto at = [&](int64_t n) { return want[static_cast<size_t>(n)]; };
      ExpectNear(y, Tolerance<TOut>(tolerance), sizeof(TOut) == 2 ? 256 * tolerance : 1.0,
                 [&](int64_t n, int64_t c) {
                   return (x(n, c) - at(n).mean) * at(n).rstd * gain(0, c) + (with_bias ? bias(0, c) : 0.0);
                 });
      for (int64_t n = 0; n < N; ++n) {
        ASSERT_NEAR(stats(0, n), at(n).rstd, 2e-6 * at(n).rstd) << n;
        ASSERT_NEAR(stats(1, n), at(n).mean, 0x1p-23 * (center + 2)) << n;  // a rounding of the values' size
      }
      if constexpr (sizeof(TIn) == sizeof(TOut)) {
        Matrix<TOut> in_place = x, apart(N, C);
        LayerNorm(context, x.ptr(), x.ld, gain.ptr(), b, kEps, N, C, apart.ptr(), apart.ld, nullptr, 0);
        LayerNorm(context, in_place.ptr(), x.ld, gain.ptr(), b, kEps, N, C, in_place.ptr(), x.ld, nullptr, 0);
        EXPECT_TRUE(in_place.SameBits(apart));
      }
    }
  });
}
TEST(LayerNorm, MatchesTextbook) { TestLayerNorm<float, float>(0.0, 2e-6); }
TEST(LayerNorm, MatchesTextbookToBf16) { TestLayerNorm<float, Bf16>(0.0, 2e-6); }
TEST(LayerNorm, MatchesTextbookInBf16) { TestLayerNorm<Bf16, Bf16>(0.0, 2e-6); }
// A variance as mean(x^2) - mean^2 would have no digit left.
TEST(LayerNorm, LargeMeansDoNotCancel) { TestLayerNorm<float, float>(10000.0, 3e-6); }

// Loss of one row: sum dy * y, with x[at] moved by an imaginary step.
template <class T>
double LayerNormDx(const Matrix<T>& x, const Matrix<float>& dy, const Matrix<float>& gain, int64_t n,
                   int64_t at) {
  Complex mean = 0.0, variance = 0.0, loss = 0.0;
  const auto moved = [&](int64_t c) { return Complex(x(n, c), c == at ? kStep : 0.0); };
  const auto C = static_cast<double>(x.C);
  for (int64_t c = 0; c < x.C; ++c) mean += moved(c) / C;
  for (int64_t c = 0; c < x.C; ++c) variance += (moved(c) - mean) * (moved(c) - mean) / C;
  const Complex r = 1.0 / std::sqrt(variance + kDoubleEps);
  for (int64_t c = 0; c < x.C; ++c) loss += dy(n, c) * (moved(c) - mean) * r * gain(0, c);
  return loss.imag() / kStep;
}

template <class T>
void TestLayerNormGrad(double center, double tolerance) {
  ForEachSize([&](const Context& context, int64_t N, int64_t C) {
    const auto x = Matrix<T>::Random(N, C, 1, center - 2, center + 2);
    const auto dy = Matrix<float>::Random(N, C, 2, -1, 1, 7);
    const auto gain = Matrix<float>::Random(1, C, 3), dx0 = Matrix<float>::Random(N, C, 4, -1, 1, 2);
    const auto dgain0 = Matrix<float>::Random(1, C, 5), dbias0 = Matrix<float>::Random(1, C, 6);
    Matrix<float> stats(2, N);
    std::vector<Stats> exact;
    for (int64_t n = 0; n < N; ++n) {
      exact.push_back(StatsOf(x, n));
      Assign(stats.at(0, n), exact.back().rstd);
      Assign(stats.at(1, n), exact.back().mean);
    }
    const auto of = [&](int64_t n) { return exact[static_cast<size_t>(n)]; };
    for (const bool add : {true, false}) {
      Matrix<float> dgain = dgain0, dbias = dbias0;
      const auto dx = OnThreads(context, [&](const Context& on) {
        Matrix<float> out = dx0;
        dgain = dgain0;
        dbias = dbias0;
        LayerNormGrad(on, dy.ptr(), dy.ld, x.ptr(), x.ld, gain.ptr(), stats.ptr(), stats.ld, N, C, add,
                      out.ptr(), out.ld, dgain.ptr(), dbias.ptr());
        return out;
      });
      // A complex step costs C; every row has the same formula, so a few of each size are enough. rstd is at
      // most 1/sqrt(eps): in a row of one value both its terms are that large and cancel.
      const double size = C == 1 ? 1.0 / std::sqrt(kDoubleEps) : 1.0;
      for (int64_t n = 0; n < N; n += std::max<int64_t>(1, N / 5)) {
        for (int64_t c = 0; c < C; c += std::max<int64_t>(1, C / 40)) {
          const double want = LayerNormDx(x, dy, gain, n, c) + (add ? dx0(n, c) : 0.0);
          const double scale = size * std::max(1.0, of(n).rstd);
          ASSERT_NEAR(dx(n, c), want, tolerance * scale) << n << "," << c << " add=" << add;
        }
      }
      ExpectNear(dbias, 2e-6, std::sqrt(static_cast<double>(N)), [&](int64_t, int64_t c) {
        double sum = dbias0(0, c);
        for (int64_t n = 0; n < N; ++n) sum += dy(n, c);
        return sum;
      });
      ExpectNear(dgain, tolerance, std::sqrt(static_cast<double>(N)), [&](int64_t, int64_t c) {
        double sum = dgain0(0, c);
        for (int64_t n = 0; n < N; ++n) sum += dy(n, c) * (x(n, c) - of(n).mean) * of(n).rstd;
        return sum;
      });
      if (add) continue;
      Matrix<float> in_place = dy;
      LayerNormGrad(context, in_place.ptr(), dy.ld, x.ptr(), x.ld, gain.ptr(), stats.ptr(), stats.ld, N, C,
                    false, in_place.ptr(), dy.ld, nullptr, nullptr);
      ExpectNear(in_place, 0.0, 0.0, [&](int64_t n, int64_t c) { return dx(n, c); });
      Matrix<float> alone = dgain0;
      LayerNormGrad<T>(context, dy.ptr(), dy.ld, x.ptr(), x.ld, gain.ptr(), stats.ptr(), stats.ld, N, C,
                       false, nullptr, 0, alone.ptr(), nullptr);
      EXPECT_TRUE(alone.SameBits(dgain));
    }
  });
}
TEST(LayerNormGrad, MatchesComplexStep) { TestLayerNormGrad<float>(0.0, 5e-6); }
TEST(LayerNormGrad, MatchesComplexStepFromBf16) { TestLayerNormGrad<Bf16>(0.0, 5e-6); }
// The mean is kept as a float: x - mean is off by up to 2^-24 of it.
TEST(LayerNormGrad, LargeMeansCostTheirRounding) {
  TestLayerNormGrad<float>(100.0, 5e-6 + 100 * 0x1p-24 * 4);
}

}  // namespace
}  // namespace rung::cpu
