// The shapes of published models, held against their published counts and their own config.json.
#include "model/shapes.h"

#include <gtest/gtest.h>

#include <functional>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "model/backbone.h"

namespace rung::model {
namespace {

// Parameters as the model cards and the checkpoints' headers give them.
struct Count {
  const char* name;
  double parameters;
};
constexpr Count kPublished[] = {
    {"qwen2.5-0.5b", 0.494e9}, {"qwen2.5-1.5b", 1.54e9}, {"qwen2.5-3b", 3.09e9},   {"qwen2.5-7b", 7.62e9},
    {"qwen2.5-14b", 14.8e9},   {"llama-3.2-1b", 1.24e9}, {"llama-3.2-3b", 3.21e9}, {"llama-3.1-8b", 8.03e9},
    {"llama-3.1-70b", 70.6e9}, {"opt-1.3b", 1.32e9},     {"opt-6.7b", 6.66e9},     {"opt-350m", 0.331e9},
    {"smollm2-135m", 135e6},   {"smollm2-360m", 362e6},  {"smollm2-1.7b", 1.71e9}, {"gemma-2-2b", 2.61e9},
    {"gemma-3-1b", 1.00e9},    {"phi-3-mini", 3.82e9},   {"phi-4-mini", 3.84e9},   {"olmo-2-7b", 7.30e9},
    {"pythia-1.4b", 1.41e9}};

// Three digits, as a text.
std::string Rounded(double count) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g", count);
  return text;
}

TEST(Shapes, CountsAreThePublishedOnes) {
  EXPECT_EQ(ShapeNames().size(), std::size(kPublished));
  for (const Count& published : kPublished) {
    const Config config = ShapeOf(published.name).OrThrow();
    EXPECT_EQ(Rounded(static_cast<double>(config.parameter_count())), Rounded(published.parameters))
        << published.name;
    EXPECT_EQ(config.name, published.name);
    EXPECT_EQ(config.Hq % config.Hkv, 0) << published.name;
  }
}

// Sums of the sizes in the checkpoints' own headers.
TEST(Shapes, CountsToTheLastParameter) {
  const auto count = [](const char* name) { return ShapeOf(name).OrThrow().parameter_count(); };
  EXPECT_EQ(count("qwen2.5-0.5b"), 494'032'768);
  EXPECT_EQ(count("qwen2.5-7b"), 7'615'616'512);
  EXPECT_EQ(count("llama-3.2-1b"), 1'235'814'400);
  EXPECT_EQ(count("llama-3.1-8b"), 8'030'261'248);
  EXPECT_EQ(count("llama-3.1-70b"), 70'553'706'496);
  EXPECT_EQ(count("opt-1.3b"), 1'315'758'080);
  EXPECT_EQ(count("opt-6.7b"), 6'658'473'984);
  EXPECT_EQ(count("opt-350m"), 331'196'416);
  EXPECT_EQ(count("smollm2-135m"), 134'515'008);
  EXPECT_EQ(count("gemma-2-2b"), 2'614'341'888);
  EXPECT_EQ(count("gemma-3-1b"), 999'885'952);
  EXPECT_EQ(count("phi-3-mini"), 3'821'079'552);
  EXPECT_EQ(count("phi-4-mini"), 3'836'021'760);
  EXPECT_EQ(count("pythia-1.4b"), 1'414'647'808);
}

TEST(Shapes, NamesInAnyCaseAndTheNearestOfAWrongOne) {
  EXPECT_EQ(ShapeOf("Qwen2.5-7B").OrThrow(), ShapeOf("qwen2.5-7b").OrThrow());
  const Result<Config> wrong = ShapeOf("Qwen2.5-7");
  ASSERT_FALSE(wrong.ok());
  EXPECT_EQ(wrong.failure().code, ExitCode::kUsage);
  EXPECT_NE(wrong.failure().message.find("did you mean qwen2.5-7b?"), std::string::npos)
      << wrong.failure().message;
  for (const std::string& name : ShapeNames()) {
    EXPECT_NE(wrong.failure().message.find(name), std::string::npos) << name;
  }
  const Result<Config> far = ShapeOf("something else");
  ASSERT_FALSE(far.ok());
  EXPECT_EQ(far.failure().message.find("did you mean"), std::string::npos) << far.failure().message;
}

TEST(Shapes, HuggingFaceIds) {
  const std::pair<const char*, const char*> rows[] = {
      {"Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b"},
      {"Qwen/Qwen2.5-0.5B", "qwen2.5-0.5b"},
      {"meta-llama/Llama-3.1-8B", "llama-3.1-8b"},
      {"meta-llama/Meta-Llama-3.1-8B", "llama-3.1-8b"},
      {"meta-llama/Meta-Llama-3.1-70B-Instruct", "llama-3.1-70b"},
      {"facebook/opt-1.3b", "opt-1.3b"},
      {"Llama-3.2-1B-Chat-hf", "llama-3.2-1b"},
      {"Qwen2.5-3B-Base", "qwen2.5-3b"}};
  for (const auto& [id, name] : rows) {
    Result<Config> found = ShapeOf(id);
    ASSERT_TRUE(found.ok()) << id << ": " << found.failure().message;
    EXPECT_EQ(found.value().name, name) << id;
  }
  for (const char* wrong : {"", "/", "-instruct", "Qwen/", "Qwen2.5-7B-Instruct/x"}) {
    EXPECT_FALSE(ShapeOf(wrong).ok()) << wrong;
  }
  const Result<Config> near = ShapeOf("Qwen/Qwen2.5-8B-Instruct");
  ASSERT_FALSE(near.ok());
  EXPECT_NE(near.failure().message.find("did you mean qwen2.5-"), std::string::npos)
      << near.failure().message;
}

TEST(Shapes, ConfigJsonIsReadBack) {
  EXPECT_EQ(ShapeNames().size(), 21u);
  for (const std::string& name : ShapeNames()) {
    const Config config = ShapeOf(name).OrThrow();
    const std::string text = HfConfigJson(config).OrThrow();
    EXPECT_EQ(ParseHfConfig(text, name).OrThrow(), config) << text;
  }
}

TEST(Shapes, ConfigJsonOfWhatOtherFilesSay) {
  for (const char* family :
       {"llama2",     "llama3",         "mistral", "qwen2",         "qwen3", "smollm2",  "mistral_window",
        "qwen2_yarn", "qwen3_yarn",     "smollm3", "granite",       "olmo2", "phi3",     "phi3_long",
        "gemma",      "gemma2",         "gemma3",  "gemma3_images", "opt",   "opt_350m", "gpt2",
        "gpt_neox",   "gpt_neox_serial"}) {
    const Config config = ReadConfig(Path("tests/data/families") / family).OrThrow();
    const std::string text = HfConfigJson(config).OrThrow();
    EXPECT_EQ(ParseHfConfig(text, family).OrThrow(), config) << text;
  }
  Config config = ShapeOf("qwen2.5-0.5b").OrThrow();
  config.window = 4096;
  config.rope.scaling = RopeScaling::kLinear;
  config.rope.factor = 2.5;
  EXPECT_EQ(ParseHfConfig(HfConfigJson(config).OrThrow(), "qwen2").OrThrow(), config);
  config = ReadConfig("tests/data/families/mistral").OrThrow();
  config.window = 0;
  EXPECT_EQ(ParseHfConfig(HfConfigJson(config).OrThrow(), "mistral").OrThrow(), config);
}

// What GGUF files can say and the family's config.json cannot: refused by name, never written otherwise.
TEST(Shapes, ConfigJsonRefusesWhatItHasNoWordsFor) {
  const auto refusal = [](const char* family, const std::function<void(Config*)>& change) {
    Config config = ReadConfig(Path("tests/data/families") / family).OrThrow();
    change(&config);
    const Result<std::string> text = HfConfigJson(config);
    return text.ok() ? "not refused" : text.failure().message;
  };
  EXPECT_EQ(refusal("olmo2", [](Config* c) { c->window = 8; }),
            "config.json of olmo2 has no words for an attention window of 8 tokens");
  const std::string heads = "has no words for ";
  EXPECT_NE(refusal("gpt2", [](Config* c) { c->Hkv = 1; }).find(heads + "4 heads, 1 for keys and values"),
            std::string::npos);
  EXPECT_NE(refusal("gpt_neox", [](Config* c) { c->D = 8; }).find(", 8 wide, of a hidden size of"),
            std::string::npos);
  const auto divide = [](Config* c) {
    c->rope.divisors.assign(static_cast<size_t>(c->rotary() / 2), 2.0f);
    c->rope.scaling = RopeScaling::kLinear;
  };
  EXPECT_NE(refusal("smollm2", divide).find("(rope_freqs.weight) beside another scaling"), std::string::npos);
  EXPECT_EQ(refusal("smollm2", [](Config* c) { c->family = "something"; }),
            "config.json: something is not known");
}

TEST(Shapes, ALlamaWithAWindowIsAMistral) {
  Config config = ReadConfig("tests/data/families/smollm2").OrThrow();
  ASSERT_EQ(config.family, "llama");
  config.window = 8;
  const Config got = ParseHfConfig(HfConfigJson(config).OrThrow(), "x").OrThrow();
  EXPECT_EQ(got.family, "mistral");
  EXPECT_EQ(got.window, 8);
  EXPECT_EQ(got.rope, config.rope);
}

TEST(Shapes, NumbersAreWrittenAsPeopleWriteThem) {
  const nlohmann::json json =
      nlohmann::json::parse(HfConfigJson(ShapeOf("llama-3.1-8b").OrThrow()).OrThrow());
  EXPECT_EQ(json["rms_norm_eps"].dump(), "1e-05");
  EXPECT_EQ(json["architectures"], nlohmann::json::array({"LlamaForCausalLM"}));
  EXPECT_EQ(json["rope_scaling"]["original_max_position_embeddings"].dump(), "8192");
}

TEST(Shapes, PresetsHaveTheSwitchesOfTheirFamily) {
  const Config opt = ShapeOf("opt-1.3b").OrThrow();
  EXPECT_FALSE(opt.block(0).gated);
  EXPECT_EQ(opt.block(0).activation, cpu::Activation::kRelu);
}

// A plan of a shape counts the weights that a 16-bit folder of it has: two bytes a weight of matrices, four
// of norms and biases.
TEST(Shapes, PlannedBackboneHasTheWeights) {
  for (const char* name :
       {"qwen2.5-7b", "llama-3.2-1b", "gemma-3-1b", "phi-3-mini", "olmo-2-7b", "pythia-1.4b", "opt-350m"}) {
    const Config config = ShapeOf(name).OrThrow();
    BackboneOptions options;
    options.recipe.matrices = Quantize::kNone;
    options.positions = 16;
    const Backbone backbone = Backbone::Planned(config, options).OrThrow();
    const WeightTotals& totals = backbone.weight_totals();
    EXPECT_EQ(totals.bytes.at("bf16") / 2 + totals.bytes.at("f32") / 4,
              static_cast<uint64_t>(config.parameter_count()))
        << name;
  }
}

}  // namespace
}  // namespace rung::model
