// The formats of a frozen model's weights: as loading makes them, beside an adapter, and what is said where
// they differ.
#include "model/base_formats.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "io/json_file.h"
#include "model/adapter_file.h"
#include "model/test_support.h"

namespace rung::model {
namespace {

using nlohmann::json;
using Blocks = std::map<std::string, int64_t>;

const Path kTiny = "tests/data/models/tinystories-656k";  // 2 layers of 7 matrices, a tied head, F32

BaseFormats FormatsOf(const Path& model, const Recipe& recipe) {
  BackboneOptions options;
  options.recipe = recipe;
  options.positions = 8;
  return Backbone::Load(model, options).OrThrow().formats();
}

TEST(BaseFormats, AreWhatLoadingMakes) {
  const BaseFormats plain = FormatsOf(kTiny, {Quantize::kNone, Quantize::kNone, {}});
  EXPECT_EQ(plain.blocks, (Blocks{{"f32", 14}}));
  EXPECT_EQ(plain.embedding, "f32");
  EXPECT_EQ(plain.head, "");
  const BaseFormats mixed =
      FormatsOf(kTiny, {Quantize::kNf4, Quantize::kQ8_0, {{"model.layers.1.*", Quantize::kNf4Single}}});
  EXPECT_EQ(mixed.blocks, (Blocks{{"nf4", 7}, {"nf4-single", 7}}));
  EXPECT_EQ(mixed.embedding, "q8_0");
  EXPECT_EQ(WithoutScaleLevels(mixed).blocks, (Blocks{{"nf4", 14}}));
  // A file has its own.
  const BaseFormats gguf = FormatsOf("tests/data/families/gpt_neox.gguf", {});
  EXPECT_EQ(gguf.blocks.size(), 1u);
  EXPECT_NE(gguf.head, "");
}

TEST(BaseFormats, OfHeadersAloneAreTheSameButForLevelsOfScales) {
  BackboneOptions options;
  options.recipe = {Quantize::kNf4Single, Quantize::kBf16, {{"*.q_proj", Quantize::kQ8_0}}};
  const BaseFormats loaded = FormatsOf(kTiny, options.recipe);
  EXPECT_EQ(Backbone::PlannedFrom(kTiny, options).OrThrow().formats(), WithoutScaleLevels(loaded));
  EXPECT_NE(loaded, WithoutScaleLevels(loaded));
}

TEST(BaseFormats, ADifferenceIsSaidByName) {
  const auto formats = [](Quantize matrices, Quantize embeddings, const char* kept = "") {
    Recipe recipe{matrices, embeddings, {}};
    if (*kept) recipe.patterns.emplace_back(kept, Quantize::kBf16);
    return FormatsOf(kTiny, recipe);
  };
  const BaseFormats nf4 = formats(Quantize::kNf4, Quantize::kNone);
  const BaseFormats bf16 = formats(Quantize::kBf16, Quantize::kNone);
  EXPECT_EQ(Difference(nf4, nf4), "");
  EXPECT_EQ(Difference(nf4, bf16), "the blocks were in nf4, here they are in bf16");
  EXPECT_EQ(Difference(nf4, formats(Quantize::kNf4, Quantize::kQ8_0)),
            "the embedding was in f32, here it is in q8_0");
  EXPECT_EQ(Difference(formats(Quantize::kNf4, Quantize::kNone, "*.1.mlp.*"), nf4),
            "the blocks were in bf16 (3 matrices), nf4 (11 matrices), here they are in nf4");
  // As many of them, elsewhere.
  EXPECT_EQ(Difference(formats(Quantize::kNf4, Quantize::kNone, "*.1.mlp.*"),
                       formats(Quantize::kNf4, Quantize::kNone, "*.0.mlp.*")),
            "the formats of the blocks, bf16 (3 matrices), nf4 (11 matrices), were those of other matrices");
  // Not quantised either way, or not known.
  EXPECT_EQ(Difference(formats(Quantize::kNone, Quantize::kF16), bf16), "");
  EXPECT_EQ(Difference({}, bf16), "");
  EXPECT_EQ(Difference(nf4, {}), "");
  BaseFormats headed = nf4;
  headed.head = "q6_k";
  EXPECT_EQ(Difference(nf4, headed), "the head was the embedding, here it is in q6_k");
}

class BaseFormatsFileTest : public testing::TestWithParam<bool> {
 protected:
  BaseFormatsFileTest() : folder_(Path(testing::TempDir()) / "rung_base_formats") {
    std::filesystem::remove_all(folder_);
  }
  ~BaseFormatsFileTest() override { std::filesystem::remove_all(folder_); }
  // A ladder, or pairs, that were trained beside `formats`.
  void Save(const BaseFormats& formats) const {
    AdapterSpec spec;
    if (GetParam()) {
      spec.ladder.emplace();
      spec.ladder->taps = {0};
      spec.ladder->rungs = 1;
      spec.ladder->S = spec.ladder->F = spec.ladder->head_dim = 16;
      spec.ladder->heads = spec.ladder->kv_heads = 1;
    } else {
      spec.lora = LoraSpec{2, 4.0, 0.0, false, {"q_proj"}, {0, 1}};
    }
    AdapterOrigin origin;
    origin.base_formats = formats;
    SaveAdapter(folder_, Adapter::Make(config_, spec, 1, false, 8), config_, origin).OrThrow();
  }
  Path file() const { return folder_ / (GetParam() ? "adapter_config.json" : "rung_adapter.json"); }

  Path folder_;
  Config config_ = ReadConfig(kTiny).OrThrow();
};

TEST_P(BaseFormatsFileTest, AreReadBack) {
  const BaseFormats mixed =
      FormatsOf(kTiny, {Quantize::kNf4, Quantize::kQ8_0, {{"model.layers.1.*", Quantize::kNf4Single}}});
  BaseFormats headed = mixed;
  headed.head = "bf16";
  for (const BaseFormats& formats : {mixed, headed, BaseFormats{}}) {
    Save(formats);
    EXPECT_EQ(ReadAdapterInfo(folder_, config_).OrThrow().base_formats, formats);
    EXPECT_EQ(io::ReadJson(file()).OrThrow().contains("base_weights"), !formats.empty());
  }
}

TEST_P(BaseFormatsFileTest, OtherTypesAreRefusedByKey) {
  const BaseFormats formats = FormatsOf(kTiny, {});
  const std::pair<const char*, json> wrong[] = {{"blocks", json::object({{"nf4", "many"}})},
                                                {"blocks", 7},
                                                {"embedding", nullptr},
                                                {"digest", 1},
                                                {"head", json::array()}};
  for (const auto& [key, value] : wrong) {
    Save(formats);
    json object = io::ReadJson(file()).OrThrow();
    object["base_weights"][key] = value;
    WriteTextFile(file(), object.dump()).OrThrow();
    const Result<AdapterInfo> read = ReadAdapterInfo(folder_, config_);
    ASSERT_FALSE(read.ok()) << key << value;
    EXPECT_NE(read.failure().message.find(std::string("base_weights: \"") + key), std::string::npos)
        << read.failure().message;
  }
  Save(formats);
  json object = io::ReadJson(file()).OrThrow();
  object["base_weights"] = "nf4";
  WriteTextFile(file(), object.dump()).OrThrow();
  EXPECT_FALSE(ReadAdapterInfo(folder_, config_).ok());
}

INSTANTIATE_TEST_SUITE_P(LadderAndPairs, BaseFormatsFileTest, testing::Bool());

}  // namespace
}  // namespace rung::model
