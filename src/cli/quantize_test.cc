// A folder that was quantised is the same model as one quantised while it is loaded.
#include <nlohmann/json.hpp>

#include "cli/quantize_folder.h"
#include "cli/test_support.h"
#include "format/nf4.h"
#include "infer/test_support.h"
#include "io/json_file.h"
#include "model/folder_weights.h"

namespace rung::cli {
namespace {

constexpr const char* kModel = "tests/data/families/llama3";
constexpr const char* kTrained = "tests/data/models/tinystories-656k";

std::vector<std::byte> ReadAll(const io::Safetensors& file, const io::TensorEntry& entry) {
  std::vector<std::byte> bytes(entry.bytes);
  EXPECT_TRUE(file.Read(entry, 0, bytes).ok());
  return bytes;
}

std::vector<float> LogitsOf(const model::Backbone& backbone, const std::vector<int32_t>& ids) {
  infer::Session session(infer::TestContext(), DType::kF32, backbone, nullptr, 1, 64);
  const infer::Advance all{0, ids};
  const Tensor logits = session.Step({&all, 1});
  const float* data = In(logits).as<float>();
  return {data, data + logits.cols()};
}

class QuantizeTest : public FolderTest {
 protected:
  QuantizeResult Quantize(const Path& model, bool nested, bool embeddings = false) const {
    return QuantizeFolder({model, folder_ / "out", nested, embeddings}, nullptr);
  }
};

TEST_F(QuantizeTest, MatricesAreThoseOfLoadTime) {
  for (const bool nested : {true, false}) {
    const QuantizeResult result = Quantize(kModel, nested);
    EXPECT_EQ(result.linears, 3 * 7);
    const io::Safetensors before = io::Safetensors::OpenFolder(kModel).OrThrow();
    const io::Safetensors after = io::Safetensors::OpenFolder(folder_ / "out").OrThrow();
    model::FolderSource at_load(io::Safetensors::OpenFolder(kModel).OrThrow());
    model::FolderSource stored(io::Safetensors::OpenFolder(folder_ / "out").OrThrow());
    int64_t linears = 0;
    for (const auto& [name, entry] : before.tensors()) {
      if (!after.Find(name + ".quant_state.bitsandbytes__nf4")) {
        const io::TensorEntry* copy = after.Find(name);
        ASSERT_TRUE(copy) << name;
        EXPECT_EQ(copy->dtype, entry.dtype);
        EXPECT_EQ(copy->shape, entry.shape);
        EXPECT_EQ(ReadAll(after, *copy), ReadAll(before, entry)) << name;
        continue;
      }
      ++linears;
      const int64_t rows = entry.shape[0], cols = entry.shape[1];
      const format::Matrix want =
          at_load.ReadMatrix(name, rows, cols, nested ? model::Quantize::kNf4 : model::Quantize::kNf4Single)
              .OrThrow();
      const format::Matrix got = stored.ReadMatrix(name, rows, cols, model::Quantize::kNone).OrThrow();
      ASSERT_EQ(got.format, format::Format::kNf4);
      EXPECT_EQ(std::vector<std::byte>(got.data, got.data + rows * cols / 2),
                std::vector<std::byte>(want.data, want.data + rows * cols / 2));
      for (int64_t block = 0; block < rows * cols / 64; ++block) {
        ASSERT_EQ(got.scales.At(block), want.scales.At(block)) << name << " block " << block;
      }
      const io::TensorEntry& codes = *after.Find(name);
      EXPECT_EQ(codes.shape, (std::vector<int64_t>{rows * cols / 2, 1}));
      EXPECT_EQ(after.Find(name + ".nested_absmax") != nullptr, nested);
    }
    EXPECT_EQ(linears, result.linears);
    for (const auto& [name, entry] : after.tensors()) {
      const uint64_t width = entry.dtype == "F32" ? 4 : entry.dtype == "U8" ? 1 : 2;
      EXPECT_EQ(entry.offset % width, 0u) << name;
    }
    std::filesystem::remove_all(folder_ / "out");
  }
}

TEST_F(QuantizeTest, TheModelSaysTheSame) {
  for (const bool embeddings : {false, true}) {
    Quantize(kTrained, true, embeddings);
    model::BackboneOptions options;
    options.positions = 64;
    const std::vector<int32_t> ids = {1, 80, 147, 201, 282, 57};
    const model::Backbone stored = model::Backbone::Load(folder_ / "out", options).OrThrow();
    EXPECT_EQ(stored.head().format == format::Format::kNf4, embeddings);
    const model::Backbone planned = model::Backbone::PlannedFrom(folder_ / "out", options).OrThrow();
    EXPECT_TRUE(planned.planned());
    EXPECT_EQ(planned.weight_totals().bytes, stored.weight_totals().bytes);
    options.quantize_embeddings = embeddings;
    const model::Backbone at_load = model::Backbone::Load(kTrained, options).OrThrow();
    EXPECT_EQ(LogitsOf(stored, ids), LogitsOf(at_load, ids));
    EXPECT_EQ(stored.weight_totals().total, at_load.weight_totals().total);
    std::filesystem::remove_all(folder_ / "out");
  }
}

TEST_F(QuantizeTest, TextFilesComeAlong) {
  Quantize(kTrained, true);
  const Path out = folder_ / "out";
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    EXPECT_EQ(ReadTextFile(out / name, 1 << 24).OrThrow(),
              ReadTextFile(Path(kTrained) / name, 1 << 24).OrThrow());
  }
  nlohmann::json config = io::ReadJson(out / "config.json").OrThrow();
  EXPECT_EQ(config["quantization_config"]["quant_method"], "bitsandbytes");
  EXPECT_EQ(config["quantization_config"]["bnb_4bit_use_double_quant"], true);
  config.erase("quantization_config");
  EXPECT_EQ(config, io::ReadJson(Path(kTrained) / "config.json").OrThrow());
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out.tmp"));
}

TEST_F(QuantizeTest, TheStateIsWhatPythonWrites) {
  EXPECT_EQ(
      QuantStateJson("bfloat16", 48, 64, true, 0.0625f),
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [48, 64], "nested_blocksize": 256, )"
      R"("nested_dtype": "float32", "nested_offset": 0.0625})");
  EXPECT_EQ(QuantStateJson("float16", 1, 2, false, 0.0f),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [1, 2]})");
  // repr of the doubles that these floats are.
  const auto offset = [](float value) {
    const std::string text = QuantStateJson("float32", 1, 1, true, value);
    return text.substr(text.rfind(' ') + 1);
  };
  EXPECT_EQ(offset(0.1f), "0.10000000149011612}");
  EXPECT_EQ(offset(2.0f), "2.0}");
  EXPECT_EQ(offset(0.0f), "0.0}");
  EXPECT_EQ(offset(1e-5f), "9.999999747378752e-06}");
}

TEST_F(QuantizeTest, RefusesAndLeavesNothingBehind) {
  EXPECT_EQ(Refusal(AddQuantize, {"--model", "no/such", "--out", (folder_ / "out").string()}).first,
            ExitCode::kUsage);
  Quantize(kModel, true);
  EXPECT_EQ(Refusal(AddQuantize, {"--model", kModel, "--out", (folder_ / "out").string()}).first,
            ExitCode::kUsage);
  const auto again =
      Refusal(AddQuantize, {"--model", (folder_ / "out").string(), "--out", (folder_ / "two").string()});
  EXPECT_EQ(again.first, ExitCode::kBadInput);
  EXPECT_NE(again.second.find("quantised already"), std::string::npos) << again.second;
  EXPECT_THROW(QuantizeFolder({kModel, folder_ / "two", true, false}, [](size_t, size_t) { return false; }),
               Error);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "two"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "two.tmp"));
}

}  // namespace
}  // namespace rung::cli
