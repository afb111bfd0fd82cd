// A merged model says what the model and its adapter say together.
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "cli/merge_model.h"
#include "cli/merge_texts.h"
#include "cli/quantize_folder.h"
#include "cli/test_support.h"
#include "infer/test_support.h"
#include "io/json_file.h"
#include "model/adapter_file.h"

namespace rung::cli {
namespace {

const Path kLlama = "tests/data/families/llama3";
const Path kPeft = "tests/data/lora/peft_llama3";
const Path kTrained = "tests/data/models/tinystories-656k";

model::Backbone LoadAsStored(const Path& path) { return infer::LoadSmall(path.string(), DType::kF32, 64); }

std::vector<float> LogitsOf(const model::Backbone& backbone, const model::Adapter* adapter) {
  const std::vector<int32_t> ids = {1, 80, 147, 101, 82, 57, 3, 99, 14};
  infer::Session session(infer::TestContext(), DType::kF32, backbone, adapter, 1, 64);
  const infer::Advance all{0, ids};
  const Tensor logits = session.Step({&all, 1});
  const float* data = In(logits).as<float>();
  return {data, data + logits.cols()};
}

// Largest difference over the largest magnitude wanted.
double Apart(const std::vector<float>& got, const std::vector<float>& want) {
  EXPECT_EQ(got.size(), want.size());
  double apart = 0.0, largest = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    apart = std::max(apart, std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i])));
    largest = std::max(largest, std::abs(static_cast<double>(want[i])));
  }
  return apart / largest;
}

class MergeTest : public FolderTest {
 protected:
  Path out() const { return folder_ / "merged"; }
  MergeResult Merge(const Path& model, const Path& adapter, const std::string& dtype,
                    uint64_t shard_bytes = uint64_t{4} << 30) const {
    std::filesystem::remove_all(out());
    return MergeModel({model, adapter, out(), dtype, shard_bytes, infer::TestContext()}, nullptr);
  }
  // Logits of the merged folder, and of `model` with the adapter, apart.
  double ApartFromAdapter(const Path& model, const Path& adapter_folder) const {
    const model::Backbone base = LoadAsStored(model);
    const model::Adapter adapter = model::LoadAdapter(adapter_folder, base.config(), false, 64).OrThrow();
    const std::vector<float> want = LogitsOf(base, &adapter);
    EXPECT_GE(Apart(LogitsOf(base, nullptr), want), 1e-2) << "the adapter changes nothing";
    return Apart(LogitsOf(LoadAsStored(out()), nullptr), want);
  }
  // Pairs of random numbers for a model, in a folder.
  Path RandomPairs(const Path& model, const std::string& chat_template) const {
    const model::Config config = model::ReadConfig(model).OrThrow();
    model::AdapterSpec spec;
    spec.lora.emplace();
    spec.lora->R = 4;
    spec.lora->targets = model::LoraTargets(config);
    for (int64_t layer = 0; layer < config.L; ++layer) spec.lora->layers.push_back(layer);
    const model::Adapter adapter = model::Adapter::Make(config, spec, 1, false, 8);
    const Rng rng(5, Stream::kInit, 700);
    uint64_t index = 0;
    adapter.ForEachParam([&](nn::Param& param) {
      float* value = Out{param.value}.as<float>();
      for (int64_t i = 0; i < param.value.size(); ++i) value[i] = 0.2f * (rng.Uniform(index++) - 0.5f);
    });
    EXPECT_TRUE(model::SaveAdapter(folder_ / "pairs", adapter, config, "x", chat_template).ok());
    return folder_ / "pairs";
  }
};

TEST_F(MergeTest, F32IsTheModelWithItsAdapter) {
  const MergeResult result = Merge(kLlama, kPeft, "float32");
  EXPECT_EQ(result.merged, 3 * 7);
  EXPECT_FALSE(result.from_quantized);
  EXPECT_LE(ApartFromAdapter(kLlama, kPeft), 1e-5);
}

TEST_F(MergeTest, SixteenBitIsItWithinRounding) {
  for (const auto& [dtype, stored, tolerance] :
       {std::tuple{"bfloat16", "BF16", 2e-2}, std::tuple{"float16", "F16", 3e-3}}) {
    const MergeResult result = Merge(kLlama, kPeft, dtype);
    EXPECT_EQ(result.dtype, dtype);
    EXPECT_LE(ApartFromAdapter(kLlama, kPeft), tolerance) << dtype;
    const io::Safetensors file = io::Safetensors::OpenFolder(out()).OrThrow();
    EXPECT_EQ(file.metadata().at("format"), "pt");
    for (const auto& [name, entry] : file.tensors()) EXPECT_EQ(entry.dtype, stored) << name;
    EXPECT_EQ(io::ReadJson(out() / "config.json").OrThrow()["torch_dtype"], dtype);
  }
  EXPECT_EQ(Merge(kLlama, kPeft, "auto").dtype, "bfloat16");
}

// Every weight by itself: W + s B A rounded once, in the rows' own order.
TEST_F(MergeTest, EveryWeightIsRoundedOnce) {
  Merge(kLlama, kPeft, "bfloat16");
  const io::Safetensors base = io::Safetensors::OpenFolder(kLlama).OrThrow();
  const io::Safetensors merged = io::Safetensors::OpenFolder(out()).OrThrow();
  const io::Safetensors pairs = io::Safetensors::Open(kPeft / "adapter_model.safetensors").OrThrow();
  const auto read = [](const io::Safetensors& file, const std::string& name) {
    const io::TensorEntry& entry = *file.Find(name);
    std::vector<std::byte> bytes(entry.bytes);
    file.Read(entry, 0, bytes).OrThrow();
    const format::Format stored = *model::FloatFormat(entry.dtype);
    std::vector<float> values(bytes.size() / static_cast<size_t>(format::Of(stored).block_bytes));
    const auto count = static_cast<int64_t>(values.size());
    format::Of(stored).decode({stored, 1, count, bytes.data(), {}}, 0, count, values.data());
    return values;
  };
  const std::string module = "model.layers.1.self_attn.k_proj";
  const std::vector<float> w = read(base, module + ".weight"), got = read(merged, module + ".weight");
  const std::vector<float> a = read(pairs, "base_model.model." + module + ".lora_A.weight");
  const std::vector<float> b = read(pairs, "base_model.model." + module + ".lora_B.weight");
  const size_t rows = 32, cols = 64, R = 8;
  const double scale = 16.0 / std::sqrt(8.0);  // rslora
  int64_t elsewhere = 0;
  for (size_t i = 0; i < rows * cols; ++i) {
    double want = static_cast<double>(w[i]);
    for (size_t r = 0; r < R; ++r) {
      want += scale * static_cast<double>(b[i / cols * R + r]) * static_cast<double>(a[r * cols + i % cols]);
    }
    // Half a unit in the last of 8 bits, and the f32 sum's error.
    EXPECT_NEAR(static_cast<double>(got[i]), want, std::abs(want) / 256.0 + 1e-6);
    elsewhere += got[i] != ToFloat(ToBf16(static_cast<float>(want)));
  }
  EXPECT_LE(elsewhere, 20) << "only ties that f32 breaks the other way";
  EXPECT_EQ(read(merged, "model.embed_tokens.weight"), read(base, "model.embed_tokens.weight"));
}

TEST_F(MergeTest, FromNf4ItIsTheQuantisedModelWithItsAdapter) {
  for (const bool nested : {true, false}) {
    std::filesystem::remove_all(folder_ / "nf4");
    QuantizeFolder({kLlama, folder_ / "nf4", nested, true}, nullptr);
    EXPECT_TRUE(Merge(folder_ / "nf4", kPeft, "float32").from_quantized);
    EXPECT_LE(ApartFromAdapter(folder_ / "nf4", kPeft), 1e-5);
    EXPECT_FALSE(io::ReadJson(out() / "config.json").OrThrow().contains("quantization_config"));
  }
}

// Its embedding is stored under the head's name.
TEST_F(MergeTest, AQuantisedEmbeddingIsDecodedToo) {
  QuantizeFolder({kTrained, folder_ / "nf4", true, true}, nullptr);
  const Path pairs = RandomPairs(kTrained, "");
  Merge(folder_ / "nf4", pairs, "float32");
  EXPECT_LE(ApartFromAdapter(folder_ / "nf4", pairs), 1e-5);
}

// llama3 and smollm2 keep the rows of q and k in another order in GGUF; llama3 has divisors in RoPE's place.
TEST_F(MergeTest, FromGgufItIsTheSameModel) {
  for (const std::string name : {"llama3", "smollm2", "qwen2", "qwen3"}) {
    const Path folder = "tests/data/families/" + name, gguf = "tests/data/families/" + name + ".gguf";
    // Trained beside the GGUF file: its folder is in Hugging Face's order all the same.
    const Path pairs = RandomPairs(gguf, "");
    const MergeResult result = Merge(gguf, pairs, "float32");
    EXPECT_FALSE(result.has_tokenizer);
    EXPECT_LE(ApartFromAdapter(gguf, pairs), 1e-5) << name;
    model::Config got = model::ReadConfig(out()).OrThrow(), want = model::ReadConfig(folder).OrThrow();
    got.name = want.name = "";
    EXPECT_EQ(got.family, want.family) << name;
    EXPECT_EQ(got.rope, want.rope) << name;
    EXPECT_EQ(got, want) << name;
    // And onto the folder it was made from it is the same.
    EXPECT_LE(ApartFromAdapter(folder, pairs), 2e-2) << name;
  }
}

TEST_F(MergeTest, LargeModelsAreSharded) {
  const MergeResult whole = Merge(kLlama, kPeft, "bfloat16");
  const std::vector<float> want = LogitsOf(LoadAsStored(out()), nullptr);
  const MergeResult result = Merge(kLlama, kPeft, "bfloat16", 100'000);
  EXPECT_GT(result.bytes, whole.bytes);
  const nlohmann::json index = io::ReadJson(out() / "model.safetensors.index.json").OrThrow();
  EXPECT_EQ(index["metadata"]["total_size"], result.bytes);
  EXPECT_EQ(index["weight_map"].size(), io::Safetensors::OpenFolder(kLlama).OrThrow().tensors().size());
  EXPECT_TRUE(std::filesystem::exists(out() / "model-00002-of-00003.safetensors"));
  EXPECT_EQ(LogitsOf(LoadAsStored(out()), nullptr), want);
}

TEST_F(MergeTest, TextsComeAlongAndTheTemplateIsTheAdapters) {
  const Path pairs = RandomPairs(kTrained, "{{ messages[0].content }}");
  Merge(kTrained, pairs, "auto");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    EXPECT_EQ(ReadTextFile(out() / name, 1 << 24).OrThrow(),
              ReadTextFile(kTrained / name, 1 << 24).OrThrow());
  }
  EXPECT_EQ(ReadTextFile(out() / "chat_template.jinja", 1 << 20).OrThrow(), "{{ messages[0].content }}");
  EXPECT_FALSE(std::filesystem::exists(folder_ / "merged.tmp"));
}

TEST_F(MergeTest, RefusesAndLeavesNothingBehind) {
  const auto refuse = [&](const Path& model, const Path& adapter, const std::string& dtype) {
    return Refusal(AddMerge, {"--model", model.string(), "--adapter", adapter.string(), "--out",
                              out().string(), "--dtype", dtype, "--progress", "none", "--threads", "1"});
  };
  const model::Config config = model::ReadConfig(kTrained).OrThrow();
  model::AdapterSpec ladder;
  ladder.ladder.emplace();
  ladder.ladder->taps = {0};
  ladder.ladder->rungs = 1;
  ladder.ladder->S = ladder.ladder->F = 32;
  SaveAdapter(folder_ / "ladder", model::Adapter::Make(config, ladder, 1, false, 8), config, "", "")
      .OrThrow();
  const auto [code, message] = refuse(kTrained, folder_ / "ladder", "auto");
  EXPECT_EQ(code, ExitCode::kUsage);
  EXPECT_NE(message.find("a ladder cannot be merged"), std::string::npos) << message;
  EXPECT_EQ(refuse(kTrained, kPeft, "auto").first, ExitCode::kBadInput) << "another model's";
  EXPECT_EQ(refuse("no/such", kPeft, "auto").first, ExitCode::kBadInput);
  EXPECT_THROW(MergeModel({kLlama, kPeft, out(), "auto", 1, infer::TestContext()},
                          [](size_t, size_t) { return false; }),
               Error);
  EXPECT_FALSE(std::filesystem::exists(out()));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "merged.tmp"));
  EXPECT_EQ(refuse(kLlama, kPeft, "bfloat16").first, ExitCode::kDone);
  EXPECT_EQ(refuse(kLlama, kPeft, "bfloat16").first, ExitCode::kUsage) << "not empty";
}

TEST_F(MergeTest, DivisorsThatAreNotLlama3sAreRefused) {
  model::Config config = model::ReadConfig(kLlama).OrThrow();
  const auto eight = static_cast<size_t>(config.D / 2);
  config.rope = {};
  config.rope.theta = 500000.0;
  config.rope.divisors = std::vector<float>(eight, 1.0f);
  EXPECT_EQ(RopeOfDivisors(config, "x").factor, 1.0);
  config.rope.divisors[0] = 8.0f;  // the highest frequency is never stretched
  EXPECT_THROW(RopeOfDivisors(config, "x"), Error);
}

}  // namespace
}  // namespace rung::cli
