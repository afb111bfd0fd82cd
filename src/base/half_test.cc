#include "base/half.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace rung {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// The value of a 16-bit float by the definition, in double.
double ValueOf(uint32_t bits, int exponent_bits, int mantissa_bits) {
  const uint32_t mantissa = bits & ((1u << mantissa_bits) - 1);
  const int exponent = static_cast<int>((bits >> mantissa_bits) & ((1u << exponent_bits) - 1));
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double magnitude =
      exponent == 0 ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                    : std::ldexp(mantissa + (1u << mantissa_bits), exponent - bias - mantissa_bits);
  return bits & 0x8000u ? -magnitude : magnitude;
}

TEST(F16, EveryPatternHasItsValue) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const float x = ToFloat(F16{static_cast<uint16_t>(bits)});
    if ((bits & 0x7c00u) == 0x7c00u) {
      if (bits & 0x3ffu) {
        EXPECT_TRUE(std::isnan(x)) << bits;
      } else {
        EXPECT_EQ(x, bits & 0x8000u ? -kInfinity : kInfinity);
      }
      continue;
    }
    ASSERT_EQ(static_cast<double>(x), ValueOf(bits, 5, 10)) << bits;
    ASSERT_EQ(std::signbit(x), (bits & 0x8000u) != 0) << bits;
  }
}

// Rounding is monotone, so it is right everywhere when it is right at every value, at every midpoint (to
// even) and at the floats beside each midpoint.
TEST(F16, RoundsToNearestEven) {
  for (uint16_t bits = 0; bits < 0x7bff; ++bits) {
    const double low = ValueOf(bits, 5, 10), high = ValueOf(bits + 1u, 5, 10);
    const float middle = static_cast<float>((low + high) / 2);  // exact: one more bit than f16
    ASSERT_EQ(ToF16(static_cast<float>(low)).bits, bits);
    ASSERT_EQ(ToF16(middle).bits, bits % 2 == 0 ? bits : bits + 1) << bits;
    ASSERT_EQ(ToF16(std::nextafter(middle, 0.0f)).bits, bits) << bits;
    ASSERT_EQ(ToF16(std::nextafter(middle, kInfinity)).bits, bits + 1) << bits;
    ASSERT_EQ(ToF16(-middle).bits, ToF16(middle).bits | 0x8000) << bits;
  }
}

TEST(F16, EdgesOfTheRange) {
  EXPECT_EQ(ToF16(65504.0f).bits, 0x7bff);
  EXPECT_EQ(ToF16(std::nextafter(65520.0f, 0.0f)).bits, 0x7bff);
  EXPECT_EQ(ToF16(65520.0f).bits, 0x7c00);
  EXPECT_EQ(ToF16(-kInfinity).bits, 0xfc00);
  EXPECT_EQ(ToF16(-0.0f).bits, 0x8000);
  EXPECT_EQ(ToF16(std::numeric_limits<float>::denorm_min()).bits, 0);
  EXPECT_TRUE(std::isnan(ToFloat(ToF16(std::nanf("")))));
  // A NaN whose payload lies in the low bits must not become infinite.
  EXPECT_TRUE(std::isnan(ToFloat(ToF16(std::bit_cast<float>(0x7f800001u)))));
}

TEST(Bf16, EveryPatternHasItsValueAndComesBack) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const Bf16 half{static_cast<uint16_t>(bits)};
    const float x = ToFloat(half);
    if ((bits & 0x7f80u) == 0x7f80u) {
      EXPECT_EQ(std::isnan(x), (bits & 0x7fu) != 0) << bits;
      EXPECT_EQ(std::isnan(ToFloat(ToBf16(x))), std::isnan(x)) << bits;
      continue;
    }
    ASSERT_EQ(static_cast<double>(x), ValueOf(bits, 8, 7)) << bits;
    ASSERT_EQ(ToBf16(x).bits, bits);
  }
}

TEST(Bf16, RoundsToNearestEven) {
  for (uint16_t bits = 0; bits < 0x7f7f; ++bits) {
    const float middle = static_cast<float>((ValueOf(bits, 8, 7) + ValueOf(bits + 1u, 8, 7)) / 2);
    ASSERT_EQ(ToBf16(middle).bits, bits % 2 == 0 ? bits : bits + 1) << bits;
    ASSERT_EQ(ToBf16(std::nextafter(middle, 0.0f)).bits, bits) << bits;
    ASSERT_EQ(ToBf16(std::nextafter(middle, kInfinity)).bits, bits + 1) << bits;
    ASSERT_EQ(ToBf16(-middle).bits, ToBf16(middle).bits | 0x8000) << bits;
  }
}

TEST(Bf16, EdgesOfTheRange) {
  EXPECT_EQ(ToBf16(kInfinity).bits, 0x7f80);
  EXPECT_EQ(ToBf16(std::numeric_limits<float>::max()).bits, 0x7f80) << "the midpoint above the largest bf16";
  EXPECT_EQ(ToBf16(-0.0f).bits, 0x8000);
  EXPECT_TRUE(std::isnan(ToFloat(ToBf16(std::bit_cast<float>(0x7f800001u)))));
}

}  // namespace
}  // namespace rung
