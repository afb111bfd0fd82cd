// What GGUF files have beyond what is read: it is said, and said of nothing else.
#include <gtest/gtest.h>
#include <unistd.h>

#include "model/gguf_testing.h"
#include "model/test_support.h"

namespace rung::model {
namespace {

const Path kFamilies = "tests/data/families";

class GgufWarningsTest : public testing::Test {
 protected:
  void SetUp() override {
    file_ = std::filesystem::temp_directory_path() / ("rung_gguf_warnings_" + std::to_string(::getpid()));
  }
  void TearDown() override { std::filesystem::remove(file_); }
  std::vector<std::string> Warnings(const char* family, const GgufChanges& changes) const {
    WriteChanged(kFamilies / (std::string(family) + ".gguf"), file_, changes);
    return ConfigWarnings(io::Gguf::Open(file_).OrThrow());
  }
  Path file_;
};

TEST_F(GgufWarningsTest, TensorsThatNoPartOfTheModelReadsAreNamed) {
  struct Case {
    const char *family, *tensor;
  };
  const Case cases[] = {{"smollm2", "blk.0.attn_q_norm.weight"},  {"smollm2", "blk.1.attn_norm.bias"},
                        {"smollm2", "blk.0.ffn_gate_inp.weight"}, {"qwen2", "blk.0.attn_output_norm.weight"},
                        {"llama3", "blk.9.attn_norm.weight"},     {"gpt2", "blk.0.ffn_gate.weight"},
                        {"gemma2", "per_layer_token_embd.weight"}};
  for (const Case& c : cases) {
    EXPECT_TRUE(Warnings(c.family, {}).empty()) << c.family;
    const std::vector<std::string> warnings = Warnings(c.family, {{}, {{c.tensor, 8}}});
    ASSERT_EQ(warnings.size(), 1u) << c.tensor;
    EXPECT_NE(warnings[0].find(std::string("tensor ") + c.tensor + ": no part of"), std::string::npos)
        << warnings[0];
  }
  // One line for all layers.
  const std::vector<std::string> both =
      Warnings("llama3", {{}, {{"blk.0.attn_k_norm.weight", 8}, {"blk.1.attn_k_norm.weight", 8}}});
  ASSERT_EQ(both.size(), 1u);
  EXPECT_NE(both[0].find("blk.0.attn_k_norm.weight and 1 more of its kind"), std::string::npos) << both[0];
}

// A bias that is read is no surplus: the first layer's says that the model has them.
TEST_F(GgufWarningsTest, BiasesOfALlamaAreRead) {
  WriteChanged(kFamilies / "smollm2.gguf", file_, {{}, {{"blk.0.attn_output.bias", 8}}});
  const io::Gguf gguf = io::Gguf::Open(file_).OrThrow();
  EXPECT_TRUE(ConfigFromGguf(gguf).OrThrow().o_bias);
  EXPECT_TRUE(ConfigWarnings(gguf).empty());
}

TEST_F(GgufWarningsTest, AModelWithoutRopeMayKeepItsKeys) {
  EXPECT_TRUE(Warnings("granite", {{{"granite.rope.scaling.finetuned", false}}, {}}).empty());
  EXPECT_TRUE(ReadConfig(file_).OrThrow().no_rope);
  EXPECT_EQ(Warnings("granite", {{{"granite.rope.unheard_of", 1.0f}}, {}}).size(), 1u);
}

}  // namespace
}  // namespace rung::model
