// Repacking of GPTQ's and AWQ's words: what is refused. Values are compared in quantized_test.cc.
#include "model/packed_int4.h"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "model/quantization.h"

namespace rung::model {
namespace {

// A matrix of 8 rows and 16 columns in two groups, of zeros but for the scales.
struct Parts {
  std::vector<std::byte> qweight = std::vector<std::byte>(8 * 16 / 2);
  std::vector<std::byte> qzeros = std::vector<std::byte>(2 * 4);
  std::vector<float> scales = std::vector<float>(2 * 8, 1.0f);
  Int4Parts view;

  explicit Parts(Int4Layout layout) {
    view.layout = layout;
    view.rows = 8;
    view.cols = 16;
    view.groups = 2;
  }
  Result<Int4Matrix> Repack() {
    view.qweight = qweight;
    view.qzeros = qzeros;
    view.scales = scales;
    return RepackInt4(view);
  }
};

TEST(PackedInt4Test, EveryNibbleOfAwqHasItsPlace) {
  // The word of column 5 holds one code that is not 0; nibble i is row order[i].
  constexpr int kOrder[] = {0, 2, 4, 6, 1, 3, 5, 7};
  for (size_t nibble = 0; nibble < 8; ++nibble) {
    Parts parts(Int4Layout::kAwq);
    parts.qweight[5 * 4 + nibble / 2] = static_cast<std::byte>(nibble % 2 ? 0x90 : 0x09);
    const Int4Matrix found = parts.Repack().OrThrow();
    for (size_t row = 0; row < 8; ++row) {
      const auto code = std::to_integer<unsigned>(found.codes[row * 8 + 2]) >> 4;
      EXPECT_EQ(code, static_cast<int>(row) == kOrder[nibble] ? 9u : 0u) << nibble << " " << row;
    }
  }
}

TEST(PackedInt4Test, EveryNibbleOfGptqHasItsPlace) {
  for (size_t nibble = 0; nibble < 8; ++nibble) {
    Parts parts(Int4Layout::kGptq);
    parts.qweight[(8 + 3) * 4 + nibble / 2] = static_cast<std::byte>(nibble % 2 ? 0x90 : 0x09);
    const Int4Matrix found = parts.Repack().OrThrow();
    for (size_t i = 0; i < found.codes.size(); ++i) {
      const size_t place = 3 * 8 + 4 + nibble / 2;  // row 3, columns 8 and on
      EXPECT_EQ(std::to_integer<unsigned>(found.codes[i]), i == place ? (nibble % 2 ? 0x90u : 0x09u) : 0u);
    }
  }
}

TEST(PackedInt4Test, ZeroPointsOfTheFirstLayoutAreStoredLessOne) {
  for (const Int4Layout layout : {Int4Layout::kGptq, Int4Layout::kAwq}) {
    Parts parts(layout);
    parts.qzeros[0] = std::byte{0x0f};  // row 0: 15
    EXPECT_EQ(parts.Repack().OrThrow().zeros[0], 15);
    parts.view.zeros_less_one = true;
    const Int4Matrix found = parts.Repack().OrThrow();
    EXPECT_EQ(found.zeros[0], 0) << "modulo 16";
    EXPECT_EQ(found.zeros[1], 1);
  }
}

TEST(PackedInt4Test, LyingExtentsAreRefused) {
  for (const Int4Layout layout : {Int4Layout::kGptq, Int4Layout::kAwq}) {
    EXPECT_TRUE(Parts(layout).Repack().ok());
    const auto refused = [layout](const std::function<void(Parts*)>& change) {
      Parts parts(layout);
      change(&parts);
      const Result<Int4Matrix> read = parts.Repack();
      return !read.ok() && !read.failure().message.empty();
    };
    EXPECT_TRUE(refused([](Parts* p) { p->view.rows = 0; }));
    EXPECT_TRUE(refused([](Parts* p) { p->view.cols = 12; }));
    EXPECT_TRUE(refused([](Parts* p) { p->view.rows = -8; }));
    EXPECT_TRUE(refused([](Parts* p) { p->view.groups = 0; }));
    EXPECT_TRUE(refused([](Parts* p) { p->view.groups = 17; }));
    EXPECT_TRUE(refused([](Parts* p) { p->view.rows = 16; }));
    EXPECT_TRUE(refused([](Parts* p) { p->qweight.pop_back(); }));
    EXPECT_TRUE(refused([](Parts* p) { p->qzeros.clear(); }));
    EXPECT_TRUE(refused([](Parts* p) { p->scales.push_back(1.0f); }));
    EXPECT_TRUE(refused([](Parts* p) { p->scales[3] = std::numeric_limits<float>::infinity(); }));
    EXPECT_TRUE(refused([](Parts* p) { p->scales[3] = std::numeric_limits<float>::quiet_NaN(); }));
  }
}

TEST(PackedInt4Test, GroupsAreCounted) {
  std::vector<int32_t> index;
  EXPECT_EQ(GroupsOf({}, 16, 8, &index).OrThrow(), 2);
  EXPECT_EQ(GroupsOf({}, 16, 0, &index).OrThrow(), 1);
  EXPECT_EQ(GroupsOf({}, 20, 8, &index).OrThrow(), 3);
  const std::vector<int32_t> straight = {0, 0, 1, 1}, mixed = {1, 0, 0, 1}, beyond = {0, 0, 1, 2},
                             below = {0, -1, 1, 1};
  EXPECT_EQ(GroupsOf(straight, 4, 2, &index).OrThrow(), 2);
  EXPECT_TRUE(index.empty());
  EXPECT_EQ(GroupsOf(mixed, 4, 2, &index).OrThrow(), 2);
  EXPECT_EQ(index, mixed);
  EXPECT_FALSE(GroupsOf(beyond, 4, 2, &index).ok());
  EXPECT_FALSE(GroupsOf(below, 4, 2, &index).ok());
  EXPECT_FALSE(GroupsOf(straight, 5, 2, &index).ok());
  EXPECT_FALSE(GroupsOf(mixed, 4, 0, &index).ok()) << "one group";
}

TEST(QuantizationTest, MethodsThatAreReadAreTold) {
  using Method = Quantization::Method;
  const auto parse = [](const std::string& fields) {
    return ParseQuantization("{\"quantization_config\": {" + fields + "}}", "config.json");
  };
  EXPECT_EQ(ParseQuantization("{}", "config.json").OrThrow(), Quantization());
  EXPECT_EQ(ParseQuantization("{\"quantization_config\": null}", "config.json").OrThrow(), Quantization());
  const Quantization gptq =
      parse("\"quant_method\": \"gptq\", \"bits\": 4, \"group_size\": -1, \"desc_act\": true").OrThrow();
  EXPECT_EQ(gptq.method, Method::kGptq);
  EXPECT_EQ(gptq.group, 0);
  EXPECT_TRUE(gptq.zeros_less_one);
  EXPECT_FALSE(parse("\"quant_method\": \"gptq\", \"bits\": 4, \"checkpoint_format\": \"gptq_v2\"")
                   .OrThrow()
                   .zeros_less_one);
  const Quantization awq =
      parse("\"quant_method\": \"awq\", \"bits\": 4, \"group_size\": 64, \"version\": \"GEMM\"").OrThrow();
  EXPECT_EQ(awq.method, Method::kAwq);
  EXPECT_EQ(awq.group, 64);
  EXPECT_EQ(parse("\"load_in_4bit\": true").OrThrow().method, Method::kBitsAndBytes);
  const Quantization tiles = parse("\"quant_method\": \"fp8\", \"weight_block_size\": [64, 32]").OrThrow();
  EXPECT_EQ(tiles.method, Method::kFloat8);
  EXPECT_EQ(tiles.tile_rows, 64);
  EXPECT_EQ(tiles.tile_cols, 32);
  // Files of older programs are the object itself.
  EXPECT_EQ(ParseQuantization("{\"bits\": 4, \"group_size\": 32}", "a/quantize_config.json").OrThrow().group,
            32);
  EXPECT_EQ(ParseQuantization("{\"w_bit\": 4, \"q_group_size\": 32}", "a/quant_config.json").OrThrow().method,
            Method::kAwq);
}

TEST(QuantizationTest, OthersAreRefusedByName) {
  struct Case {
    const char *fields, *says;
  };
  const Case cases[] = {
      {"\"quant_method\": \"hqq\"", "hqq"},
      {"\"quant_method\": \"aqlm\"", "aqlm"},
      {"\"quant_method\": \"mxfp4\"", "mxfp4"},
      {"\"quant_method\": \"eetq\"", "eetq"},
      {"\"quant_method\": \"torchao\"", "gptq and awq with 4 bits"},
      {"", "without a name"},
      {"\"quant_method\": 7", "quant_method must be a text"},
      {"\"quant_method\": \"gptq\", \"bits\": 8", "8 bits"},
      {"\"quant_method\": \"gptq\", \"bits\": \"4\"", "bits must be a whole number"},
      {"\"quant_method\": \"gptq\", \"group_size\": 0", "group_size is 0"},
      {"\"quant_method\": \"gptq\", \"group_size\": -2", "group_size is -2"},
      {"\"quant_method\": \"gptq\", \"checkpoint_format\": \"marlin\"", "marlin"},
      {"\"quant_method\": \"gptq\", \"desc_act\": 3", "desc_act must be"},
      {"\"quant_method\": \"awq\", \"version\": \"gemv\"", "gemv"},
      {"\"quant_method\": \"awq\", \"bits\": 3", "3 bits"},
      {"\"quant_method\": \"bitsandbytes\", \"load_in_8bit\": true", "8 bits"},
      {"\"quant_method\": \"fp8\", \"weight_block_size\": [0, 128]", "weight_block_size"},
      {"\"quant_method\": \"fp8\", \"weight_block_size\": [128]", "weight_block_size"},
      {"\"quant_method\": \"fp8\", \"fmt\": \"e5m2\"", "e5m2"},
      {"\"quant_method\": \"compressed-tensors\"", "config_groups"},
      {"\"quant_method\": \"compressed-tensors\", \"format\": \"pack-quantized\", \"config_groups\": {\"g\": "
       "{\"weights\": {\"num_bits\": 4, \"type\": \"int\", \"strategy\": \"group\"}}}",
       "int with 4 bits a group (pack-quantized)"},
      {"\"quant_method\": \"compressed-tensors\", \"config_groups\": {\"g\": 1}", "config_groups.g"}};
  for (const Case& c : cases) {
    const Result<Quantization> read =
        ParseQuantization(std::string("{\"quantization_config\": {") + c.fields + "}}", "x/config.json");
    ASSERT_FALSE(read.ok()) << c.fields;
    EXPECT_NE(read.failure().message.find(c.says), std::string::npos) << read.failure().message;
    EXPECT_TRUE(read.failure().message.starts_with("x/config.json")) << read.failure().message;
  }
  EXPECT_FALSE(ParseQuantization("{\"quantization_config\": 3}", "config.json").ok());
  EXPECT_FALSE(ParseQuantization("[]", "config.json").ok());
  EXPECT_FALSE(ParseQuantization("{", "config.json").ok());
  EXPECT_EQ(ReadQuantization("tests/data/none").OrThrow(), Quantization());
}

}  // namespace
}  // namespace rung::model
