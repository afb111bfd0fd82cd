// Which format each tensor gets, and how it is written.
#include <gtest/gtest.h>

#include "model/weights.h"

namespace rung::model {
namespace {

TEST(RecipeTest, NamesAreParsedBack) {
  std::string names;
  for (int i = 0; i <= static_cast<int>(Quantize::kMxfp4); ++i) {
    const auto quantize = static_cast<Quantize>(i);
    EXPECT_EQ(ParseQuantize(std::string(NameOf(quantize)), "--format").OrThrow(), quantize);
    names += (i > 0 ? ", " : "") + std::string(NameOf(quantize));
  }
  EXPECT_EQ(QuantizeNames(), names);
  EXPECT_EQ(NameOf(Quantize::kNf4Single), "nf4-single");
  EXPECT_EQ(NameOf(Quantize::kQ5_1), "q5_1");
  EXPECT_EQ(NameOf(Quantize::kF32), "f32");
  const Result<Quantize> wrong = ParseQuantize("q4_k", "--format");
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.failure().code, ExitCode::kUsage);
  EXPECT_EQ(wrong.failure().message, "--format q4_k: known are " + names);
}

TEST(RecipeTest, TheFirstPatternThatMatchesDecides) {
  Recipe recipe;
  recipe.matrices = Quantize::kQ4_0;
  recipe.embeddings = Quantize::kQ8_0;
  EXPECT_EQ(recipe.For("model.layers.3.mlp.down_proj", false), Quantize::kQ4_0);
  EXPECT_EQ(recipe.For("model.embed_tokens", true), Quantize::kQ8_0);
  recipe.patterns = {{"*.layers.?.mlp.*", Quantize::kBf16},
                     {"*.layers.*", Quantize::kF16},
                     {"lm_head.weight", Quantize::kF32}};
  EXPECT_EQ(recipe.For("model.layers.3.mlp.down_proj", false), Quantize::kBf16);
  EXPECT_EQ(recipe.For("model.layers.13.mlp.down_proj", false), Quantize::kF16) << "? is one character";
  EXPECT_EQ(recipe.For("model.embed_tokens", true), Quantize::kQ8_0);
  EXPECT_EQ(recipe.For("lm_head", true), Quantize::kF32) << "with .weight";
  EXPECT_EQ(recipe.For("lm_head.weight", true), Quantize::kF32);
  EXPECT_EQ(recipe.For("a.lm_head", false), Quantize::kQ4_0) << "the whole name";
}

TEST(RecipeTest, PatternsAreThoseOfAShell) {
  struct Case {
    const char *pattern, *name;
    bool matches;
  };
  const Case cases[] = {{"*", "a.b", true},        {"*", "", true},         {"a*c", "abcabc", true},
                        {"a*c", "abcab", false},   {"*b*b*", "abab", true}, {"*b*b*", "aba", false},
                        {"a?", "ab", true},        {"a?", "a", false},      {"??", "ab", true},
                        {"a.weight", "a", true},   {"a", "a.weight", true}, {"a**b", "ab", true},
                        {"", "a", false},          {"a[b]", "ab", false},   {"*t", "a", true},
                        {"*.weight", "a.b", true}, {"A", "a", false}};
  for (const Case& c : cases) {
    Recipe recipe;
    recipe.patterns = {{c.pattern, Quantize::kF32}};
    EXPECT_EQ(recipe.For(c.name, false) == Quantize::kF32, c.matches) << c.pattern << " " << c.name;
  }
  // Linear in the name for one star, quadratic at worst: this would never end with naive recursion.
  Recipe hard;
  std::string stars;
  for (int i = 0; i < 30; ++i) stars += "*a";
  hard.patterns = {{stars + "b", Quantize::kF32}};
  EXPECT_EQ(hard.For(std::string(5000, 'a'), false), Quantize::kNf4);
}

TEST(RecipeTest, PatternsAreWrittenAsPatternEqualsFormat) {
  const auto good = ParsePattern("blk.0.*=bf16", "--keep").OrThrow();
  EXPECT_EQ(good.first, "blk.0.*");
  EXPECT_EQ(good.second, Quantize::kBf16);
  for (const char* text : {"", "=", "=bf16", "a", "a=", "a=q4_k", "a=BF16"}) {
    const auto wrong = ParsePattern(text, "--keep");
    ASSERT_FALSE(wrong.ok()) << text;
    EXPECT_EQ(wrong.failure().code, ExitCode::kUsage);
    EXPECT_TRUE(wrong.failure().message.starts_with("--keep ")) << wrong.failure().message;
  }
}

TEST(RecipeTest, PatternsOfNoTensorAreRefused) {
  const Path folder = "tests/data/families/qwen2", file = "tests/data/families/qwen2.gguf";
  Recipe recipe;
  const RecipeFlags keep{"", "", "--keep"};
  EXPECT_TRUE(CheckRecipe(recipe, file, keep).ok());
  recipe.patterns = {{"*.layers.0.*", Quantize::kBf16}};
  EXPECT_TRUE(CheckRecipe(recipe, folder, keep).ok());
  EXPECT_TRUE(CheckRecipe(recipe, folder / "config.json", keep).ok()) << "no names to compare with";
  const Status of_gguf = CheckRecipe(recipe, file, keep);
  ASSERT_FALSE(of_gguf.ok());
  EXPECT_NE(of_gguf.failure().message.find("as they are"), std::string::npos);
  recipe.patterns.push_back({"blk.0.*", Quantize::kBf16});
  const Status none = CheckRecipe(recipe, folder, keep);
  ASSERT_FALSE(none.ok());
  EXPECT_EQ(none.failure().code, ExitCode::kUsage);
  EXPECT_NE(none.failure().message.find("--keep blk.0.*"), std::string::npos) << none.failure().message;
}

// What would change nothing is refused where it was asked for, and is no matter where it is the default.
TEST(RecipeTest, FormatsOfWhatIsPackedAreRefused) {
  const Recipe recipe{Quantize::kQ8_0, Quantize::kQ8_0, {}};
  const auto said = [&](const Path& model, const RecipeFlags& given) {
    const Status status = CheckRecipe(recipe, model, given);
    return status.ok() ? "" : status.failure().message;
  };
  const RecipeFlags matrices{"--quantize q8_0", "", ""}, embeddings{"", "--quantize-embeddings", ""};
  const Path gguf = "tests/data/families/qwen2.gguf", folder = "tests/data/families/qwen2";
  for (const RecipeFlags& flags : {matrices, embeddings}) {
    EXPECT_EQ(said(folder, flags), "");
    EXPECT_NE(
        said(gguf, flags)
            .find("whose tensors have their formats already and are used as they are; leave --quantize"),
        std::string::npos);
  }
  EXPECT_EQ(said(gguf, {}), "");
  for (const char* kind : {"gptq", "awq", "nf4", "fp4"}) {
    const Path packed = Path("tests/data/quantized") / kind;
    if (!std::filesystem::exists(packed)) continue;
    EXPECT_NE(said(packed, matrices).find("has layers that are packed already"), std::string::npos) << kind;
    EXPECT_EQ(said(packed, embeddings), "") << kind << ": its embedding is not packed";
    EXPECT_EQ(said(packed, {}), "");
    const Recipe keep{Quantize::kNf4, Quantize::kNone, {{"*.0.*_proj", Quantize::kBf16}}};
    const Status kept = CheckRecipe(keep, packed, {"", "", "--keep"});
    ASSERT_FALSE(kept.ok()) << kind;
    EXPECT_TRUE(kept.failure().message.starts_with("--keep *.0.*_proj: ")) << kept.failure().message;
  }
  const Recipe nf4;
  EXPECT_TRUE(CheckRecipe(nf4, "tests/data/quantized/nf4_double", {"--quantize nf4", "", ""}).ok())
      << "it is";
  EXPECT_FALSE(CheckRecipe(nf4, "tests/data/quantized/gptq", {"--quantize nf4", "", ""}).ok());
  // float8 weights are quantised while they are read.
  EXPECT_EQ(said("tests/data/quantized/fp8_rows", matrices), "");
}

TEST(RecipeTest, KeysTellRecipesApart) {
  Recipe recipe;
  EXPECT_EQ(recipe.Key(), "1");
  recipe.embeddings = Quantize::kNf4;
  EXPECT_EQ(recipe.Key(), "1+embeddings");
  recipe.embeddings = Quantize::kQ8_0;
  EXPECT_EQ(recipe.Key(), "1+embeddings:q8_0");
  recipe.patterns = {{"a=b", Quantize::kF32}};
  EXPECT_EQ(recipe.Key(), "1+embeddings:q8_0+\"a=b\"=f32");
}

}  // namespace
}  // namespace rung::model
