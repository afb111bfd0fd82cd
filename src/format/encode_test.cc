#include "format/encode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "format/format.h"
#include "format/golden_testing.h"

namespace rung::format {
namespace {

Format FormatNamed(std::string_view name) {
  for (int i = 0; i < kFormatCount; ++i)
    if (Of(static_cast<Format>(i)).name == name) return static_cast<Format>(i);
  ADD_FAILURE() << name;
  return Format::kF32;
}

// Encodes to an odd address with a byte on either side that must stay.
std::vector<std::byte> Encoded(Format format, const std::vector<float>& weights) {
  const auto n = static_cast<int64_t>(weights.size());
  const auto size = static_cast<size_t>(DataBytes(format, 1, n));
  std::vector<std::byte> out(size + 4, std::byte{0xa5});
  Encode(format, weights.data(), n, out.data() + 1);
  EXPECT_EQ(out[0], std::byte{0xa5});
  EXPECT_EQ(out[size + 1], std::byte{0xa5});
  return {out.begin() + 1, out.begin() + 1 + static_cast<std::ptrdiff_t>(size)};
}

// No weights can be written by whatever can write.
bool HasEncoder(Format format) { return IsEncodable(format, nullptr, 0); }

TEST(EncodeGolden, WritesTheBytesThatGgufWrites) {
  GoldenFile file("format/encode.bin", "rungfmt2");
  const int64_t groups = file.Int();
  ASSERT_EQ(groups, 3);
  int encoders = 0;
  for (int64_t group = 0; group < groups; ++group) {
    const std::vector<float> weights = file.Floats();
    const int64_t formats = file.Int();
    for (int64_t i = 0; i < formats; ++i, ++encoders) {
      const std::string name = file.Text();
      SCOPED_TRACE(name + ", group " + std::to_string(group));
      const std::vector<std::byte> expected = file.Bytes();
      const Format format = FormatNamed(name);
      ASSERT_TRUE(HasEncoder(format));
      const std::vector<std::byte> got = Encoded(format, weights);
      ASSERT_EQ(got.size(), expected.size());
      const auto at = std::mismatch(got.begin(), got.end(), expected.begin()).first - got.begin();
      ASSERT_EQ(at, std::ssize(got)) << "block " << at / Of(format).block_bytes << ", its byte "
                                     << at % Of(format).block_bytes;
    }
  }
  EXPECT_EQ(encoders, 9 + 3 + 2);
}

TEST(Encode, FormatsWithAnEncoder) {
  std::string names;
  for (int f = 0; f < kFormatCount; ++f) {
    const auto format = static_cast<Format>(f);
    if (HasEncoder(format)) names += " " + std::string(Of(format).name);
  }
  EXPECT_EQ(names, " f32 f16 bf16 q8_0 q4_0 q4_1 q5_0 q5_1 mxfp4");
}

// Weights come back within half a step of the block's scale, and what f16 loses of it. In mxfp4 a weight just
// below 8 becomes 6.
TEST(Encode, DecodesWithinAStep) {
  struct Case {
    Format format;
    float steps;  // in the block's largest magnitude
  };
  std::vector<float> weights;
  for (int i = 0; i < 4096; ++i) weights.push_back(std::sin(1.7f * static_cast<float>(i)));
  for (const auto& [format, steps] : {Case{Format::kQ8_0, 127},
                                      {Format::kQ4_0, 8},
                                      {Format::kQ4_1, 7.5f},
                                      {Format::kQ5_0, 16},
                                      {Format::kQ5_1, 15.5f},
                                      {Format::kMxfp4, 2}}) {
    const std::vector<std::byte> data = Encoded(format, weights);
    Matrix matrix;
    matrix.format = format;
    matrix.rows = 1;
    matrix.cols = 4096;
    matrix.data = data.data();
    std::vector<float> back(4096);
    DecodeRow(matrix, 0, back.data());
    for (size_t i = 0; i < 4096; ++i) {
      // Around zero the far side of the largest weight ends a step early: that step more.
      const bool clipped = format == Format::kQ4_0 || format == Format::kQ5_0;
      ASSERT_NEAR(back[i], weights[i], (clipped ? 1.0f : 0.5f) / steps + 2e-3f)
          << Of(format).name << " " << i;
    }
  }
}

TEST(IsEncodable, RefusesWhatIsNotFiniteOrBecomesInfinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float largest = std::numeric_limits<float>::max();
  for (int f = 0; f < kFormatCount; ++f) {
    const auto format = static_cast<Format>(f);
    if (!HasEncoder(format)) continue;
    SCOPED_TRACE(Of(format).name);
    std::vector<float> weights(32, 0.5f);
    EXPECT_TRUE(IsEncodable(format, weights.data(), 32));
    for (const float bad : {infinity, -infinity, std::nanf("")}) {
      weights[31] = bad;
      EXPECT_FALSE(IsEncodable(format, weights.data(), 32));
    }

    // The largest encodable weight decodes to a finite one, and the next does not where f16 is the bound.
    float low = 1.0f, high = largest;
    weights.assign(32, 0.0f);
    const auto encodable = [&](float x) {
      weights[31] = -x;
      return IsEncodable(format, weights.data(), 32);
    };
    if (!encodable(largest)) {
      while (std::nextafter(low, high) < high) {
        const float middle = std::sqrt(low) * std::sqrt(high);
        const float between = middle > low && middle < high ? middle : std::nextafter(low, high);
        (encodable(between) ? low : high) = between;
      }
    } else {
      low = largest;
    }
    weights[31] = -low;
    std::vector<float> back(32);
    const auto decode = [&] {
      const std::vector<std::byte> data = Encoded(format, weights);
      Matrix matrix;
      matrix.format = format;
      matrix.rows = 1;
      matrix.cols = 32;
      matrix.data = data.data();
      DecodeRow(matrix, 0, back.data());
      return std::isfinite(back[31]);
    };
    EXPECT_TRUE(decode()) << low;
    if (low < largest) {
      weights[31] = -std::nextafter(low, infinity);
      EXPECT_FALSE(decode()) << low;
    }
  }
}

}  // namespace
}  // namespace rung::format
