// --quantize, --quantize-embeddings, --keep, and what `rung inspect` and `rung plan` say of formats by
// tensor.
#include <nlohmann/json.hpp>

#include "cli/test_support.h"

namespace rung::cli {
namespace {

using model::Quantize;
using nlohmann::json;

constexpr const char* kModel = "tests/data/models/tinystories-656k";

model::Recipe Parse(std::vector<std::string> arguments) {
  CLI::App app;
  ModelFlags flags;
  AddModelFlags(app, &flags);
  arguments.insert(arguments.begin(), {"--model", kModel});
  std::reverse(arguments.begin(), arguments.end());
  app.parse(arguments);
  return RecipeOf(flags);
}

TEST(ModelFlagsTest, EmbeddingsFollowUnlessTheyHaveAFormat) {
  EXPECT_EQ(Parse({}), model::Recipe());
  EXPECT_EQ(Parse({"--quantize-embeddings"}).embeddings, Quantize::kNf4);
  EXPECT_EQ(Parse({"--quantize-embeddings", "--quantize", "q4_0"}).embeddings, Quantize::kQ4_0);
  EXPECT_EQ(Parse({"--quantize-embeddings", "q8_0"}).embeddings, Quantize::kQ8_0);
  EXPECT_EQ(Parse({"--quantize-embeddings=q8_0"}).embeddings, Quantize::kQ8_0);
  // As configuration files have it.
  EXPECT_EQ(Parse({"--quantize-embeddings=true"}).embeddings, Quantize::kNf4);
  EXPECT_EQ(Parse({"--quantize-embeddings=false"}).embeddings, Quantize::kNone);
  EXPECT_THROW(Parse({"--quantize-embeddings", "q4_k"}), Error);
  EXPECT_THROW(Parse({"--quantize", "int8"}), Error);
}

TEST(ModelFlagsTest, PatternsMayBeRepeated) {
  const model::Recipe recipe = Parse(
      {"--keep", "model.layers.0.*=bf16", "--keep", "*down_proj=f16,lm_head=q8_0", "--quantize", "q5_1"});
  ASSERT_EQ(recipe.patterns.size(), 3u);
  EXPECT_EQ(recipe.patterns[2], (std::pair<std::string, Quantize>("lm_head", Quantize::kQ8_0)));
  EXPECT_EQ(recipe.matrices, Quantize::kQ5_1);
  EXPECT_EQ(recipe.For("model.layers.1.mlp.down_proj", false), Quantize::kF16);
  EXPECT_THROW(Parse({"--keep", "nothing=bf16"}), Error);
  EXPECT_THROW(Parse({"--keep", "*down_proj"}), Error);
}

TEST(ComputeFlagsTest, Int8SaysWhatItNeedsWhatWasAskedAndWhatWorks) {
  const auto [code, message] =
      Refusal(AddPlan, {"--model", kModel, "--compute", "int8", "--isa", "baseline"});
  EXPECT_EQ(code, ExitCode::kUsage);
  EXPECT_TRUE(message.starts_with("--compute int8: needs AVX-512 with BF16 and VNNI, ")) << message;
  EXPECT_NE(message.find("--compute f32"), std::string::npos) << message;
  const cpu::Isa best = cpu::BestIsa();
  if (best != cpu::Isa::kBaseline) {
    EXPECT_NE(message.find("--isa baseline was given"), std::string::npos) << message;
  }
  // What is advised works.
  const bool bf16 = best == cpu::Isa::kAvx512Bf16;
  EXPECT_EQ(message.find("without --isa") != std::string::npos, bf16) << message;
  EXPECT_EQ(message.find("--compute bf16 work") != std::string::npos, bf16) << message;
  EXPECT_EQ(Refusal(AddPlan, {"--model", kModel, "--compute", bf16 ? "bf16" : "f32"}).first, ExitCode::kDone);
}

class FormatsTest : public FolderTest {};

TEST_F(FormatsTest, PlansShowBytesByFormat) {
  const auto weights = [](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"--model", kModel, "--compute", "f32"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const std::string plan = RunVerb(AddPlan, arguments);
    const size_t begin = plan.find("  weights");
    return plan.substr(begin, plan.find('\n', begin) - begin);
  };
  const std::string mixed =
      weights({"--quantize", "q4_0", "--quantize-embeddings", "q8_0", "--keep", "model.layers.0.*=bf16"});
  for (const char* format : {"q4_0", "q8_0", "bf16", "f32"}) {
    EXPECT_NE(mixed.find(std::string(format) + " "), std::string::npos) << mixed;
  }
  EXPECT_EQ(weights({}).find("q8_0"), std::string::npos);
}

json Inspected(const std::string& path) {
  return json::parse(RunVerb(AddInspect, {path, "--json", "--tensors"}));
}

TEST_F(FormatsTest, InspectCountsAPackedMatrixOnce) {
  struct Case {
    const char *kind, *format, *tensor;
    std::vector<int64_t> shape;
  };
  const Case cases[] = {{"gptq", "int4", "model.layers.0.mlp.down_proj.qweight", {32, 64}},
                        {"awq", "int4", "model.layers.0.mlp.down_proj.qweight", {32, 64}},
                        {"fp8_tiles", "f8_e4m3", "model.layers.0.mlp.down_proj.weight", {32, 64}},
                        {"fp8_tensor", "f8_e4m3", "model.layers.0.mlp.down_proj.weight", {32, 64}},
                        {"fp4_double", "fp4", "model.layers.0.self_attn.k_proj.weight", {1024}},
                        {"nf4", "nf4-single", "model.layers.0.self_attn.k_proj.weight", {1024}}};
  for (const Case& c : cases) {
    const json found = Inspected(std::string("tests/data/quantized/") + c.kind);
    EXPECT_EQ(found["formats"][c.format]["tensors"], 7) << c.kind;
    EXPECT_TRUE(found["formats"][c.format]["supported"]);
    EXPECT_EQ(found["tensors"].size(), 7u + 4u) << c.kind;
    bool seen = false;
    for (const json& tensor : found["tensors"]) {
      if (tensor["name"] != c.tensor) continue;
      seen = true;
      EXPECT_EQ(tensor["format"], c.format);
      EXPECT_EQ(tensor["shape"], c.shape);
    }
    EXPECT_TRUE(seen) << c.kind;
    // The embedding, three norms, and what the layers' numbers are, however they are packed.
    const int64_t C = found["shapes"]["hidden_size"], F = found["shapes"]["mlp_size"];
    const int64_t kv =
        found["shapes"]["kv_heads"].get<int64_t>() * found["shapes"]["head_size"].get<int64_t>();
    EXPECT_EQ(found["parameters"], 32 * C + 3 * C + 2 * C * C + 2 * kv * C + 3 * C * F) << c.kind;
  }
}

TEST_F(FormatsTest, InspectShowsWhatIsNotReadAsFarAsItGoes) {
  std::filesystem::copy("tests/data/quantized/gptq", folder_ / "hqq");
  json config = json::parse(ReadTextFile(folder_ / "hqq/config.json", 1 << 20).OrThrow());
  config["quantization_config"]["quant_method"] = "hqq";
  Write("hqq/config.json", config.dump());
  const json found = Inspected((folder_ / "hqq").string());
  EXPECT_FALSE(found["formats"]["i32"]["supported"]);
  const std::string reasons = found["not_supported"].dump();
  EXPECT_NE(reasons.find("hqq"), std::string::npos) << reasons;
  EXPECT_NE(reasons.find("gptq and awq with 4 bits"), std::string::npos) << reasons;
}

}  // namespace
}  // namespace rung::cli
