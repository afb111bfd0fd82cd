// Names and targets of low-rank pairs in every family, as PEFT has them.
#include "model/lora.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "model/adapter.h"
#include "model/forward.h"
#include "model/lora_file.h"
#include "model/shapes.h"
#include "model/test_support.h"

namespace rung::model {
namespace {

constexpr const char* kFamilies[] = {"llama3",        "qwen3", "smollm3", "granite", "olmo2",
                                     "phi3",          "gemma", "gemma2",  "gemma3",  "opt",
                                     "gemma3_images", "gpt2",  "gpt_neox"};

Config ConfigOf(const std::string& family) { return ReadConfig("tests/data/families/" + family).OrThrow(); }

TEST(Lora, TargetsHavePeftsNames) {
  const auto targets = [](const char* family) { return LoraTargets(ConfigOf(family)); };
  using Words = std::vector<std::string>;
  EXPECT_EQ(targets("opt"), (Words{"q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"}));
  EXPECT_EQ(targets("gpt2"), (Words{"c_attn", "attn.c_proj", "c_fc", "mlp.c_proj"}));
  EXPECT_EQ(targets("gpt_neox"), (Words{"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}));
  EXPECT_EQ(targets("phi3"), (Words{"qkv_proj", "o_proj", "gate_up_proj", "down_proj"}));
  const Config gpt2 = ConfigOf("gpt2");
  EXPECT_EQ(ParseTargets("c_proj", gpt2).OrThrow(), (Words{"attn.c_proj", "mlp.c_proj"}));
  EXPECT_EQ(ParseTargets("mlp.c_proj, c_attn", gpt2).OrThrow(), (Words{"c_attn", "mlp.c_proj"}));
  const Result<Words> wrong = ParseTargets("q_proj", gpt2);
  ASSERT_FALSE(wrong.ok());
  EXPECT_NE(wrong.failure().message.find("c_attn"), std::string::npos) << wrong.failure().message;
}

TEST(Lora, EveryFamilysPairsAreReadBack) {
  for (const char* family : kFamilies) {
    const Config config = ConfigOf(family);
    LoraSpec spec{4, 8.0, 0.0, false, LoraTargets(config), {0, config.L - 1}};
    for (int part = 0; part < 2; ++part) {
      LoraSet pairs(config, spec);
      std::vector<std::string> names;
      pairs.ForEachParam([&](nn::Param& param) { names.push_back(param.name); });
      const std::string text = PeftConfigText(spec, config, "");
      const Result<PeftAdapter> read =
          ParsePeftAdapter(text, "adapter_config.json", names, "adapter_model.safetensors");
      ASSERT_TRUE(read.ok()) << family << ": " << read.failure().message;
      EXPECT_EQ(read.value().spec.targets, spec.targets) << family;
      EXPECT_EQ(read.value().spec.layers, spec.layers) << family;
      EXPECT_EQ(text.find("\"fan_in_fan_out\": true") != std::string::npos, config.family == "gpt2");
      spec.targets.erase(spec.targets.begin());
    }
  }
}

TEST(Lora, PairsOfTwoFamiliesInOneFileAreRefused) {
  const std::vector<std::string> names = {"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight",
                                          "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"};
  const Result<PeftAdapter> read =
      ParsePeftAdapter("{}", "adapter_config.json", names, "adapter_model.safetensors");
  ASSERT_FALSE(read.ok());
  EXPECT_NE(read.failure().message.find("no low-rank pair"), std::string::npos) << read.failure().message;
}

// What a pass with these pairs gives.
std::vector<float> StatesOf(const Backbone& backbone, const Adapter& adapter) {
  std::vector<int32_t> ids(12), all(12);
  std::iota(ids.begin(), ids.end(), 3);
  std::iota(all.begin(), all.end(), 0);
  const PackedRows rows({0, 12});
  const PassInput input{View(ids.data(), 1, 12), rows.layout, View(all.data(), 1, 12)};
  std::vector<float> z(static_cast<size_t>(12 * backbone.config().C));
  PlanAndRun({cpu::BestIsa(), 1}, DType::kF32, [&](Exec& ex) {
    Pass pass(ex, backbone, &adapter, input, false, {});
    pass.Forward(Out{View(z.data(), 12, backbone.config().C)});
  });
  return z;
}

// A file's pairs beside a folder and beside the GGUF twin, whose rows stand in another order.
TEST(Lora, RowsOfFilesFitBothKindsOfModels) {
  for (const std::string family : {"llama3", "smollm3", "gpt_neox"}) {
    BackboneOptions options;
    options.recipe.matrices = Quantize::kNone;
    options.positions = 64;
    const Backbone folder = Backbone::Load("tests/data/families/" + family, options).OrThrow();
    const Backbone gguf = Backbone::Load("tests/data/families/" + family + ".gguf", options).OrThrow();
    AdapterSpec spec;
    spec.lora = LoraSpec{4, 8.0, 0.0, false, LoraTargets(folder.config()), {0, 1}};
    const Adapter stored = Adapter::Make(folder.config(), spec, 5, false, 64);
    std::map<std::string, Tensor> values;
    stored.ForEachParam([&](nn::Param& param) {
      float* value = Out{param.value}.as<float>();
      for (int64_t i = 0; i < param.value.size(); ++i) value[i] += 0.1f * static_cast<float>(i * 7 % 11 - 5);
      values[param.name] = param.value;
    });
    const Adapter moved = Adapter::Make(gguf.config(), spec, 6, false, 64);
    bool moves = false;
    moved.ForEachParam([&](nn::Param& param) {
      const Tensor& from = values.at(param.name);
      for (int64_t row = 0; row < param.value.rows(); ++row) {
        const int64_t file_row = moved.lora()->FileRow(param.name, row);
        moves = moves || file_row != row;
        std::copy_n(In(from).as<float>() + file_row * from.cols(), from.cols(),
                    Out{param.value}.as<float>() + row * from.cols());
      }
    });
    EXPECT_TRUE(moves) << family;
    EXPECT_LE(RelativeError(StatesOf(gguf, moved), StatesOf(folder, stored)), 1e-5) << family;
  }
}

TEST(ModelTensor, FolderPlaceTurnsPairsIntoHalves) {
  // Head 1 of width 6: rows 6..11; pairs (0,3), (1,4), (2,5) of a half-split head stand next to each other.
  ModelTensor rows;
  rows.pairs = 6;
  const int64_t want[] = {6, 9, 7, 10, 8, 11};
  for (int64_t row = 6; row < 12; ++row) {
    EXPECT_EQ(rows.FolderPlace(row), want[row - 6]);
    EXPECT_EQ(rows.GgufPlace(rows.FolderPlace(row)), row);
  }
}

}  // namespace
}  // namespace rung::model
