#include "format/format.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/half.h"
#include "format/nf4.h"

namespace rung::format {
namespace {

template <class T>
void Append(std::vector<std::byte>* bytes, T value) {
  const size_t at = bytes->size();
  bytes->resize(at + sizeof(T));
  std::memcpy(bytes->data() + at, &value, sizeof(T));
}

Matrix MatrixOf(Format format, int64_t rows, int64_t cols, const std::vector<std::byte>& data) {
  Matrix matrix;
  matrix.format = format;
  matrix.rows = rows;
  matrix.cols = cols;
  matrix.data = data.data();
  return matrix;
}

// One block of 32 nibbles: byte i holds code i % 16 low and 15 - i % 16 high.
void AppendNibbles(std::vector<std::byte>* bytes) {
  for (unsigned i = 0; i < 16; ++i) Append(bytes, static_cast<uint8_t>(i | (15 - i) << 4));
}

TEST(Format, Q8_0ByHand) {
  std::vector<std::byte> data;
  Append(&data, ToF16(-0.25f));
  for (int i = 0; i < 32; ++i) Append(&data, static_cast<int8_t>(i * 8 - 128));
  float out[32];
  DecodeRow(MatrixOf(Format::kQ8_0, 1, 32, data), 0, out);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(out[i], -0.25f * static_cast<float>(i * 8 - 128));
}

TEST(Format, Q4_0ByHand) {
  std::vector<std::byte> data;
  Append(&data, ToF16(0.5f));
  AppendNibbles(&data);
  float out[32];
  DecodeRow(MatrixOf(Format::kQ4_0, 1, 32, data), 0, out);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(out[i], 0.5f * static_cast<float>(i - 8));
    EXPECT_EQ(out[16 + i], 0.5f * static_cast<float>(7 - i));
  }
}

TEST(Format, Q4_1ByHand) {
  std::vector<std::byte> data;
  Append(&data, ToF16(-0.125f));
  Append(&data, ToF16(0.3f));
  AppendNibbles(&data);
  float out[32];
  DecodeRow(MatrixOf(Format::kQ4_1, 1, 32, data), 0, out);
  for (int i = 0; i < 16; ++i) {
    // In double both steps are exact, so this is the result rounded once; d q is exact in f32 too (11 + 4
    // bits).
    const double m = static_cast<double>(ToFloat(ToF16(0.3f)));
    EXPECT_EQ(out[i], static_cast<float>(m - 0.125 * i));
    EXPECT_EQ(out[16 + i], static_cast<float>(m - 0.125 * (15 - i)));
  }
}

TEST(Format, PlainNumbersAtAnyAddress) {
  std::vector<std::byte> data(1);
  for (int i = 0; i < 5; ++i) Append(&data, ToBf16(static_cast<float>(i) - 2.5f));
  Matrix matrix = MatrixOf(Format::kBf16, 1, 5, data);
  matrix.data += 1;
  float out[2];
  Of(Format::kBf16).decode(matrix, 3, 5, out);
  EXPECT_EQ(out[0], 0.5f);
  EXPECT_EQ(out[1], 1.5f);
}

TEST(Format, TypeNumbersOfGgml) {
  Format format = Format::kF32;
  EXPECT_EQ(FromGguf(3, &format), &Of(Format::kQ4_1));
  EXPECT_EQ(format, Format::kQ4_1);
  EXPECT_EQ(FromGguf(14, &format), &Of(Format::kQ6K));
  EXPECT_EQ(FromGguf(16, &format), nullptr);  // IQ2_XXS
  EXPECT_EQ(FromGguf(-1, &format), nullptr);
}

TEST(Format, Bytes) {
  EXPECT_EQ(DataBytes(Format::kQ4_1, 3, 64), 3 * 2 * 20);
  EXPECT_EQ(DataBytes(Format::kNf4, 3, 5), 8);
  EXPECT_EQ(DataBytes(Format::kFp4, 3, 5), 8);
  EXPECT_EQ(DataBytes(Format::kQ6K, 3, 512), 3 * 2 * 210);
  EXPECT_EQ(DataBytes(Format::kF8E4m3, 3, 5), 15);
  EXPECT_EQ(DataBytes(Format::kInt4, 3, 6), 9);
  float absmax = 0.0f;
  uint8_t code = 0;
  Matrix matrix;
  matrix.format = Format::kNf4;
  matrix.rows = 64;
  matrix.cols = 1000;
  matrix.scales.absmax = &absmax;
  EXPECT_EQ(TotalBytes(matrix), 32000 + 4 * 1000);
  matrix.scales.codes = &code;
  EXPECT_EQ(TotalBytes(matrix), 32000 + 1000 + 4 * 4);
}

// CRC-32 (IEEE 802.3), bit by bit.
uint32_t Crc32(const unsigned char* bytes, size_t count) {
  uint32_t crc = 0xffffffffu;
  for (size_t i = 0; i < count; ++i) {
    crc ^= bytes[i];
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1u ? 0xedb88320u : 0u);
  }
  return ~crc;
}

TEST(Nf4, NestedMapIsBitsandbytes) {
  const std::array<float, 256>& map = Nf4NestedMap();
  EXPECT_EQ(std::bit_cast<uint32_t>(map[0]), 0xbf7e3333u);
  EXPECT_EQ(std::bit_cast<uint32_t>(map[126]), 0xb513a3b7u);
  EXPECT_EQ(map[127], 0.0f);
  EXPECT_EQ(map[255], 1.0f);
  EXPECT_EQ(Crc32(reinterpret_cast<const unsigned char*>(map.data()), sizeof(map)), 0x1b137aebu);
}

TEST(Nf4, EncodesLevelsToThemselvesFirstInTheHighNibble) {
  std::vector<float> weights;
  for (int i = 0; i < 64; ++i) weights.push_back(0.75f * kNf4Level[static_cast<size_t>(i % 16)]);
  const Nf4Encoded encoded = EncodeNf4(weights.data(), 64, false);
  ASSERT_EQ(encoded.absmax, std::vector<float>{0.75f});
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(encoded.codes[i], (2 * i % 16) << 4 | (2 * i + 1) % 16);
}

TEST(Nf4, ThresholdsAreStrict) {
  // With maximum 1, weights are their own quotients.
  const float edge = 0.8614784181118011f;
  const float weights[4] = {1.0f, edge, std::nextafter(edge, 2.0f), -1.0f};
  const Nf4Encoded encoded = EncodeNf4(weights, 4, false);
  EXPECT_EQ(encoded.codes[0], 15 << 4 | 14);
  EXPECT_EQ(encoded.codes[1], 15 << 4 | 0);
}

TEST(Nf4, OddCountAndZeroBlock) {
  std::vector<float> weights(67, 0.0f);
  weights[66] = -2.0f;
  const Nf4Encoded encoded = EncodeNf4(weights.data(), 67, false);
  ASSERT_EQ(encoded.codes.size(), 34u);
  EXPECT_EQ(encoded.codes[0], 0);            // all-zero block: code 0
  EXPECT_EQ(encoded.codes[33], 0 << 4 | 7);  // padded with one zero-valued weight
  EXPECT_EQ(encoded.absmax, (std::vector<float>{0.0f, 2.0f}));
}

TEST(Nf4, NestedScalesComeBackWithinTheMapsStep) {
  std::vector<float> weights;
  for (int i = 0; i < 64 * 600; ++i)
    weights.push_back(std::sin(static_cast<float>(i)) * (1.0f + 0.001f * static_cast<float>(i / 64)));
  const Nf4Encoded plain = EncodeNf4(weights.data(), 64 * 600, false);
  const Nf4Encoded nested = EncodeNf4(weights.data(), 64 * 600, true);
  EXPECT_EQ(nested.codes, plain.codes);
  ASSERT_EQ(nested.absmax.size(), 3u);
  BlockScales scales{nested.absmax.data(), nested.nested_codes.data(), Nf4NestedMap().data(), nested.offset};
  for (int64_t b = 0; b < 600; ++b) {
    // The map's widest step is 0.9/64, and an entry is off by at most half of one.
    EXPECT_NEAR(scales.At(b), plain.absmax[static_cast<size_t>(b)],
                nested.absmax[static_cast<size_t>(b / 256)] * 0.9f / 128);
  }
}

TEST(GgufNames, AreThoseOfTheTable) {
  EXPECT_EQ(GgufNames(),
            "f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs, "
            "mxfp4");
}

}  // namespace
}  // namespace rung::format
