#include "ops/rows.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "ops/attention.h"
#include "ops/update.h"

namespace rung::ops {
namespace {

// Tensors in memory of their own, filled from a normal distribution, and an Exec to run ops on them.
class Fixture : public testing::Test {
 protected:
  Tensor Make(DType dtype, int64_t rows, int64_t cols) {
    return exec_.arena().Keep(dtype, rows, cols, Use::kBackbone, "test");
  }
  Tensor Random(DType dtype, int64_t rows, int64_t cols) {
    const Tensor t = Make(dtype, rows, cols);
    std::normal_distribution<float> normal;
    for (int64_t i = 0; i < t.size(); ++i) {
      if (dtype == DType::kBf16) {
        Out{t}.as<Bf16>()[i] = ToBf16(normal(random_));
      } else {
        Out{t}.as<float>()[i] = normal(random_);
      }
    }
    return t;
  }
  static double At(const Tensor& t, int64_t n, int64_t c) {
    const int64_t i = n * t.stride + c;
    switch (t.dtype) {
      case DType::kF32:
        return static_cast<double>(In(t).as<float>()[i]);
      case DType::kBf16:
        return static_cast<double>(ToFloat(In(t).as<Bf16>()[i]));
      case DType::kI8:
        return In(t).as<int8_t>()[i];
      case DType::kI32:
        return In(t).as<int32_t>()[i];
    }
    return NAN;
  }
  Tensor Copy(const Tensor& x) {
    const Tensor y = Make(x.dtype, x.rows(), x.cols());
    Convert(exec_, x, Out{y});
    return y;
  }
  // The same values in f32.
  Tensor Widened(const Tensor& x) {
    const Tensor y = Make(DType::kF32, x.rows(), x.cols());
    Convert(exec_, x, Out{y});
    return y;
  }
  static void ExpectSame(const Tensor& a, const Tensor& b, double tolerance = 0.0) {
    for (int64_t n = 0; n < a.rows(); ++n) {
      for (int64_t c = 0; c < a.cols(); ++c)
        ASSERT_NEAR(At(a, n, c), At(b, n, c), tolerance) << n << "," << c;
    }
  }

  Slab slab_{8 << 20};
  Exec exec_{Arena(slab_.base(), slab_.bytes()), cpu::Context{cpu::BestIsa(), 2}, DType::kF32};
  std::mt19937 random_{1};
};
using Rows = Fixture;

constexpr int64_t kN = 37, kC = 53;

TEST_F(Rows, GateAndMixHaveTheGradientOfTheirDefinition) {
  constexpr float kTemperature = 0.7f;
  constexpr auto kT = static_cast<double>(kTemperature);
  const Tensor a = Random(DType::kF32, kN, kC), b = Random(DType::kF32, kN, kC);
  const Tensor dout = Random(DType::kF32, kN, kC);
  for (const int64_t width : {int64_t{1}, kC}) {
    const Tensor alpha = Random(DType::kF32, 1, width), mu = Make(DType::kF32, 1, width);
    const Tensor out = Make(DType::kF32, kN, kC), da = Copy(out), db = Copy(out);
    const Tensor dmu = Make(DType::kF32, 1, width), dalpha = Random(DType::kF32, 1, width);
    const Tensor before = Copy(dalpha);
    SigmoidGate(exec_, alpha, kTemperature, Out{mu});
    Mix(exec_, mu, a, b, Out{out});
    Zero(exec_, Out{dmu});
    MixGrad(exec_, mu, dout, a, b, Out{da}, Out{db}, Acc{dmu});
    SigmoidGateGrad(exec_, dmu, mu, kTemperature, Acc{dalpha});

    const auto mixed = [&](int64_t n, int64_t c, double move) {
      const double m = 1 / (1 + std::exp(-(At(alpha, 0, width == 1 ? 0 : c) + move) / kT));
      return m * At(a, n, c) + (1 - m) * At(b, n, c);
    };
    for (int64_t i = 0; i < width; ++i) {
      double want = At(before, 0, i), size = 0;
      for (int64_t n = 0; n < kN; ++n) {
        for (int64_t c = width == 1 ? 0 : i; c < (width == 1 ? kC : i + 1); ++c) {
          constexpr double kMove = 1e-5;  // error about 1e-10 in the difference, and none in its order
          const double slope = (mixed(n, c, kMove) - mixed(n, c, -kMove)) / (2 * kMove);
          want += At(dout, n, c) * slope;
          size += std::fabs(At(dout, n, c) * slope);
        }
      }
      EXPECT_NEAR(At(dalpha, 0, i), want, 1e-6 * (1 + size));
    }
    for (int64_t n = 0; n < kN; ++n) {
      for (int64_t c = 0; c < kC; ++c) {
        const double m = At(mu, 0, width == 1 ? 0 : c);
        ASSERT_NEAR(At(out, n, c), mixed(n, c, 0), 1e-6);
        ASSERT_NEAR(At(da, n, c), m * At(dout, n, c), 1e-6);
        ASSERT_NEAR(At(db, n, c), (1 - m) * At(dout, n, c), 1e-6);
      }
    }
  }
}

TEST_F(Rows, MixRefusesAnotherWidthOfMu) {
  const Tensor a = Random(DType::kF32, kN, kC), mu = Random(DType::kF32, 1, kC - 1);
  EXPECT_DEATH(Mix(exec_, mu, a, a, Out{a}), "mu must be");
  EXPECT_DEATH(MixGrad(exec_, mu, a, a, a, Out{a}, Out{a}, Acc{mu}), "mu, dmu must be");
}

// The values of a bf16 tensor are f32 values: the gradients must be those of the widened tensor, bit by bit.
TEST_F(Rows, GradientsFromBf16AreThoseOfTheSameValues) {
  const Tensor gate = Random(DType::kBf16, kN, kC), up = Random(DType::kBf16, kN, kC);
  const Tensor dy = Random(DType::kF32, kN, kC);
  const In up_in(up), up_wide(Widened(up));
  const Tensor dgate = Make(DType::kF32, kN, kC), dup = Copy(dgate), dgate_wide = Copy(dgate),
               dup_wide = Copy(dgate);
  const Out dup_out{dup}, dup_wide_out{dup_wide};
  ActivateGrad(exec_, cpu::Activation::kSilu, dy, gate, &up_in, Out{dgate}, &dup_out);
  ActivateGrad(exec_, cpu::Activation::kSilu, dy, Widened(gate), &up_wide, Out{dgate_wide}, &dup_wide_out);
  ExpectSame(dgate, dgate_wide);
  ExpectSame(dup, dup_wide);
  ActivateGrad(exec_, cpu::Activation::kSilu, dy, gate, nullptr, Out{dgate}, nullptr);
  ActivateGrad(exec_, cpu::Activation::kSilu, dy, Widened(gate), nullptr, Out{dgate_wide}, nullptr);
  ExpectSame(dgate, dgate_wide);

  const Tensor gain = Random(DType::kF32, 1, kC), rstd = Make(DType::kF32, 1, kN), y = Copy(gate);
  const Out rstd_out{rstd};
  RmsNorm(exec_, gate, gain, 0.0f, 1e-5f, Out{y}, &rstd_out);
  const Tensor dx = Make(DType::kF32, kN, kC), dx_wide = Copy(dx), dgain = Random(DType::kF32, 1, kC),
               dgain_wide = Copy(dgain);
  const Acc dgain_acc{dgain}, dgain_wide_acc{dgain_wide};
  RmsNormGrad(exec_, dy, gate, gain, 0.0f, rstd, Out{dx}, &dgain_acc);
  RmsNormGrad(exec_, dy, Widened(gate), gain, 0.0f, rstd, Out{dx_wide}, &dgain_wide_acc);
  ExpectSame(dx, dx_wide);
  ExpectSame(dgain, dgain_wide);
}

TEST_F(Rows, BiasAndItsGradient) {
  const Tensor bias = Random(DType::kF32, 1, kC), y0 = Random(DType::kF32, kN, kC), y = Copy(y0);
  const Tensor sums0 = Random(DType::kF32, 1, kC), sums = Copy(sums0);
  AddBias(exec_, bias, Acc{y});
  SumRows(exec_, y0, Acc{sums});
  for (int64_t c = 0; c < kC; ++c) {
    double sum = At(sums0, 0, c);
    for (int64_t n = 0; n < kN; ++n) {
      ASSERT_NEAR(At(y, n, c), At(y0, n, c) + At(bias, 0, c), 1e-6);
      sum += At(y0, n, c);
    }
    EXPECT_NEAR(At(sums, 0, c), sum, 1e-5);
  }
}

TEST_F(Rows, QuantizedRowsComeBackWithinHalfAStep) {
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    const Tensor x = Random(dtype, kN, kC), y = Make(dtype, kN, kC), wide = Make(DType::kF32, kN, kC);
    const Tensor q = Make(DType::kI8, kN, kC), scale = Make(DType::kF32, 1, kN);
    QuantizeRows(exec_, x, Out{q}, Out{scale});
    DequantizeRows(exec_, q, scale, Out{y});
    DequantizeRows(exec_, q, scale, Out{wide});
    for (int64_t n = 0; n < kN; ++n) {
      const double step = At(scale, 0, n);
      EXPECT_GT(step, 0.0);
      for (int64_t c = 0; c < kC; ++c) {
        ASSERT_NEAR(At(wide, n, c), At(x, n, c), 0.50001 * step);
        ASSERT_NEAR(At(y, n, c), At(wide, n, c), dtype == DType::kBf16 ? 0x1p-8 * 127 * step : 0.0);
      }
    }
  }
}

TEST_F(Rows, PooledColumnsAreSumsOverRootOfTheirNumber) {
  // 53 columns by 20: windows of 3 and 4 columns that overlap.
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    const Tensor x = Random(dtype, kN, kC), y = Make(DType::kF32, kN, 20);
    PoolColumns(exec_, x, Out{y});
    for (int64_t n = 0; n < kN; ++n) {
      for (int64_t s = 0; s < 20; ++s) {
        double sum = 0, count = 0;
        for (int64_t c = s * kC / 20; c * 20 < (s + 1) * kC; ++c, ++count) sum += At(x, n, c);
        ASSERT_NEAR(At(y, n, s), sum / std::sqrt(count), 2e-6);
      }
    }
  }
  const Tensor x = Random(DType::kF32, kN, kC), wide = Make(DType::kF32, kN, kC + 1);
  EXPECT_DEATH(PoolColumns(exec_, x, Out{wide}), "S at most C");
}

TEST_F(Rows, DropAndItsGradientShareAMask) {
  const Dropout dropout{0.4f, 11, 5, 2};
  for (const DType dtype : {DType::kF32, DType::kBf16}) {
    const Tensor x = Random(dtype, kN, kC), y = Copy(x);
    const Tensor dx = Make(DType::kF32, kN, kC), dy = Random(DType::kF32, kN, kC);
    Zero(exec_, Out{dx});
    Drop(exec_, dropout, x, Out{y});
    DropGrad(exec_, dropout, dy, Acc{dx});
    for (int64_t n = 0; n < kN; ++n) {
      for (int64_t c = 0; c < kC; ++c) {
        const double keep = At(y, n, c) != 0 ? 1 / 0.6 : 0;
        ASSERT_NEAR(At(y, n, c), At(x, n, c) * keep, (dtype == DType::kBf16 ? 0x1p-8 : 2e-7) * 8);
        ASSERT_NEAR(At(dx, n, c), At(dy, n, c) * keep, 2e-6);
      }
    }
  }
  const Tensor x = Random(DType::kF32, kN, kC);
  EXPECT_DEATH(Drop(exec_, Dropout{1.0f, 0, 0, 0}, x, Out{x}), "p must be");
  EXPECT_DEATH(Drop(exec_, Dropout{0.5f, 0, 0, 0, int64_t{1} << 34}, x, Out{x}), "below 2\\^34");
}

TEST_F(Rows, ScaleKeepsToItsColumns) {
  const Tensor x0 = Random(DType::kF32, kN, kC), x = Copy(x0).Cols(3, 20);
  Scale(exec_, -0.5f, Acc{x});
  ExpectSame(x, [&] {
    const Tensor want = Copy(x0).Cols(3, 20);
    for (int64_t n = 0; n < kN; ++n) {
      for (int64_t c = 0; c < 20; ++c) Out{want}.as<float>()[n * want.stride + c] *= -0.5f;
    }
    return want;
  }());
}

TEST_F(Rows, CapKeepsToItsColumns) {
  const Tensor x0 = Random(DType::kF32, kN, kC), whole = Copy(x0);
  Cap(exec_, 0.5f, Acc{whole.Cols(3, 20)});
  for (int64_t n = 0; n < kN; ++n) {
    for (int64_t c = 0; c < kC; ++c) {
      const bool capped = c >= 3 && c < 23;
      const double want = capped ? 0.5 * std::tanh(At(x0, n, c) / 0.5) : At(x0, n, c);
      ASSERT_NEAR(At(whole, n, c), want, 6e-7) << n << "," << c;
    }
  }
  EXPECT_DEATH(Cap(exec_, 0.0f, Acc{whole}), "positive");
}

TEST_F(Rows, LayerNormHasTheGradientOfItsDefinition) {
  const Tensor x = Random(DType::kF32, 3, kC), dy = Random(DType::kF32, 3, kC);
  const Tensor gain = Random(DType::kF32, 1, kC), bias = Random(DType::kF32, 1, kC);
  const Tensor y = Make(DType::kF32, 3, kC), stats = Make(DType::kF32, 2, 3),
               dx0 = Random(DType::kF32, 3, kC);
  const Tensor dx = Make(DType::kF32, 3, kC), added = Copy(dx0);
  const Tensor dgain0 = Random(DType::kF32, 1, kC), dgain = Copy(dgain0), dbias = Copy(dgain0);
  const Out kept{stats};
  const Acc dgain_sum{dgain}, dbias_sum{dbias};
  LayerNorm(exec_, x, gain, bias, 1e-5f, Out{y}, &kept);
  LayerNormGrad(exec_, dy, x, gain, stats, Out{dx}, &dgain_sum, &dbias_sum);
  LayerNormGrad(exec_, dy, x, gain, stats, Acc{added}, nullptr, nullptr);

  // Value n,c with x[n,at] moved.
  const auto value = [&](int64_t n, int64_t c, int64_t at, double move) {
    const auto moved = [&](int64_t i) { return At(x, n, i) + (i == at ? move : 0.0); };
    double mean = 0, variance = 0;
    for (int64_t i = 0; i < kC; ++i) mean += moved(i) / kC;
    for (int64_t i = 0; i < kC; ++i) variance += std::pow(moved(i) - mean, 2) / kC;
    return (moved(c) - mean) / std::sqrt(variance + 1e-5) * At(gain, 0, c) + At(bias, 0, c);
  };
  for (int64_t c = 0; c < kC; ++c) {
    double of_gain = At(dgain0, 0, c), of_bias = At(dgain0, 0, c);
    for (int64_t n = 0; n < 3; ++n) {
      const double here = value(n, c, 0, 0.0);
      ASSERT_NEAR(At(y, n, c), here, 2e-6 * (1 + std::fabs(here)));
      of_gain += At(dy, n, c) * (here - At(bias, 0, c)) / At(gain, 0, c);
      of_bias += At(dy, n, c);
      double want = 0;
      constexpr double kMove = 1e-5;
      for (int64_t i = 0; i < kC; ++i) {
        want += At(dy, n, i) * (value(n, i, c, kMove) - value(n, i, c, -kMove)) / (2 * kMove);
      }
      ASSERT_NEAR(At(dx, n, c), want, 1e-5);
      ASSERT_NEAR(At(added, n, c), At(dx0, n, c) + At(dx, n, c), 1e-6);
    }
    ASSERT_NEAR(At(dgain, 0, c), of_gain, 1e-5);
    ASSERT_NEAR(At(dbias, 0, c), of_bias, 1e-5);
  }
  const Tensor narrow = Make(DType::kBf16, 3, kC);
  LayerNorm(exec_, x, gain, Tensor{}, 1e-5f, Out{narrow}, nullptr);
  for (int64_t c = 0; c < kC; ++c) {
    const double want = At(y, 1, c) - At(bias, 0, c);
    ASSERT_NEAR(At(narrow, 1, c), want, 0x1p-8 * std::fabs(want) + 1e-5);
  }
}

TEST_F(Rows, AddSquaresAddsEachToItsOwn) {
  const Tensor x = Random(DType::kF32, 1, kC), y0 = Random(DType::kF32, 1, kC), y = Copy(y0);
  AddSquares(exec_, x, Acc{y});
  for (int64_t c = 0; c < kC; ++c) EXPECT_NEAR(At(y, 0, c), At(y0, 0, c) + std::pow(At(x, 0, c), 2), 1e-6);
}

// Shapes alone: nothing behind these tensors is ever read.
Tensor Shape(int64_t rows, int64_t cols, int64_t gap = 0, DType dtype = DType::kF32) {
  return {nullptr, dtype, rows, cols, cols + gap};
}
Exec Plan() { return Exec::Planning({cpu::BestIsa(), 1}, DType::kF32); }

TEST(RowsDeathTest, RmsNormGradRefusesWhatDoesNotFit) {
  Exec plan = Plan();
  const Tensor x = Shape(kN, kC), gain = Shape(1, kC), rstd = Shape(1, kN), wrong = Shape(1, kC + 1);
  const Acc dgain{gain}, wrong_dgain{wrong};
  RmsNormGrad(plan, x, x, gain, 0.0f, rstd, Acc{x}, &dgain);
  EXPECT_DEATH(RmsNormGrad(plan, x, x, wrong, 0.0f, rstd, Acc{x}, &dgain), "gain must be");
  EXPECT_DEATH(RmsNormGrad(plan, x, x, gain, 0.0f, wrong, Out{x}, &dgain), "rstd must be");
  EXPECT_DEATH(RmsNormGrad(plan, x, x, gain, 0.0f, rstd, Out{x}, &wrong_dgain), "dgain must be");
}

TEST(RowsDeathTest, StandardizeRefusesAnotherWidth) {
  Exec plan = Plan();
  const Tensor x = Shape(kN, kC);
  const In right = Shape(1, kC), wrong = Shape(1, kC - 1);
  Standardize(plan, x, true, 1e-5f, &right, &right, Out{x});
  EXPECT_DEATH(Standardize(plan, x, true, 1e-5f, &wrong, &right, Out{x}), "mean and deviation must be");
  EXPECT_DEATH(Standardize(plan, x, true, 1e-5f, &right, &wrong, Out{x}), "mean and deviation must be");
}

TEST(RowsDeathTest, LayerNormRefusesWhatDoesNotFit) {
  Exec plan = Plan();
  const Tensor x = Shape(kN, kC), row = Shape(1, kC), stats = Shape(2, kN), wrong = Shape(1, kC + 1);
  const Out kept{stats}, wrong_kept{Shape(1, kN)};
  LayerNorm(plan, x, row, row, 1e-5f, Out{x}, &kept);
  LayerNorm(plan, x, row, Tensor{}, 1e-5f, Out{x}, nullptr);
  EXPECT_DEATH(LayerNorm(plan, x, wrong, row, 1e-5f, Out{x}, &kept), "gain and bias must be");
  EXPECT_DEATH(LayerNorm(plan, x, row, wrong, 1e-5f, Out{x}, &kept), "gain and bias must be");
  EXPECT_DEATH(LayerNorm(plan, x, row, row, 1e-5f, Out{x}, &wrong_kept), "stats must be");
  EXPECT_DEATH(LayerNorm(plan, x, row, row, 1e-5f, Out{Shape(kN, kC + 1)}, &kept), "y must be");
  const Acc sum{row}, wrong_sum{wrong};
  LayerNormGrad(plan, x, x, row, stats, Out{x}, &sum, &sum);
  EXPECT_DEATH(LayerNormGrad(plan, x, x, wrong, stats, Acc{x}, &sum, &sum), "gain must be");
  EXPECT_DEATH(LayerNormGrad(plan, x, x, row, row, Acc{x}, &sum, &sum), "stats must be");
  EXPECT_DEATH(LayerNormGrad(plan, x, x, row, stats, Out{x}, &wrong_sum, nullptr), "dgain and dbias must be");
  EXPECT_DEATH(LayerNormGrad(plan, x, x, row, stats, Out{x}, nullptr, &wrong_sum), "dgain and dbias must be");
}

TEST(RowsDeathTest, RopeRefusesAnotherTableOrHeads) {
  Exec plan = Plan();
  constexpr int64_t kD = 16, kPositions = 50;
  const Tensor x = Shape(kN, 3 * kD), position = Shape(1, kN, 0, DType::kI32);
  const Tensor right = Shape(kPositions, kD / 2), narrow = Shape(kPositions, kD / 2 - 1),
               apart = Shape(kPositions, kD / 2, 1), fewer = Shape(kPositions - 1, kD / 2);
  const auto run_heads = [&](int64_t heads, int64_t step, const Tensor& cos, const Tensor& sin,
                             int64_t rotary) {
    Rope(plan, Acc{x}, position, {cos, sin, rotary, true}, heads, step, kD, 1);
  };
  const auto run = [&](const Tensor& cos, const Tensor& sin, int64_t rotary) {
    run_heads(3, kD, cos, sin, rotary);
  };
  run(right, right, kD);
  run(right, right, kD / 2);
  run(apart, apart, kD);
  run(narrow, narrow, kD - 2);
  run_heads(2, 2 * kD, right, right, kD);
  EXPECT_DEATH(run(narrow, narrow, kD), "cos must be");
  EXPECT_DEATH(run(right, apart, kD), "sin must be");
  EXPECT_DEATH(run(right, fewer, kD), "sin must be");
  EXPECT_DEATH(run(right, right, kD + 2), "rotary must be");
  EXPECT_DEATH(run(right, right, 3), "rotary must be");
  EXPECT_DEATH(run_heads(4, kD, right, right, kD), "the heads must lie apart");
  EXPECT_DEATH(run_heads(3, kD + 1, right, right, kD), "the heads must lie apart");
  EXPECT_DEATH(run_heads(3, kD - 2, right, right, kD), "the heads must lie apart");
}

TEST(UpdateDeathTest, RefusesRowsApartFromEachOther) {
  Exec plan = Plan();
  constexpr int64_t kCount = 600, kBlocks = 3;
  const Tensor flat = Shape(1, kCount), rows = Shape(2, kCount / 2, 1), shorter = Shape(1, kCount - 1);
  const Tensor codes = Shape(1, kCount, 0, DType::kI8), code_rows = Shape(2, kCount / 2, 1, DType::kI8);
  const Tensor absmax = Shape(1, kBlocks), absmax_rows = Shape(kBlocks, 1, 1);
  const auto eight = [&](const Tensor& g, const Tensor& w, const Tensor& c, const Tensor& top) {
    AdamW8(plan, {}, g, Acc{w}, Acc{c}, Acc{top}, Acc{codes}, Acc{absmax});
  };
  eight(flat, flat, codes, absmax);
  EXPECT_DEATH(eight(rows, flat, codes, absmax), "must be flat");
  EXPECT_DEATH(eight(flat, rows, codes, absmax), "must be flat");
  EXPECT_DEATH(eight(flat, flat, code_rows, absmax), "must be flat");
  EXPECT_DEATH(eight(flat, flat, codes, absmax_rows), "one maximum per block");
  AdamW(plan, {}, flat, Acc{flat}, Acc{flat}, Acc{flat});
  EXPECT_DEATH(AdamW(plan, {}, flat, Acc{flat}, Acc{rows}, Acc{flat}), "must be flat");
  EXPECT_DEATH(AddSquares(plan, flat, Acc{shorter}), "must be flat");
  EXPECT_DEATH(AddSquares(plan, rows, Acc{flat}), "must be flat");
  EXPECT_DEATH(Norm(plan, rows), "x is contiguous");
}

TEST(AttentionDeathTest, GradRefusesWhatDoesNotFit) {
  Exec plan = Plan();
  const cpu::AttentionShape shape{4, 2, 16, 0.25f};
  const std::vector<cpu::AttentionSpan> whole = {{0, 20, 0, 20}, {20, 17, 20, 17}},
                                        cached = {{0, 20, 0, 30}, {20, 17, 20, 17}},
                                        apart = {{0, 20, 17, 20}, {20, 17, 20, 17}};
  struct Call {
    Tensor q = Shape(37, 64), k = Shape(37, 32), v = k, out = q, dout = q, lse = Shape(37, 4), dq = q, dk = k,
           dv = k;
  };
  const auto run = [&](const Call& c, std::span<const cpu::AttentionSpan> spans) {
    AttentionGrad(plan, shape, spans, c.q, c.k, c.v, c.out, c.dout, c.lse, Out{c.dq}, Out{c.dk}, Out{c.dv},
                  Use::kBackbone);
  };
  run({}, whole);
  EXPECT_DEATH(run({}, cached), "its own rows");
  EXPECT_DEATH(run({}, apart), "its own rows");
  const std::vector<std::pair<Tensor Call::*, const char*>> members = {
      {&Call::out, "out and dout must be"}, {&Call::dout, "out and dout must be"},
      {&Call::lse, "lse must be"},          {&Call::dq, "dq must be"},
      {&Call::dk, "dk, dv must be"},        {&Call::dv, "dk, dv must be"}};
  for (const auto& [member, message] : members) {
    Call narrow, shorter;
    --(narrow.*member).col_count;
    --(shorter.*member).row_count;
    EXPECT_DEATH(run(narrow, whole), message);
    EXPECT_DEATH(run(shorter, whole), message);
  }
}

// Gradients from bf16 against those from the same values in f32: one factor of each term is rounded by 2^-8.
TEST_F(Rows, AttentionGradTakesTheComputeType) {
  if (exec_.cpu().isa != cpu::Isa::kAvx512Bf16) GTEST_SKIP() << "no products of bf16 on this machine";
  const cpu::AttentionShape shape{4, 2, 16, 0.25f};
  const std::vector<cpu::AttentionSpan> spans = {{0, 20, 0, 20}, {20, 17, 20, 17}};
  const Tensor q = Random(DType::kBf16, 37, 64), k = Random(DType::kBf16, 37, 32),
               v = Random(DType::kBf16, 37, 32), dout = Random(DType::kBf16, 37, 64);
  const Tensor out = Copy(q), lse = Make(DType::kF32, 37, 4);
  const Out lse_out{lse};
  Attention(exec_, shape, spans, q, k, v, Out{out}, &lse_out, Use::kBackbone);
  const auto grad = [&](const Tensor& q1, const Tensor& k1, const Tensor& v1, const Tensor& out1,
                        const Tensor& dout1) {
    const std::vector<Tensor> g = {Make(DType::kF32, 37, 64), Make(DType::kF32, 37, 32),
                                   Make(DType::kF32, 37, 32)};
    AttentionGrad(exec_, shape, spans, q1, k1, v1, out1, dout1, lse, Out{g[0]}, Out{g[1]}, Out{g[2]},
                  Use::kBackbone);
    return g;
  };
  const auto half = grad(q, k, v, out, dout);
  const auto full = grad(Widened(q), Widened(k), Widened(v), Widened(out), Widened(dout));
  for (size_t i = 0; i < 3; ++i) {
    double error = 0, size = 0;
    for (int64_t n = 0; n < 37; ++n) {
      for (int64_t c = 0; c < half[i].cols(); ++c) {
        error += std::pow(At(half[i], n, c) - At(full[i], n, c), 2);
        size += std::pow(At(full[i], n, c), 2);
      }
    }
    EXPECT_LE(std::sqrt(error / size), 0x1p-8) << i;
    EXPECT_GT(error, 0.0) << i;
  }
}

}  // namespace
}  // namespace rung::ops
