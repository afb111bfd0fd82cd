// The formats against their reference implementations: files made by tools/make_format_golden.py, which says
// how they are laid out. Values are compared bit for bit.
#include <gtest/gtest.h>

#include <bit>
#include <string>
#include <vector>

#include "format/format.h"
#include "format/golden_testing.h"
#include "format/nf4.h"

namespace rung::format {
namespace {

struct GgufCase {
  Format format;
  const char* name;
  int gguf_type;
};

class GgufGolden : public testing::TestWithParam<GgufCase> {};

TEST_P(GgufGolden, DecodesAsGgufDoes) {
  GoldenFile file(std::string("format/") + GetParam().name + ".bin", "rungfmt1");
  Matrix matrix;
  matrix.format = GetParam().format;
  matrix.rows = file.Int();
  matrix.cols = file.Int();
  const std::vector<std::byte> data = file.Bytes();
  const std::vector<float> expected = file.Values<float>(static_cast<uint64_t>(matrix.rows * matrix.cols));
  matrix.data = data.data();
  ASSERT_EQ(DataBytes(matrix.format, matrix.rows, matrix.cols), static_cast<int64_t>(data.size()));

  const Info& info = Of(matrix.format);
  EXPECT_EQ(info.name, GetParam().name);
  EXPECT_EQ(info.gguf_type, GetParam().gguf_type);
  std::vector<float> got(expected.size(), -123.0f);
  info.decode(matrix, 0, matrix.rows * matrix.cols, got.data());
  ExpectSameBits(got, expected);

  // Any begin and end: odd ones, inside one block and over many.
  for (const auto& [begin, end] :
       {std::pair<int64_t, int64_t>{1, 2}, {31, 33}, {5, 29}, {777, 2049}, {64, 64}}) {
    got.assign(static_cast<size_t>(end - begin), -123.0f);
    info.decode(matrix, begin, end, got.data());
    ExpectSameBits(got, {expected.begin() + begin, expected.begin() + end}, begin);
  }
  got.assign(static_cast<size_t>(matrix.cols), -123.0f);
  DecodeRow(matrix, 2, got.data());
  ExpectSameBits(got, {expected.begin() + 2 * matrix.cols, expected.end()});
}

// Type numbers: ggml's enum ggml_type, which GGUF freezes.
INSTANTIATE_TEST_SUITE_P(
    Formats, GgufGolden,
    testing::Values(GgufCase{Format::kQ8_0, "q8_0", 8}, GgufCase{Format::kQ4_0, "q4_0", 2},
                    GgufCase{Format::kQ4_1, "q4_1", 3}, GgufCase{Format::kF16, "f16", 1},
                    GgufCase{Format::kBf16, "bf16", 30}, GgufCase{Format::kQ5_0, "q5_0", 6},
                    GgufCase{Format::kQ5_1, "q5_1", 7}, GgufCase{Format::kQ2K, "q2_k", 10},
                    GgufCase{Format::kQ3K, "q3_k", 11}, GgufCase{Format::kQ4K, "q4_k", 12},
                    GgufCase{Format::kQ5K, "q5_k", 13}, GgufCase{Format::kQ6K, "q6_k", 14},
                    GgufCase{Format::kIq4Nl, "iq4_nl", 20}, GgufCase{Format::kIq4Xs, "iq4_xs", 23},
                    GgufCase{Format::kMxfp4, "mxfp4", 39}),
    [](const auto& test) { return std::string(test.param.name); });

// Any two of several edges, and the whole.
void ExpectDecodesAnyRange(const Matrix& matrix, const std::vector<float>& expected) {
  const auto n = static_cast<int64_t>(expected.size());
  for (const int64_t begin : {int64_t{0}, int64_t{1}, int64_t{37}, matrix.cols - 1, matrix.cols}) {
    for (const int64_t end : {begin, begin + 1, begin + 3, 2 * matrix.cols + 5, n - 1, n}) {
      std::vector<float> got(static_cast<size_t>(end - begin), -123.0f);
      Of(matrix.format).decode(matrix, begin, end, got.data());
      ExpectSameBits(got, {expected.begin() + begin, expected.begin() + end}, begin);
    }
  }
}

TEST(TilesGolden, DecodeAsTheirReferences) {
  GoldenFile file("format/tiles.bin", "rungfmt3");
  const int64_t cases = file.Int();
  ASSERT_EQ(cases, 8);
  for (int64_t i = 0; i < cases; ++i) {
    Matrix matrix;
    const std::string name = file.Text();
    SCOPED_TRACE(name + ", case " + std::to_string(i));
    matrix.format = name == "int4" ? Format::kInt4 : Format::kF8E4m3;
    ASSERT_EQ(Of(matrix.format).name, name);
    matrix.rows = file.Int();
    matrix.cols = file.Int();
    const std::vector<std::byte> data = file.Bytes();
    matrix.data = data.data();
    matrix.tiles.rows = file.Int();
    matrix.tiles.cols = file.Int();
    matrix.tiles.groups = file.Int();
    const std::vector<float> scale = file.Floats();
    const std::vector<uint8_t> zero = file.Codes();
    const std::vector<uint32_t> index = file.Uints();
    const std::vector<int32_t> groups(index.begin(), index.end());
    if (!scale.empty()) matrix.tiles.scale = scale.data();
    if (!zero.empty()) matrix.tiles.zero = zero.data();
    if (!index.empty()) matrix.tiles.index = groups.data();
    ASSERT_EQ(DataBytes(matrix.format, matrix.rows, matrix.cols), static_cast<int64_t>(data.size()));
    EXPECT_EQ(TotalBytes(matrix),
              static_cast<int64_t>(data.size() + 4 * scale.size() + zero.size() + 4 * index.size()));
    ExpectDecodesAnyRange(matrix, file.Values<float>(static_cast<uint64_t>(matrix.rows * matrix.cols)));
  }
}

void ExpectDecodesAsBitsandbytes(Format format, const std::string& name) {
  GoldenFile file(name, "rungnf41");
  const int64_t n = file.Int();
  const std::vector<std::byte> codes = file.Bytes();
  const std::vector<float> absmax = file.Floats();
  const std::vector<uint8_t> nested_codes = file.Codes();
  const std::vector<float> map = file.Floats();
  Matrix matrix;
  matrix.format = format;
  matrix.rows = 1;
  matrix.cols = n;
  matrix.data = codes.data();
  matrix.scales.absmax = absmax.data();
  matrix.scales.offset = file.Float();
  if (!nested_codes.empty()) {
    matrix.scales.codes = nested_codes.data();
    matrix.scales.map = map.data();
    ExpectSameBits({Nf4NestedMap().begin(), Nf4NestedMap().end()}, map);
  }
  EXPECT_EQ(DataBytes(format, 1, n), static_cast<int64_t>(codes.size()));

  const int64_t ranges = file.Int();
  ASSERT_GT(ranges, 0);
  for (int64_t range = 0; range < ranges; ++range) {
    const int64_t begin = file.Int();
    const std::vector<float> expected = file.Floats();
    std::vector<float> got(expected.size(), -123.0f);
    Of(format).decode(matrix, begin, begin + static_cast<int64_t>(expected.size()), got.data());
    ExpectSameBits(got, expected, begin);
  }
}

TEST(Nf4Golden, DecodesAsBitsandbytes) { ExpectDecodesAsBitsandbytes(Format::kNf4, "nf4/decode_single.bin"); }
TEST(Nf4Golden, DecodesDoubleQuantisedAsBitsandbytes) {
  ExpectDecodesAsBitsandbytes(Format::kNf4, "nf4/decode_double.bin");
}

TEST(Fp4Golden, DecodesAsBitsandbytes) { ExpectDecodesAsBitsandbytes(Format::kFp4, "nf4/fp4_single.bin"); }
TEST(Fp4Golden, DecodesDoubleQuantisedAsBitsandbytes) {
  ExpectDecodesAsBitsandbytes(Format::kFp4, "nf4/fp4_double.bin");
}

void ExpectEncodesByTheCudaRule(const std::string& name, bool nested) {
  GoldenFile file(name, "rungnf42");
  const int64_t n = file.Int();
  const std::vector<uint32_t> positions = file.Uints();
  const std::vector<float> given = file.Floats();
  std::vector<float> weights = given;
  if (!positions.empty()) {
    weights.assign(static_cast<size_t>(n), 0.0f);
    for (size_t i = 0; i < positions.size(); ++i) weights[positions[i]] = given[i];
  }
  ASSERT_EQ(static_cast<int64_t>(weights.size()), n);
  const std::vector<uint8_t> codes = file.Codes();
  const std::vector<float> absmax = file.Floats();
  const std::vector<uint8_t> nested_codes = file.Codes();
  const float offset = file.Float();

  const Nf4Encoded got = EncodeNf4(weights.data(), n, nested);
  ASSERT_EQ(got.codes.size(), codes.size());
  for (size_t i = 0; i < codes.size(); ++i) {
    ASSERT_EQ(got.codes[i] >> 4, codes[i] >> 4) << "weight " << 2 * i << " = " << weights[2 * i];
    ASSERT_EQ(got.codes[i] & 15, codes[i] & 15) << "weight " << 2 * i + 1;
  }
  ExpectSameBits(got.absmax, absmax);
  EXPECT_EQ(got.nested_codes, nested_codes);
  EXPECT_EQ(std::bit_cast<uint32_t>(got.offset), std::bit_cast<uint32_t>(offset));
}

TEST(Nf4Golden, EncodesByTheCudaRule) { ExpectEncodesByTheCudaRule("nf4/encode_single.bin", false); }
TEST(Nf4Golden, EncodesDoubleQuantisedByTheCudaRule) {
  ExpectEncodesByTheCudaRule("nf4/encode_double.bin", true);
}

}  // namespace
}  // namespace rung::format
