// Row kernels without a nonlinearity: conversion, moments, gathering, mixing, sums, AdamW.
#include <algorithm>
#include <bit>
#include <numeric>

#include "kernels/cpu/rows.h"
#include "kernels/cpu/rows_testing.h"

namespace rung::cpu {
namespace {

template <class TIn, class TOut>
void TestConvert() {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    const auto x = Matrix<TIn>::Random(N, C, 1);
    const auto y = OnThreads(context, [&](const Context& on) {
      Matrix<TOut> out(N, C, 6);
      Convert(on, x.ptr(), x.ld, N, C, out.ptr(), out.ld);
      return out;
    });
    ExpectNear(y, 0.0, 0.0, [&](int64_t n, int64_t c) {
      const float value = static_cast<float>(x(n, c));
      return static_cast<double>(sizeof(TOut) == 2 ? ToFloat(ToBf16(value)) : value);
    });
  });
}
TEST(Convert, RoundsOnceOrNotAtAll) {
  TestConvert<float, float>();
  TestConvert<float, Bf16>();
  TestConvert<Bf16, float>();
  TestConvert<Bf16, Bf16>();
}

TEST(Convert, RoundsEveryKindOfNumberAsToBf16) {
  std::vector<float> x;
  for (uint32_t high = 0; high < 0x10000u; ++high) {
    for (const uint32_t low : {0u, 1u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) {
      x.push_back(std::bit_cast<float>(high << 16 | low));
    }
  }
  x.resize(x.size() - 3);  // a last vector that is not full
  const auto n = static_cast<int64_t>(x.size());
  std::vector<Bf16> y(x.size());
  for (int isa = 0; isa <= static_cast<int>(BestIsa()); ++isa) {
    Convert(Context{static_cast<Isa>(isa), 1}, x.data(), n, 1, n, y.data(), n);
    int bad = 0;
    for (size_t i = 0; i < x.size() && bad < 5; ++i) {
      Bf16 want = ToBf16(x[i]);
      if (static_cast<Isa>(isa) == Isa::kAvx512Bf16 && std::fpclassify(x[i]) == FP_SUBNORMAL)
        want.bits &= 0x8000u;
      EXPECT_EQ(y[i].bits, want.bits)
          << x[i] << " isa " << isa << " " << (y[i].bits != want.bits ? ++bad : 0);
    }
  }
}

template <class T>
void TestStandardize() {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    const auto x = Matrix<T>::Random(N, C, 1);
    const auto mean = Matrix<float>::Random(1, C, 2), inverse = Matrix<float>::Random(1, C, 3, 0.5, 2.0);
    std::vector<double> mean_square;
    for (int64_t n = 0; n < N; ++n) {
      double sum = 0.0;
      for (int64_t c = 0; c < C; ++c) sum += x(n, c) * x(n, c);
      mean_square.push_back(sum / static_cast<double>(C));
    }
    const auto value = [&](bool normalize, int64_t n, int64_t c) {
      return normalize ? x(n, c) / std::sqrt(mean_square[static_cast<size_t>(n)] + 0x1p-10) : x(n, c);
    };
    for (const bool normalize : {false, true}) {
      const auto y = OnThreads(context, [&](const Context& on) {
        Matrix<float> out(N, C, 2);
        Standardize(on, x.ptr(), x.ld, normalize, 0x1p-10f, mean.ptr(), inverse.ptr(), N, C, out.ptr(),
                    out.ld);
        return out;
      });
      ExpectNear(y, 1e-6, 4.0,
                 [&](int64_t n, int64_t c) { return (value(normalize, n, c) - mean(0, c)) * inverse(0, c); });
      if constexpr (sizeof(T) == sizeof(float)) {
        const auto in_place = OnThreads(context, [&](const Context& on) {
          Matrix<float> out = x;
          Standardize(on, out.ptr(), x.ld, normalize, 0x1p-10f, mean.ptr(), inverse.ptr(), N, C, out.ptr(),
                      x.ld);
          return out;
        });
        ExpectNear(in_place, 0.0, 0.0, [&](int64_t n, int64_t c) { return y(n, c); });
      }
      Matrix<float> plain(N, C);
      Standardize<T>(context, x.ptr(), x.ld, normalize, 0x1p-10f, nullptr, nullptr, N, C, plain.ptr(),
                     plain.ld);
      ExpectNear(plain, 1e-6, 0.0, [&](int64_t n, int64_t c) { return value(normalize, n, c); });

      std::vector<double> sum(static_cast<size_t>(C), 5.0), squares(static_cast<size_t>(C), 7.0);
      const auto rms = OnThreads(context, [&](const Context& on) {
        Matrix<float> out(1, N);
        std::vector<double> s(static_cast<size_t>(C), 5.0), q(static_cast<size_t>(C), 7.0);
        Moments(on, x.ptr(), x.ld, normalize, 0x1p-10f, N, C, s.data(), q.data(), out.ptr());
        if (on.threads == 1) sum = s, squares = q;
        EXPECT_EQ(s, sum);
        EXPECT_EQ(q, squares);
        return out;
      });
      ExpectNear(rms, 1e-6, 0.0,
                 [&](int64_t, int64_t n) { return std::sqrt(mean_square[static_cast<size_t>(n)]); });
      for (int64_t c = 0; c < C; ++c) {
        double s = 5.0, q = 7.0, size = 0.0;
        for (int64_t n = 0; n < N; ++n) {
          const double v = value(normalize, n, c);
          s += v, q += v * v, size += std::fabs(v);
        }
        EXPECT_NEAR(sum[static_cast<size_t>(c)], s, 3e-7 * size);
        EXPECT_NEAR(squares[static_cast<size_t>(c)], q, 1e-6 * q);
      }
    }
  });
}
TEST(Standardize, AndMomentsMatchTextbook) { TestStandardize<float>(); }
TEST(Standardize, AndMomentsMatchTextbookFromBf16) { TestStandardize<Bf16>(); }

TEST(GatherRows, AndScatterRowsMoveTheNamedRows) {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    const auto x = Matrix<float>::Random(N, C, 1);
    std::vector<int32_t> index(static_cast<size_t>(N));
    std::iota(index.begin(), index.end(), 0);
    std::shuffle(index.begin(), index.end(), std::minstd_rand(3));
    const int64_t M = N - 3;
    const auto y = OnThreads(context, [&](const Context& on) {
      Matrix<float> out(M, C, 1);
      GatherRows(on, x.ptr(), x.ld, index.data(), M, C, out.ptr(), out.ld);
      return out;
    });
    const auto row = [&](int64_t m) { return static_cast<int64_t>(index[static_cast<size_t>(m)]); };
    ExpectNear(y, 0.0, 0.0, [&](int64_t m, int64_t c) { return x(row(m), c); });

    std::vector<int64_t> from(static_cast<size_t>(N), -1);
    for (int64_t m = 0; m < M; ++m) from[static_cast<size_t>(row(m))] = m;
    const auto z0 = Matrix<float>::Random(N, C, 4);
    const auto z = OnThreads(context, [&](const Context& on) {
      Matrix<float> out = z0;
      ScatterRows(on, y.ptr(), y.ld, index.data(), M, C, out.ptr(), out.ld);
      return out;
    });
    ExpectNear(z, 0.0, 0.0, [&](int64_t n, int64_t c) {
      const int64_t m = from[static_cast<size_t>(n)];
      return m < 0 ? z0(n, c) : y(m, c);
    });
  });
}

TEST(Axpby, MatchesTextbook) {
  ForEachSize([](const Context& context, int64_t rows, int64_t columns) {
    for (const bool flat : {false, true}) {  // one long row is cut by columns
      const int64_t N = flat ? 1 : rows, C = flat ? rows * columns : columns;
      const auto x = Matrix<float>::Random(N, C, 1), y0 = Matrix<float>::Random(N, C, 2, -1.0, 1.0, 9);
      const auto y = OnThreads(context, [&](const Context& on) {
        Matrix<float> out = y0;
        Axpby(on, 1.5f, x.ptr(), x.ld, -0.75f, out.ptr(), out.ld, N, C);
        return out;
      });
      ExpectNear(y, 2e-7, 1.0, [&](int64_t n, int64_t c) { return 1.5 * x(n, c) - 0.75 * y0(n, c); });
      Matrix<float> fresh(N, C);  // all NaN
      Axpby(context, 2.0f, x.ptr(), x.ld, 0.0f, fresh.ptr(), fresh.ld, N, C);
      ExpectNear(fresh, 0.0, 0.0, [&](int64_t n, int64_t c) { return 2.0 * x(n, c); });
    }
  });
}

TEST(Cap, MatchesTextbook) {
  ForEachSize([](const Context& context, int64_t rows, int64_t columns) {
    for (const bool flat : {false, true}) {  // logits of one token are cut by columns
      const int64_t N = flat ? 1 : rows, C = flat ? rows * columns : columns;
      const auto x0 = Matrix<float>::Random(N, C, 1, -90.0, 90.0);
      const auto x = OnThreads(context, [&](const Context& on) {
        Matrix<float> out = x0;
        Cap(on, 30.0f, out.ptr(), out.ld, N, C);
        return out;
      });
      ExpectNear(x, 6e-7, 0.0, [&](int64_t n, int64_t c) { return 30.0 * std::tanh(x0(n, c) / 30.0); });
    }
  });
}

TEST(MixGrad, MatchesCentralDifferences) {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    const auto a = Matrix<float>::Random(N, C, 1, -2, 2, 0), b = Matrix<float>::Random(N, C, 2, -2, 2, 0);
    const auto dout = Matrix<float>::Random(N, C, 3, -1, 1, 0);
    for (const bool per_channel : {false, true}) {
      const auto mu = Matrix<float>::Random(1, per_channel ? C : 1, 4, 0.1, 0.9);
      const auto mix = [&](int64_t n, int64_t c, double move) {
        const double m = mu(0, per_channel ? c : 0) + move;
        return m * a(n, c) + (1.0 - m) * b(n, c);
      };
      const auto out = OnThreads(context, [&](const Context& on) {
        Matrix<float> y(N, C, 0);
        Mix(on, mu.ptr(), per_channel, a.ptr(), b.ptr(), N, C, y.ptr());
        return y;
      });
      ExpectNear(out, 3e-7, 1.0, [&](int64_t n, int64_t c) { return mix(n, c, 0.0); });
      EXPECT_TRUE(out.SameBits(OnThreads(context, [&](const Context& on) {
        Matrix<float> y = a;
        Mix(on, mu.ptr(), per_channel, y.ptr(), b.ptr(), N, C, y.ptr());
        return y;
      })));

      const auto dmu0 = Matrix<float>::Random(1, mu.C, 5);
      Matrix<float> da = dout, db = b;
      const auto dmu = OnThreads(context, [&](const Context& on) {
        Matrix<float> sum = dmu0;
        da = dout, db = b;
        MixGrad(on, mu.ptr(), per_channel, da.ptr(), a.ptr(), db.ptr(), N, C, da.ptr(), db.ptr(), sum.ptr());
        return sum;
      });
      ExpectNear(da, 1e-7, 0.0,
                 [&](int64_t n, int64_t c) { return mu(0, per_channel ? c : 0) * dout(n, c); });
      ExpectNear(db, 2e-7, 0.0,
                 [&](int64_t n, int64_t c) { return (1.0 - mu(0, per_channel ? c : 0)) * dout(n, c); });
      // out is linear in mu: a step of 1e-6 has no error but rounding (1e-10).
      ExpectNear(dmu, 1e-6, 30.0, [&](int64_t, int64_t channel) {
        double sum = dmu0(0, channel);
        for (int64_t n = 0; n < N; ++n) {
          for (int64_t c = per_channel ? channel : 0; c < (per_channel ? channel + 1 : C); ++c) {
            sum += dout(n, c) * (mix(n, c, 1e-6) - mix(n, c, -1e-6)) / 2e-6;
          }
        }
        return sum;
      });
    }
  });
}

TEST(SumRows, AndAddBiasMatchTextbook) {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    const auto dy = Matrix<float>::Random(N, C, 1, 0.0, 1.0), bias0 = Matrix<float>::Random(1, C, 2);
    const auto bias = OnThreads(context, [&](const Context& on) {
      Matrix<float> out = bias0;
      SumRows(on, dy.ptr(), dy.ld, N, C, out.ptr());
      return out;
    });
    // 16391 positive terms at C = 1: one running f32 sum would be off by about 1e-5.
    ExpectNear(bias, 2e-6, 1.0, [&](int64_t, int64_t c) {
      double sum = bias0(0, c);
      for (int64_t n = 0; n < N; ++n) sum += dy(n, c);
      return sum;
    });
    const auto y = OnThreads(context, [&](const Context& on) {
      Matrix<float> out = dy;
      AddBias(on, bias0.ptr(), N, C, out.ptr(), out.ld);
      return out;
    });
    ExpectNear(y, 1e-7, 1.0, [&](int64_t n, int64_t c) { return dy(n, c) + bias0(0, c); });
  });
}

TEST(SumSquares, IsAnF64Sum) {
  for (int isa = 0; isa <= static_cast<int>(BestIsa()); ++isa) {
    for (const int64_t n : {int64_t{0}, int64_t{1}, int64_t{15}, int64_t{300}, int64_t{100003}}) {
      auto x = Matrix<float>::Random(1, n, 1, -2.0, 2.0, 1);
      if (n > 0) *x.at(0, n / 2) = 1e25f;  // its square is no f32
      double sum = 0.0;
      for (int64_t i = 0; i < n; ++i) sum += x(0, i) * x(0, i);
      const Context one{static_cast<Isa>(isa), 1};
      EXPECT_NEAR(SumSquares(one, x.ptr(), n), sum, 1e-13 * sum);
      if (n > 0) *x.at(0, n / 2) = 1.0f;
      const double small = SumSquares(one, x.ptr(), n);
      for (const int threads : {2, 3}) EXPECT_EQ(SumSquares(Context{one.isa, threads}, x.ptr(), n), small);
    }
  }
}

TEST(AddSquares, AddsEachToItsOwn) {
  for (int isa = 0; isa <= static_cast<int>(BestIsa()); ++isa) {
    for (const int64_t n : {int64_t{1}, int64_t{17}, int64_t{20011}}) {
      const auto x = Matrix<float>::Random(1, n, 1), y0 = Matrix<float>::Random(1, n, 2, 0.0, 2.0);
      const auto y = OnThreads(Context{static_cast<Isa>(isa), 1}, [&](const Context& on) {
        Matrix<float> out = y0;
        AddSquares(on, x.ptr(), n, out.ptr());
        return out;
      });
      ExpectNear(y, 2e-7, 0.0, [&](int64_t, int64_t i) { return y0(0, i) + x(0, i) * x(0, i); });
    }
  }
}

TEST(AdamWUpdate, MatchesTextbookOverSteps) {
  constexpr double kRate = 0.01, kDecay = 0.1, kScale = 0.5, kEpsilon = 1e-8;
  const auto beta1 = static_cast<double>(0.9f), beta2 = static_cast<double>(0.999f);
  for (int isa = 0; isa <= static_cast<int>(BestIsa()); ++isa) {
    for (const int64_t n : {int64_t{1}, int64_t{17}, int64_t{20011}}) {
      const auto w0 = Matrix<float>::Random(1, n, 1);
      std::vector<double> m(static_cast<size_t>(n)), v = m, w = m;
      for (int64_t i = 0; i < n; ++i) w[static_cast<size_t>(i)] = w0(0, i);
      for (int t = 1; t <= 5; ++t) {
        const auto g = Matrix<float>::Random(1, n, static_cast<uint32_t>(t));
        for (size_t i = 0; i < m.size(); ++i) {
          const double gradient = kScale * g(0, static_cast<int64_t>(i));
          m[i] = beta1 * m[i] + (1 - beta1) * gradient;
          v[i] = beta2 * v[i] + (1 - beta2) * gradient * gradient;
          const double m_hat = m[i] / (1 - std::pow(beta1, t)), v_hat = v[i] / (1 - std::pow(beta2, t));
          w[i] -= kRate * (m_hat / (std::sqrt(v_hat) + kEpsilon) + kDecay * w[i]);
        }
      }
      const auto got = OnThreads(Context{static_cast<Isa>(isa), 1}, [&](const Context& on) {
        Matrix<float> weight = w0;
        std::vector<float> m32(static_cast<size_t>(n)), v32 = m32;
        for (int t = 1; t <= 5; ++t) {
          const auto g = Matrix<float>::Random(1, n, static_cast<uint32_t>(t));
          const AdamW step{static_cast<float>(kRate),
                           0.9f,
                           0.999f,
                           static_cast<float>(kEpsilon),
                           static_cast<float>(kDecay),
                           static_cast<float>(1 - std::pow(beta1, t)),
                           static_cast<float>(1 - std::pow(beta2, t)),
                           static_cast<float>(kScale)};
          AdamWUpdate(on, step, g.ptr(), n, weight.ptr(), m32.data(), v32.data());
        }
        for (size_t i = 0; i < m.size(); ++i) {
          EXPECT_NEAR(m32[i], m[i], 1e-6);
          EXPECT_NEAR(v32[i], v[i], 1e-8);
        }
        return weight;
      });
      ExpectNear(got, 1e-6, 1.0, [&](int64_t, int64_t i) { return w[static_cast<size_t>(i)]; });
    }
  }
}

}  // namespace
}  // namespace rung::cpu
