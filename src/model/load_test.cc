// What loading refuses, and plans: by headers alone the same bytes as loading.
#include <gtest/gtest.h>

#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "io/json_file.h"
#include "model/folder_weights.h"
#include "model/model.h"
#include "model/test_support.h"

namespace rung::model {
namespace {

using nlohmann::json;

const Path kTiny = "tests/data/models/tinystories-656k";
const Path kStories = "tests/data/models/stories260k/stories260K.gguf";

class LoadTest : public testing::Test {
 protected:
  LoadTest() {
    folder_ = Path(testing::TempDir()) /
              (std::string("rung_load_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~LoadTest() override { std::filesystem::remove_all(folder_); }

  template <class T>
  static std::string MessageOf(const Result<T>& result, ExitCode code = ExitCode::kBadInput) {
    EXPECT_FALSE(result.ok());
    if (result.ok()) return "";
    EXPECT_EQ(result.failure().code, code) << result.failure().message;
    return result.failure().message;
  }

  Path folder_;
};

#define EXPECT_SAYS(message, words) \
  EXPECT_NE((message).find(words), std::string::npos) << "no \"" << (words) << "\" in: " << (message)

TEST_F(LoadTest, ATokenizerWithIdsBeyondTheModelIsRefused) {
  const int64_t ids = LoadText(kTiny, true, "", 1 << 24).OrThrow().tokenizer.vocab_size();
  EXPECT_TRUE(LoadText(kTiny, true, "", ids).ok());
  EXPECT_TRUE(LoadText(kTiny, true, "", ids + 100).ok()) << "a model's table may be larger";
  const std::string message = MessageOf(LoadText(kTiny, true, "", ids - 1));
  EXPECT_SAYS(message, std::to_string(ids - 1));
  EXPECT_SAYS(message, kTiny.string());
  EXPECT_SAYS(MessageOf(LoadText(kStories, true, "", 300)), "is 300");
}

TEST_F(LoadTest, SequencesBeyondTheContextAreRefused) {
  for (const Path& path : {kTiny, kStories}) {
    BackboneOptions options;
    options.positions = ReadConfig(path).OrThrow().context;
    EXPECT_TRUE(Backbone::Load(path, options).ok());
    ++options.positions;
    EXPECT_SAYS(MessageOf(Backbone::Load(path, options), ExitCode::kUsage),
                "positions: the model was made for");
    EXPECT_SAYS(MessageOf(Backbone::PlannedFrom(path, options), ExitCode::kUsage),
                "positions: the model was made for");
  }
}

TEST_F(LoadTest, ImpossibleExtentsAreRefused) {
  const json good = io::ReadJson(kTiny / "config.json").OrThrow();
  ASSERT_TRUE(ParseHfConfig(good.dump(), "c").ok());
  const std::vector<std::pair<const char*, int64_t>> beyond = {{"num_hidden_layers", 1025},
                                                               {"num_hidden_layers", 1 << 20},
                                                               {"hidden_size", (1 << 20) + 2},
                                                               {"intermediate_size", (1 << 20) + 2},
                                                               {"head_dim", 4098},
                                                               {"vocab_size", (1 << 24) + 1},
                                                               {"max_position_embeddings", (1 << 24) + 1}};
  for (const auto& [key, value] : beyond) {
    json lying = good;
    lying[key] = value;
    EXPECT_SAYS(MessageOf(ParseHfConfig(lying.dump(), "c")), std::to_string(value));
  }
}

TEST_F(LoadTest, PlansTakeNoMemoryForWeights) {
  Config config = ReadConfig(kTiny).OrThrow();
  config.L = 1024;
  config.C = config.F = 1 << 20;
  config.context = 1 << 24;
  const Backbone planned = Backbone::Planned(config, {}).OrThrow();
  EXPECT_TRUE(planned.planned());
  EXPECT_EQ(planned.block(0).attention_norm.gain.value.data, nullptr);
  EXPECT_EQ(planned.rope(0).cos.data, nullptr);
  EXPECT_EQ(planned.positions(), config.context);
  EXPECT_GT(planned.weight_totals().total, uint64_t{1} << 50);
}

TEST_F(LoadTest, PlannedTotalsAreThoseOfLoading) {
  for (const std::string& path :
       {kTiny.string(), kStories.string(), std::string("tests/data/families/qwen2"),
        std::string("tests/data/families/qwen3"), std::string("tests/data/families/mistral")}) {
    for (const Quantize quantize :
         {Quantize::kNone, Quantize::kNf4, Quantize::kNf4Single, Quantize::kQ8_0, Quantize::kF16}) {
      for (const bool embeddings : {false, true}) {
        BackboneOptions options;
        options.recipe.matrices = quantize;
        if (embeddings) options.recipe.embeddings = quantize;
        options.positions = 32;
        const Backbone loaded = Backbone::Load(path, options).OrThrow();
        const Backbone planned = Backbone::PlannedFrom(path, options).OrThrow();
        EXPECT_EQ(planned.weight_totals().bytes, loaded.weight_totals().bytes) << path;
        EXPECT_EQ(planned.head().format, loaded.head().format) << path;
        EXPECT_EQ(planned.planned(), path != kStories);
        EXPECT_FALSE(loaded.planned());
      }
    }
  }
}

TEST_F(LoadTest, AConfigAloneIsPlanned) {
  std::filesystem::copy_file(kTiny / "config.json", folder_ / "config.json");
  for (const Path& path : {folder_, folder_ / "config.json"}) {
    EXPECT_TRUE(Backbone::PlannedFrom(path, {}).OrThrow().planned());
  }
}

// A planned step's memory follows from shapes: headers, config and weights agree.
TEST_F(LoadTest, PlannedBackbonesPlanTheSameStep) {
  BackboneOptions options;
  options.recipe.matrices = Quantize::kNf4;
  const auto peak = [](const Backbone& backbone) {
    std::vector<int32_t> ids(24, 1);
    const PackedRows rows({0, 24});
    Exec ex = Exec::Planning({cpu::BestIsa(), 2}, DType::kF32);
    Frame frame(ex.arena());
    const Tensor x = ex.arena().Scratch(DType::kF32, 24, backbone.config().C, Use::kBackbone, "x");
    backbone.Forward(ex, View(ids.data(), 1, 24), rows.layout, backbone.config().L, Out{x}, nullptr);
    return ex.arena().peak().bytes;
  };
  const size_t loaded = peak(Backbone::Load("tests/data/families/qwen2", options).OrThrow());
  EXPECT_EQ(peak(Backbone::PlannedFrom("tests/data/families/qwen2", options).OrThrow()), loaded);
  EXPECT_EQ(peak(Backbone::PlannedFrom("tests/data/families/qwen2/config.json", options).OrThrow()), loaded);
}

// One NF4 tensor "w.weight" (2,64) whose description is `state`.
Status ReadNf4With(const Path& folder, const std::string& state, bool nested) {
  const std::vector<std::byte> codes(64), bytes(4 * 256);
  const std::span<const std::byte> all(bytes);
  std::vector<io::TensorToWrite> tensors = {{"w.weight.quant_map", "F32", {16}, all.first(64)},
                                            {"w.weight", "U8", {64, 1}, codes},
                                            {"w.weight.quant_state.bitsandbytes__nf4",
                                             "U8",
                                             {static_cast<int64_t>(state.size())},
                                             std::as_bytes(std::span(state))}};
  if (nested) {
    tensors.insert(tensors.begin(), {{"w.weight.nested_absmax", "F32", {1}, all.first(4)},
                                     {"w.weight.nested_quant_map", "F32", {256}, all}});
    tensors.push_back({"w.weight.absmax", "U8", {2}, all.first(2)});
  } else {
    tensors.insert(tensors.begin(), {"w.weight.absmax", "F32", {2}, all.first(8)});
  }
  if (Status written = io::WriteSafetensors(folder / "model.safetensors", tensors, {}); !written.ok()) {
    return written;
  }
  FolderSource source(io::Safetensors::OpenFolder(folder).OrThrow());
  Result<format::Matrix> read = source.ReadMatrix("w", 2, 64, Quantize::kNone);
  if (!read.ok()) return read.failure();
  return Ok{};
}

TEST_F(LoadTest, DescriptionsOfNf4AreCheckedFieldByField) {
  const json good = {{"quant_type", "nf4"},     {"blocksize", 64},      {"shape", {2, 64}},
                     {"nested_blocksize", 256}, {"nested_offset", 0.5}, {"nested_dtype", "float32"}};
  for (const bool nested : {false, true}) {
    const Status read = ReadNf4With(folder_, good.dump(), nested);
    EXPECT_TRUE(read.ok()) << read.failure().message;
    for (const auto& [key, value] : good.items()) {
      if (key == "nested_dtype" || (!nested && key.starts_with("nested"))) continue;
      for (const json& wrong :
           {json(nullptr), json("seven"), json(7.5), json::array({"a"}), json::object()}) {
        if (key == "nested_offset" && wrong.is_number()) continue;
        json fields = good;
        fields[key] = wrong;
        EXPECT_SAYS(MessageOf(ReadNf4With(folder_, fields.dump(), nested)), "w.weight.quant_state");
      }
    }
    if (nested) {
      json fields = good;
      fields["nested_offset"] = 1e300;  // infinite as f32
      EXPECT_SAYS(MessageOf(ReadNf4With(folder_, fields.dump(), nested)),
                  "nested_offset 1e+300 is no finite");
    }
    for (const char* text : {"[]", "7", "{", "\"nf4\"", "{\"quant_type\": \"\xff\"}"}) {
      EXPECT_SAYS(MessageOf(ReadNf4With(folder_, text, nested)), "w.weight.quant_state");
    }
  }
}

TEST_F(LoadTest, GgufIsKnownByItsMagic) {
  const Path renamed = folder_ / "weights.bin";
  std::filesystem::copy_file(kStories, renamed);
  EXPECT_TRUE(IsGgufFile(renamed));
  const Config config = ReadConfig(renamed).OrThrow();
  EXPECT_EQ(config.C, 64);
  EXPECT_TRUE(Backbone::Load(renamed, {}).ok());
  EXPECT_FALSE(Backbone::PlannedFrom(renamed, {}).OrThrow().planned());
  EXPECT_TRUE(LoadText(renamed, true, "", config.V).ok());

  const Path page = folder_ / "page.gguf";
  WriteTextFile(page, "<html>not found</html>").OrThrow();
  for (const Path& path : {page, folder_, folder_ / "missing.gguf"}) {
    EXPECT_FALSE(IsGgufFile(path));
    EXPECT_SAYS(MessageOf(ReadConfig(path)), path.string());
  }
  WriteTextFile(page, "GG").OrThrow();
  EXPECT_FALSE(IsGgufFile(page));
}

// The header alone of a GGUF file whose matrix has a type we do not read.
TEST_F(LoadTest, AnUnsupportedGgufTypeNamesTheSupportedOnes) {
  std::ifstream in(kStories, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  // After the name: the number of dimensions (4 bytes), the dimensions (8 each), the type (4).
  const std::string name = "blk.0.attn_q.weight";
  const size_t type = bytes.find(name) + name.size() + 4 + 2 * 8;
  ASSERT_EQ(bytes[type], 0) << "f32";
  bytes[type] = 24;  // i8: fits into the tensor's bytes
  WriteTextFile(folder_ / "x.gguf", bytes).OrThrow();
  const std::string message = MessageOf(Backbone::Load(folder_ / "x.gguf", {}));
  EXPECT_SAYS(message, name);
  EXPECT_SAYS(message, format::GgufNames());
}

}  // namespace
}  // namespace rung::model
