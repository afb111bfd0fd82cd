// The baseline vector and the exponentials over it. The other vectors exist only in files compiled for them:
// Convert, Activate and the attention tests reach them.
#include "kernels/cpu/vec.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace rung::cpu {
namespace {

using V = VecBaseline;

float First(V v) { return v.x[0]; }

TEST(VecBaseline, LoadsAndStoresParts) {
  const float x[] = {1.0f, 2.0f, 3.0f, NAN};
  const V v = V::LoadPart(x, 3);
  EXPECT_EQ(v.Sum(), 6.0f);
  EXPECT_EQ(v.Largest(), 3.0f);
  EXPECT_EQ(v.x[3], 0.0f);
  Bf16 y[] = {{1}, {1}, {1}, {1}};
  v.StorePart(y, 2);
  EXPECT_EQ(ToFloat(y[0]), 1.0f);
  EXPECT_EQ(ToFloat(y[1]), 2.0f);
  EXPECT_EQ(y[2].bits, 1);
  EXPECT_EQ(V::LoadPart(y, 2).Sum(), 3.0f);
}

TEST(VecBaseline, RoundsToNearestEven) {
  const struct {
    float x, rounded;
  } kCases[] = {{0.5f, 0.0f},  {1.5f, 2.0f},   {2.5f, 2.0f},
                {-0.5f, 0.0f}, {-1.5f, -2.0f}, {1000000.4f, 1000000.0f}};
  for (const auto& c : kCases) EXPECT_EQ(First(V::Round(V::Set(c.x))), c.rounded) << c.x;
}

TEST(VecBaseline, ScalesByPowersOfTwo) {
  for (const float n : {-126.0f, -1.0f, 0.0f, 1.0f, 127.0f}) {
    EXPECT_EQ(First(V::Scale2(V::Set(1.5f), V::Set(n))), std::ldexp(1.5f, static_cast<int>(n)));
  }
}

TEST(VecBaseline, MaxAndMinTakeTheSecondOfNan) {
  const V nan = V::Set(NAN), one = V::Set(1.0f);
  EXPECT_TRUE(std::isnan(First(V::Max(one, nan))));
  EXPECT_EQ(First(V::Max(nan, one)), 1.0f);
  EXPECT_TRUE(std::isnan(First(V::Min(one, nan))));
  EXPECT_EQ(First(V::Min(nan, one)), 1.0f);
  EXPECT_EQ(First(V::Positive(nan)), 0.0f);
  EXPECT_EQ(First(V::Positive(V::Set(-0.0f))), 0.0f);
  EXPECT_EQ(First(V::Positive(V::Set(1e-40f))), 1.0f);
}

TEST(Exp2, IsAccurate) {
  for (double x = -126.0; x < 127.0; x += 0.00317) {
    const auto f = static_cast<float>(x);
    const double want = std::exp2(static_cast<double>(f));
    ASSERT_NEAR(static_cast<double>(First(Exp2(V::Set(f)))), want, 2e-7 * want) << f;
  }
  EXPECT_EQ(First(Exp2(V::Set(0.0f))), 1.0f);
  EXPECT_EQ(First(Exp2(V::Set(-1e9f))), 0x1p-126f);
  EXPECT_EQ(First(Exp2(V::Set(-std::numeric_limits<float>::infinity()))), 0x1p-126f);
  EXPECT_TRUE(std::isnan(First(Exp2(V::Set(NAN)))));
}

TEST(Exp, IsAccurate) {
  for (double x = -87.0; x <= 87.0; x += 0.00217) {
    const auto f = static_cast<float>(x);
    const double want = std::exp(static_cast<double>(f));
    ASSERT_NEAR(static_cast<double>(First(Exp(V::Set(f)))), want, 3e-7 * want) << f;
  }
  EXPECT_EQ(First(Exp(V::Set(0.0f))), 1.0f);
  EXPECT_TRUE(std::isfinite(First(Exp(V::Set(1e30f)))));
  EXPECT_LT(First(Exp(V::Set(-1e30f))), 2e-38f);
  EXPECT_TRUE(std::isnan(First(Exp(V::Set(NAN)))));
}

TEST(Tanh, IsAccurateRelativelyNearZeroToo) {
  for (double x = 1e-30; x < 30.0; x *= 1.0037) {
    for (const double sign : {1.0, -1.0}) {
      const auto f = static_cast<float>(sign * x);
      const double want = std::tanh(static_cast<double>(f));
      ASSERT_NEAR(static_cast<double>(First(Tanh(V::Set(f)))), want, 4e-7 * std::abs(want)) << f;
    }
  }
  EXPECT_EQ(First(Tanh(V::Set(0.0f))), 0.0f);
  EXPECT_EQ(First(Tanh(V::Set(std::numeric_limits<float>::infinity()))), 1.0f);
  EXPECT_EQ(First(Tanh(V::Set(-1e30f))), -1.0f);
  EXPECT_TRUE(std::isnan(First(Tanh(V::Set(NAN)))));
}

}  // namespace
}  // namespace rung::cpu
