#include "kernels/cpu/rows.h"

#include <algorithm>
#include <complex>

#include "kernels/cpu/rows_testing.h"

namespace rung::cpu {
namespace {

using Complex = std::complex<double>;
constexpr double kStep = 1e-30;  // complex step: no cancellation, so as small as one likes
constexpr float kEps = 1e-5f;
constexpr auto kDoubleEps = static_cast<double>(kEps);

template <class T>
double MeanSquareOf(const Matrix<T>& x, int64_t n) {
  double sum = 0.0;
  for (int64_t c = 0; c < x.C; ++c) sum += x(n, c) * x(n, c);
  return sum / static_cast<double>(x.C);
}

template <class TIn, class TOut>
void TestRmsNorm() {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    const auto x = Matrix<TIn>::Random(N, C, 1);
    const auto gain = Matrix<float>::Random(1, C, 2);
    Matrix<float> rstd(1, N);
    const auto y = OnThreads(context, [&](const Context& on) {
      Matrix<TOut> out(N, C, 5);
      RmsNorm(on, x.ptr(), x.ld, gain.ptr(), 1.0f, kEps, N, C, out.ptr(), out.ld, rstd.ptr());
      return out;
    });
    std::vector<double> r;
    for (int64_t n = 0; n < N; ++n) r.push_back(1.0 / std::sqrt(MeanSquareOf(x, n) + kDoubleEps));
    ExpectNear(y, Tolerance<TOut>(1e-6), 1e-6, [&](int64_t n, int64_t c) {
      return x(n, c) * r[static_cast<size_t>(n)] * (gain(0, c) + 1.0);
    });
    ExpectNear(rstd, 1e-6, 0.0, [&](int64_t, int64_t n) { return r[static_cast<size_t>(n)]; });

    if constexpr (sizeof(TIn) == sizeof(TOut)) {
      Matrix<TOut> in_place = x, apart(N, C);
      RmsNorm(context, x.ptr(), x.ld, gain.ptr(), 1.0f, kEps, N, C, apart.ptr(), apart.ld, nullptr);
      RmsNorm(context, in_place.ptr(), x.ld, gain.ptr(), 1.0f, kEps, N, C, in_place.ptr(), x.ld, nullptr);
      EXPECT_TRUE(in_place.SameBits(apart));
    }
  });
}
TEST(RmsNorm, MatchesTextbook) { TestRmsNorm<float, float>(); }
TEST(RmsNorm, MatchesTextbookToBf16) { TestRmsNorm<float, Bf16>(); }
TEST(RmsNorm, MatchesTextbookInBf16) { TestRmsNorm<Bf16, Bf16>(); }

// Loss of one row: sum dy * y, with x[at] moved by an imaginary step.
template <class T>
double RmsNormDx(const Matrix<T>& x, const Matrix<float>& dy, const Matrix<float>& gain, int64_t n,
                 int64_t at) {
  Complex mean = 0.0, loss = 0.0;
  const auto moved = [&](int64_t c) { return Complex(x(n, c), c == at ? kStep : 0.0); };
  for (int64_t c = 0; c < x.C; ++c) mean += moved(c) * moved(c);
  const Complex r = 1.0 / std::sqrt(mean / static_cast<double>(x.C) + kDoubleEps);
  for (int64_t c = 0; c < x.C; ++c) loss += dy(n, c) * moved(c) * r * (gain(0, c) + 0.5);
  return loss.imag() / kStep;
}

template <class T>
void TestRmsNormGrad() {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    const auto x = Matrix<T>::Random(N, C, 1);
    const auto dy = Matrix<float>::Random(N, C, 2, -1, 1, 7);
    const auto gain = Matrix<float>::Random(1, C, 3), dx0 = Matrix<float>::Random(N, C, 4, -1, 1, 2);
    const auto dgain0 = Matrix<float>::Random(1, C, 5);
    Matrix<T> normed(N, C);
    Matrix<float> rstd(1, N);
    RmsNorm(context, x.ptr(), x.ld, gain.ptr(), 0.5f, kEps, N, C, normed.ptr(), normed.ld, rstd.ptr());

    for (const bool add : {false, true}) {
      Matrix<float> dgain = dgain0;
      const auto dx = OnThreads(context, [&](const Context& on) {
        Matrix<float> out = dx0;
        dgain = dgain0;
        RmsNormGrad(on, dy.ptr(), dy.ld, x.ptr(), x.ld, gain.ptr(), 0.5f, rstd.ptr(), N, C, add, out.ptr(),
                    out.ld, dgain.ptr());
        return out;
      });
      const int64_t few = std::min<int64_t>(N, 40);  // the step is O(C) for each element
      Matrix<float> first(few, C);
      for (int64_t n = 0; n < few; ++n)
        std::memcpy(first.at(n, 0), &dx.data[size_t(n * dx.ld)], size_t(C) * 4);
      // The floor: where C is small, terms of the size of rstd cancel.
      ExpectNear(first, 2e-6, C < 16 ? 300.0 : 3.0, [&](int64_t n, int64_t c) {
        return RmsNormDx(x, dy, gain, n, c) + (add ? dx0(n, c) : 0.0);
      });
      const auto dgain_one = OnThreads(context, [&](const Context& on) {
        Matrix<float> out = dgain0;
        RmsNormGrad(on, dy.ptr(), dy.ld, x.ptr(), x.ld, gain.ptr(), 0.5f, rstd.ptr(), N, C, add, nullptr, 0,
                    out.ptr());
        return out;
      });
      EXPECT_TRUE(dgain_one.SameBits(dgain));
      ExpectNear(dgain, 1e-6, 30.0, [&](int64_t, int64_t c) {
        double sum = dgain0(0, c);
        for (int64_t n = 0; n < N; ++n)
          sum += dy(n, c) * x(n, c) / std::sqrt(MeanSquareOf(x, n) + kDoubleEps);
        return sum;
      });
      if (add) continue;
      Matrix<float> in_place = dy;
      RmsNormGrad(context, in_place.ptr(), dy.ld, x.ptr(), x.ld, gain.ptr(), 0.5f, rstd.ptr(), N, C, false,
                  in_place.ptr(), dy.ld, nullptr);
      ExpectNear(in_place, 0.0, 0.0, [&](int64_t n, int64_t c) { return dx(n, c); });
    }
  });
}
TEST(RmsNormGrad, MatchesComplexStep) { TestRmsNormGrad<float>(); }
TEST(RmsNormGrad, MatchesComplexStepFromBf16) { TestRmsNormGrad<Bf16>(); }

template <class T>
void TestRope(bool half, int64_t rotary, int64_t step) {
  constexpr int64_t kHeads = 3, kD = 40, kPositions = 50;
  Matrix<float> cos(kPositions, kD / 2, 5), sin = cos;
  for (int64_t p = 0; p < kPositions; ++p) {
    for (int64_t i = 0; i < kD / 2; ++i) {
      const double angle = static_cast<double>(p) * std::pow(10000.0, -2.0 * static_cast<double>(i) / kD);
      Assign(cos.at(p, i), std::cos(angle));
      Assign(sin.at(p, i), std::sin(angle));
    }
  }
  for (int isa = 0; isa <= static_cast<int>(BestIsa()); ++isa) {
    const int64_t N = 150;
    std::vector<int32_t> position;
    for (int64_t n = 0; n < N; ++n) position.push_back(static_cast<int32_t>(n * 7 % kPositions));
    const auto x = Matrix<T>::Random(N, (kHeads - 1) * step + kD, 1);
    for (const int direction : {1, -1}) {
      const auto y = OnThreads(Context{static_cast<Isa>(isa), 1}, [&](const Context& on) {
        Matrix<T> out = x;
        Rope(on, out.ptr(), out.ld, position.data(), cos.ptr(), sin.ptr(), cos.ld, N, kHeads, step, kD,
             rotary, half, direction);
        return out;
      });
      ExpectNear(y, Tolerance<T>(1e-6), sizeof(T) == 2 ? 1e-4 : 1.0, [&](int64_t n, int64_t c) {
        const int64_t head = c / step * step, i = c % step, pairs = rotary / 2;
        if (i >= rotary) return x(n, c);
        const int64_t pair = half ? i % pairs : i / 2;
        const bool second = half ? i >= pairs : i % 2 == 1;
        const int64_t a = head + (half ? pair : 2 * pair), b = half ? a + pairs : a + 1;
        const int64_t p = position[static_cast<size_t>(n)];
        const Complex turned = Complex(x(n, a), x(n, b)) * Complex(cos(p, pair), direction * sin(p, pair));
        return second ? turned.imag() : turned.real();
      });
    }
  }
}
TEST(Rope, TurnsPairsAsComplexProductsDo) {
  for (const int64_t rotary : {40, 34, 12}) {
    for (const bool half : {true, false}) {
      for (const int64_t step : {40, 3 * 40 + 1}) {
        TestRope<float>(half, rotary, step);
        TestRope<Bf16>(half, rotary, step);
      }
    }
  }
}

template <class F>
F Act(Activation activation, F x) {
  const double k = std::sqrt(2.0 / M_PI);
  switch (activation) {
    case Activation::kSilu:
      return x / (1.0 + std::exp(-x));
    case Activation::kGeluTanh:
      return 0.5 * x * (1.0 + std::tanh(k * (x + 0.044715 * x * x * x)));
    case Activation::kGelu:
      if constexpr (std::is_same_v<F, double>) return 0.5 * x * std::erfc(-x / std::sqrt(2.0));
      break;
    case Activation::kRelu:
      return std::real(x) > 0.0 ? x : F(0.0);
  }
  return F(NAN);
}
double ActSlope(Activation activation, double x) {
  if (activation != Activation::kGelu) return Act(activation, Complex(x, kStep)).imag() / kStep;
  constexpr double kMove = 1e-6;  // there is no complex erf
  return (Act(activation, x + kMove) - Act(activation, x - kMove)) / (2.0 * kMove);
}
constexpr Activation kActivations[] = {Activation::kSilu, Activation::kGelu, Activation::kGeluTanh,
                                       Activation::kRelu};

template <class T>
void TestActivate() {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    const auto gate = Matrix<T>::Random(N, C, 1, -9.0, 9.0), up = Matrix<T>::Random(N, C, 2, -2.0, 2.0, 1);
    for (const Activation activation : kActivations) {
      for (const bool gated : {false, true}) {
        const auto y = OnThreads(context, [&](const Context& on) {
          Matrix<T> out = gate;
          Activate(on, activation, out.ptr(), out.ld, gated ? up.ptr() : nullptr, up.ld, N, C, out.ptr(),
                   out.ld);
          return out;
        });
        ExpectNear(y, Tolerance<T>(2e-6), 1e-6, [&](int64_t n, int64_t c) {
          return Act(activation, gate(n, c)) * (gated ? up(n, c) : 1.0);
        });
      }
    }
  });
}
TEST(Activate, MatchesTextbook) { TestActivate<float>(); }
TEST(Activate, MatchesTextbookInBf16) { TestActivate<Bf16>(); }

TEST(Activate, IsAccurateFarOut) {
  for (int isa = 0; isa <= static_cast<int>(BestIsa()); ++isa) {
    const Context context{static_cast<Isa>(isa), 1};
    std::vector<float> x, y(6001);
    for (int i = -3000; i <= 3000; ++i) x.push_back(static_cast<float>(i) * 0.0285f);  // to -85.5 and 85.5
    Activate<float>(context, Activation::kSilu, x.data(), 0, nullptr, 0, 1, 6001, y.data(), 0);
    for (size_t i = 0; i < x.size(); ++i) {
      const double want = Act(Activation::kSilu, static_cast<double>(x[i]));
      EXPECT_NEAR(static_cast<double>(y[i]), want, 6e-7 * std::fabs(want)) << x[i];
    }
    const float far[] = {-1e4f, -200.0f, -88.0f, 88.0f, 200.0f, 1e4f};
    for (const Activation activation : kActivations) {
      Activate<float>(context, activation, far, 0, nullptr, 0, 1, 6, y.data(), 0);
      for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(y[i], far[i] > 0.0f ? far[i] : 0.0f, 1e-30f) << far[i];
      float dx[6], one[] = {1, 1, 1, 1, 1, 1};
      ActivateGrad<float>(context, activation, one, 0, far, 0, nullptr, 0, 1, 6, dx, 0, nullptr, 0);
      for (size_t i = 0; i < 6; ++i) EXPECT_NEAR(dx[i], far[i] > 0.0f ? 1.0f : 0.0f, 1e-25f) << far[i];
      const float nan[] = {NAN};
      Activate<float>(context, activation, nan, 0, nullptr, 0, 1, 1, y.data(), 0);
      EXPECT_TRUE(std::isnan(y[0])) << "a NaN must not be hidden";
    }
  }
}

template <class T>
void TestActivateGrad() {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    const auto gate = Matrix<T>::Random(N, C, 1, -9.0, 9.0), up = Matrix<T>::Random(N, C, 2, -2.0, 2.0, 1);
    const auto dy = Matrix<float>::Random(N, C, 3, -1.0, 1.0, 4);
    for (const Activation activation : kActivations) {
      const double tolerance = activation == Activation::kGelu ? 4e-6 : 2e-6;
      Matrix<float> dup(N, C, 1);
      const auto dgate = OnThreads(context, [&](const Context& on) {
        Matrix<float> out(N, C);
        ActivateGrad(on, activation, dy.ptr(), dy.ld, gate.ptr(), gate.ld, up.ptr(), up.ld, N, C, out.ptr(),
                     out.ld, dup.ptr(), dup.ld);
        return out;
      });
      if constexpr (sizeof(T) == sizeof(float)) {
        Matrix<T> in_gate = gate, in_up = up;
        ActivateGrad(context, activation, dy.ptr(), dy.ld, in_gate.ptr(), gate.ld, in_up.ptr(), up.ld, N, C,
                     in_gate.ptr(), gate.ld, in_up.ptr(), up.ld);
        EXPECT_TRUE(in_gate.SameBits(dgate) && in_up.SameBits(dup));
      }
      Matrix<float> in_dy = dy, dup_too(N, C, 1);
      ActivateGrad(context, activation, in_dy.ptr(), dy.ld, gate.ptr(), gate.ld, up.ptr(), up.ld, N, C,
                   in_dy.ptr(), dy.ld, dup_too.ptr(), dup_too.ld);
      ExpectNear(in_dy, 0.0, 0.0, [&](int64_t n, int64_t c) { return dgate(n, c); });
      EXPECT_TRUE(dup_too.SameBits(dup));
      const auto dup_in_dy = OnThreads(context, [&](const Context& on) {
        Matrix<float> out = dy, dgate_too(N, C);
        ActivateGrad(on, activation, out.ptr(), dy.ld, gate.ptr(), gate.ld, up.ptr(), up.ld, N, C,
                     dgate_too.ptr(), dgate_too.ld, out.ptr(), out.ld);
        EXPECT_TRUE(dgate_too.SameBits(dgate));
        return out;
      });
      ExpectNear(dup_in_dy, 0.0, 0.0, [&](int64_t n, int64_t c) { return dup(n, c); });
      ExpectNear(dgate, tolerance, 0.1, [&](int64_t n, int64_t c) {
        return dy(n, c) * up(n, c) * ActSlope(activation, gate(n, c));
      });
      ExpectNear(dup, 2e-6, 1e-6,
                 [&](int64_t n, int64_t c) { return dy(n, c) * Act(activation, gate(n, c)); });

      Matrix<float> alone(N, C);
      ActivateGrad<T>(context, activation, dy.ptr(), dy.ld, gate.ptr(), gate.ld, nullptr, 0, N, C,
                      alone.ptr(), alone.ld, nullptr, 0);
      ExpectNear(alone, tolerance, 0.1,
                 [&](int64_t n, int64_t c) { return dy(n, c) * ActSlope(activation, gate(n, c)); });
    }
  });
}
TEST(ActivateGrad, MatchesDerivative) { TestActivateGrad<float>(); }
TEST(ActivateGrad, MatchesDerivativeFromBf16) { TestActivateGrad<Bf16>(); }

}  // namespace
}  // namespace rung::cpu
