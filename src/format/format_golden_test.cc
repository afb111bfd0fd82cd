// The formats against their reference implementations: files made by tools/make_format_golden.py, which says
// how they are laid out. Values are compared bit for bit.
#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/error.h"
#include "format/format.h"
#include "format/nf4.h"

namespace rung::format {
namespace {

class GoldenFile {
 public:
  GoldenFile(const std::string& name, std::string_view magic) {
    std::ifstream in("tests/data/" + name, std::ios::binary);
    RUNG_CHECK(in.good(), "no such golden file: tests run in the root of the repository");
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    RUNG_CHECK(bytes_.starts_with(magic), "a golden file of another kind");
    at_ = magic.size();
    Bytes();  // which versions made it
  }
  int64_t Int() { return Value<int64_t>(); }
  float Float() { return Value<float>(); }
  std::vector<std::byte> Bytes() { return Values<std::byte>(Value<uint64_t>()); }
  std::vector<float> Floats() { return Values<float>(Value<uint64_t>()); }
  std::vector<uint32_t> Uints() { return Values<uint32_t>(Value<uint64_t>()); }
  std::vector<uint8_t> Codes() { return Values<uint8_t>(Value<uint64_t>()); }

  template <class T>
  std::vector<T> Values(uint64_t count) {
    RUNG_CHECK(count <= (bytes_.size() - at_) / sizeof(T), "golden file too short");
    std::vector<T> out(count);
    if (count) std::memcpy(out.data(), bytes_.data() + at_, count * sizeof(T));
    at_ += count * sizeof(T);
    return out;
  }

 private:
  template <class T>
  T Value() {
    return Values<T>(1)[0];
  }
  std::string bytes_;
  size_t at_ = 0;
};

// Fails at the first difference only: one wrong scale spoils a whole block.
void ExpectSameBits(const std::vector<float>& got, const std::vector<float>& expected, int64_t begin = 0) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(expected[i]))
        << "weight " << begin + static_cast<int64_t>(i) << ": " << got[i] << ", expected " << expected[i];
  }
}

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
INSTANTIATE_TEST_SUITE_P(Formats, GgufGolden,
                         testing::Values(GgufCase{Format::kQ8_0, "q8_0", 8},
                                         GgufCase{Format::kQ4_0, "q4_0", 2},
                                         GgufCase{Format::kQ4_1, "q4_1", 3}, GgufCase{Format::kF16, "f16", 1},
                                         GgufCase{Format::kBf16, "bf16", 30}),
                         [](const auto& test) { return std::string(test.param.name); });

void ExpectDecodesAsBitsandbytes(const std::string& name) {
  GoldenFile file(name, "rungnf41");
  const int64_t n = file.Int();
  const std::vector<std::byte> codes = file.Bytes();
  const std::vector<float> absmax = file.Floats();
  const std::vector<uint8_t> nested_codes = file.Codes();
  const std::vector<float> map = file.Floats();
  Matrix matrix;
  matrix.format = Format::kNf4;
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
  EXPECT_EQ(DataBytes(Format::kNf4, 1, n), static_cast<int64_t>(codes.size()));

  const int64_t ranges = file.Int();
  ASSERT_GT(ranges, 0);
  for (int64_t range = 0; range < ranges; ++range) {
    const int64_t begin = file.Int();
    const std::vector<float> expected = file.Floats();
    std::vector<float> got(expected.size(), -123.0f);
    Of(Format::kNf4).decode(matrix, begin, begin + static_cast<int64_t>(expected.size()), got.data());
    ExpectSameBits(got, expected, begin);
  }
}

TEST(Nf4Golden, DecodesAsBitsandbytes) { ExpectDecodesAsBitsandbytes("nf4/decode_single.bin"); }
TEST(Nf4Golden, DecodesDoubleQuantisedAsBitsandbytes) {
  ExpectDecodesAsBitsandbytes("nf4/decode_double.bin");
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
