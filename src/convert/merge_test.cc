// A merged model says what the model and its adapter say together.
#include "convert/merge.h"

#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/rng.h"
#include "base/test_support.h"
#include "convert/folder_config.h"
#include "convert/quantize_folder.h"
#include "infer/test_support.h"
#include "io/json_file.h"
#include "model/adapter_file.h"

namespace rung::convert {
namespace {

const Path kLlama = "tests/data/families/llama3";
const Path kPeft = "tests/data/lora/peft_llama3";
const Path kTrained = "tests/data/models/tinystories-656k";

model::Backbone LoadAsStored(const Path& path) { return infer::LoadSmall(path.string(), DType::kF32, 64); }

std::vector<float> LogitsOf(const model::Backbone& backbone, const model::Adapter* adapter) {
  std::vector<int32_t> ids = {1, 80, 147, 101, 82, 57, 3, 99, 14};
  for (int32_t& id : ids) id %= static_cast<int32_t>(backbone.config().V);
  return infer::LastLogits(backbone, adapter, ids);
}

std::vector<float> FloatsOf(const io::Safetensors& file, const std::string& name) {
  const io::TensorEntry& entry = *file.Find(name);
  std::vector<std::byte> bytes(entry.bytes);
  file.Read(entry, 0, bytes).OrThrow();
  const format::Format stored = *model::FloatFormat(entry.dtype);
  std::vector<float> values(bytes.size() / static_cast<size_t>(format::Of(stored).block_bytes));
  const auto count = static_cast<int64_t>(values.size());
  format::Matrix matrix;
  matrix.format = stored;
  matrix.rows = 1;
  matrix.cols = count;
  matrix.data = bytes.data();
  format::Of(stored).decode(matrix, 0, count, values.data());
  return values;
}

class MergeTest : public FolderTest {
 protected:
  Path out() const { return folder_ / "merged"; }
  MergeResult Merge(const Path& model, const Path& adapter, const std::string& dtype,
                    uint64_t shard_bytes = uint64_t{4} << 30) const {
    std::filesystem::remove_all(out());
    notes_.clear();
    return MergeModel({model, adapter, out(), dtype, shard_bytes, infer::TestContext()}, nullptr,
                      [&](const std::string& note) { notes_ += note + "\n"; });
  }
  // The exit code and message with which merging ends.
  static std::pair<ExitCode, std::string> Refusal(const Path& model, const Path& adapter, const Path& to,
                                                  const std::string& dtype) {
    try {
      MergeModel({model, adapter, to, dtype, uint64_t{4} << 30, infer::TestContext()}, nullptr, nullptr);
    } catch (const Error& error) {
      return {error.code(), error.what()};
    }
    return {ExitCode::kDone, ""};
  }
  bool Noted(const std::string& words) const { return notes_.find(words) != std::string::npos; }
  // A copy of a model whose tensors are stored as `dtype_of` says for each name: F32, F16 or BF16.
  template <class DtypeOf>
  Path Stored(const Path& model, const DtypeOf& dtype_of) const {
    const Path copy = folder_ / "stored";
    std::filesystem::remove_all(copy);
    std::filesystem::copy(model, copy);
    const io::Safetensors source = io::Safetensors::OpenFolder(model).OrThrow();
    std::vector<std::vector<std::byte>> data;
    std::vector<io::TensorToWrite> tensors;
    for (const auto& [name, entry] : source.tensors()) {
      const std::string dtype = dtype_of(name);
      const std::vector<float> values = FloatsOf(source, name);
      std::vector<std::byte>& bytes = data.emplace_back();
      for (const float value : values) {
        const uint16_t half = dtype == "F16" ? ToF16(value).bits : ToBf16(value).bits;
        const auto part =
            dtype == "F32" ? std::as_bytes(std::span(&value, 1)) : std::as_bytes(std::span(&half, 1));
        bytes.insert(bytes.end(), part.begin(), part.end());
      }
      tensors.push_back({name, dtype, entry.shape, bytes});
    }
    std::filesystem::remove(copy / "model.safetensors");
    io::WriteSafetensors(copy / "model.safetensors", tensors, {}).OrThrow();
    return copy;
  }
  static void SetDtype(const Path& folder, const char* dtype) {
    nlohmann::json config = io::ReadJson(folder / "config.json").OrThrow();
    config.erase("dtype");
    config.erase("torch_dtype");
    if (dtype) config["torch_dtype"] = dtype;
    WriteTextFile(folder / "config.json", config.dump()).OrThrow();
  }
  mutable std::string notes_;
  // Logits of the merged folder, and of `model` with the adapter, apart.
  double ApartFromAdapter(const Path& model, const Path& adapter_folder) const {
    const model::Backbone base = LoadAsStored(model);
    const model::Adapter adapter = model::LoadAdapter(adapter_folder, base.config(), false, 64).OrThrow();
    const std::vector<float> want = LogitsOf(base, &adapter);
    EXPECT_GE(infer::Apart(LogitsOf(base, nullptr), want), 1e-2) << "the adapter changes nothing";
    return infer::Apart(LogitsOf(LoadAsStored(out()), nullptr), want);
  }
  // Pairs of random numbers for a model, in a folder.
  Path RandomPairs(const Path& model, const std::string& chat_template,
                   const model::BaseFormats& formats = {}) const {
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
    EXPECT_TRUE(
        model::SaveAdapter(folder_ / "pairs", adapter, config, {"x", chat_template, std::nullopt, formats})
            .ok());
    return folder_ / "pairs";
  }
};

TEST_F(MergeTest, F32IsTheModelWithItsAdapter) {
  const MergeResult result = Merge(kLlama, kPeft, "float32");
  EXPECT_EQ(result.merged, 3 * 7);
  EXPECT_EQ(notes_, "");
  EXPECT_LE(ApartFromAdapter(kLlama, kPeft), 1e-5);
}

TEST_F(MergeTest, WeightsOfOtherFormatsThanThoseOfTrainingAreNoted) {
  const auto trained = [](model::Quantize matrices) {
    model::BackboneOptions options;
    options.recipe.matrices = matrices;
    return model::Backbone::Load(kTrained, options).OrThrow().formats();
  };
  Merge(kTrained, RandomPairs(kTrained, "", trained(model::Quantize::kNf4)), "float32");
  EXPECT_TRUE(Noted("when the pairs were trained, the blocks were in nf4, here they are in f32")) << notes_;
  Merge(kTrained, RandomPairs(kTrained, "", trained(model::Quantize::kBf16)), "float32");
  EXPECT_EQ(notes_, "");
  // A packed folder does not tell its levels of scales beforehand.
  model::Recipe packed;
  packed.matrices = model::Quantize::kNf4Single;
  QuantizeFolder({kTrained, folder_ / "nf4", packed}, nullptr, nullptr);
  const model::BaseFormats single = trained(model::Quantize::kNf4Single);
  EXPECT_TRUE(single.blocks.contains("nf4-single"));
  Merge(folder_ / "nf4", RandomPairs(kTrained, "", single), "float32");
  EXPECT_FALSE(Noted("when the pairs were trained")) << notes_;
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
  const std::string module = "model.layers.1.self_attn.k_proj";
  const std::vector<float> w = FloatsOf(base, module + ".weight"), got = FloatsOf(merged, module + ".weight");
  const std::vector<float> a = FloatsOf(pairs, "base_model.model." + module + ".lora_A.weight");
  const std::vector<float> b = FloatsOf(pairs, "base_model.model." + module + ".lora_B.weight");
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
  EXPECT_EQ(FloatsOf(merged, "model.embed_tokens.weight"), FloatsOf(base, "model.embed_tokens.weight"));
}

TEST_F(MergeTest, FromNf4ItIsTheQuantisedModelWithItsAdapter) {
  for (const bool nested : {true, false}) {
    std::filesystem::remove_all(folder_ / "nf4");
    const model::Quantize nf4 = nested ? model::Quantize::kNf4 : model::Quantize::kNf4Single;
    QuantizeFolder({kLlama, folder_ / "nf4", {nf4, nf4, {}}}, nullptr, nullptr);
    Merge(folder_ / "nf4", kPeft, "float32");
    EXPECT_TRUE(Noted("quantised (nf4)")) << notes_;
    EXPECT_LE(ApartFromAdapter(folder_ / "nf4", kPeft), 1e-5);
    EXPECT_FALSE(io::ReadJson(out() / "config.json").OrThrow().contains("quantization_config"));
  }
}

// Its embedding is stored under the head's name.
TEST_F(MergeTest, AQuantisedEmbeddingIsDecodedToo) {
  constexpr model::Quantize kNf4 = model::Quantize::kNf4;
  QuantizeFolder({kTrained, folder_ / "nf4", {kNf4, kNf4, {}}}, nullptr, nullptr);
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
    Merge(gguf, pairs, "float32");
    EXPECT_TRUE(Noted("the folder has no tokenizer")) << notes_;
    EXPECT_FALSE(Noted("quantised")) << notes_;
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

// Fused q, k and v or gate and up (phi3, gpt_neox with its own order of rows), layers stored as (in, out)
// (gpt2), projections around the layers (opt_350m).
TEST_F(MergeTest, FusedAndTransposedLayersToo) {
  for (const std::string name : {"phi3", "gpt2", "gpt_neox", "opt_350m"}) {
    const Path folder = "tests/data/families/" + name, gguf = folder.string() + ".gguf";
    const Path pairs = RandomPairs(folder, "");
    EXPECT_GT(Merge(folder, pairs, "float32").merged, 0) << name;
    EXPECT_LE(ApartFromAdapter(folder, pairs), 1e-5) << name;
    model::Config got = model::ReadConfig(out()).OrThrow(), want = model::ReadConfig(folder).OrThrow();
    got.name = want.name = "";
    EXPECT_EQ(got, want) << name;
    if (!std::filesystem::exists(gguf)) continue;
    Merge(gguf, pairs, "float32");
    EXPECT_LE(ApartFromAdapter(gguf, pairs), 1e-5) << name;
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
}

// Before the work: a person may stop it there.
TEST_F(MergeTest, NotesComeFirstAndNameTheFormats) {
  const Path exact = Stored(kLlama, [](const std::string&) { return "F32"; });
  std::string order;
  MergeModel(
      {exact, kPeft, out(), "bfloat16", uint64_t{4} << 30, infer::TestContext()},
      [&](size_t, size_t) {
        order += "w";
        return true;
      },
      [&](const std::string& note) {
        order += "n";
        notes_ = note;
      });
  EXPECT_TRUE(order.starts_with("nw")) << order;
  EXPECT_EQ(notes_, "note: the model's weights are f32, the merged ones are rounded to bfloat16");
  Merge(exact, kPeft, "float32");
  EXPECT_EQ(notes_, "");
  Merge(kLlama, kPeft, "bfloat16");
  EXPECT_EQ(notes_, "");
}

TEST_F(MergeTest, OneTensorDoesNotDecideTheType) {
  const auto one = [](const std::string& name) { return name == "model.norm.weight" ? "F16" : "BF16"; };
  const auto most = [](const std::string& name) { return name == "model.norm.weight" ? "F32" : "F16"; };
  const Path folder = Stored(kLlama, one);
  SetDtype(folder, nullptr);
  EXPECT_EQ(Merge(folder, kPeft, "auto").dtype, "bfloat16");
  SetDtype(folder, "float16");
  EXPECT_EQ(Merge(folder, kPeft, "auto").dtype, "float16");
  Stored(kLlama, most);
  SetDtype(folder, nullptr);
  EXPECT_EQ(Merge(folder, kPeft, "auto").dtype, "float16");
  SetDtype(folder, "bfloat16");
  EXPECT_EQ(Merge(folder, kPeft, "auto").dtype, "bfloat16");
}

TEST_F(MergeTest, TensorsThatAreNoWeightsKnownHereAreCopiedByteForByte) {
  const Path model = folder_ / "stored";
  std::filesystem::copy(kLlama, model);
  const io::Safetensors source = io::Safetensors::OpenFolder(kLlama).OrThrow();
  std::vector<std::vector<std::byte>> data;
  std::vector<io::TensorToWrite> tensors;
  for (const auto& [name, entry] : source.tensors()) {
    source.Read(entry, 0, data.emplace_back(entry.bytes)).OrThrow();
    tensors.push_back({name, entry.dtype, entry.shape, data.back()});
  }
  const std::vector<float> table = {1.00001f, -2.5f, 3e-9f};
  tensors.push_back({"model.rotary.inv_freq", "F32", {3}, std::as_bytes(std::span(table))});
  std::filesystem::remove(model / "model.safetensors");
  io::WriteSafetensors(model / "model.safetensors", tensors, {}).OrThrow();
  Merge(model, kPeft, "bfloat16");
  const io::Safetensors merged = io::Safetensors::OpenFolder(out()).OrThrow();
  ASSERT_TRUE(merged.Find("model.rotary.inv_freq"));
  EXPECT_EQ(merged.Find("model.rotary.inv_freq")->dtype, "F32");
  EXPECT_EQ(merged.Find("model.rotary.inv_freq")->offset % 4, 0u);
  EXPECT_EQ(FloatsOf(merged, "model.rotary.inv_freq"), table);
}

TEST_F(MergeTest, WhatFloat16CannotHoldIsRefusedByRow) {
  // Beside a pair and apart from any: the same rule.
  for (const char* broken : {"model.layers.1.self_attn.k_proj.weight", "model.embed_tokens.weight"}) {
    for (const float value : {1e6f, std::numeric_limits<float>::quiet_NaN()}) {
      const Path model = Stored(kLlama, [](const std::string&) { return "F32"; });
      std::vector<std::vector<std::byte>> data;
      std::vector<io::TensorToWrite> tensors;
      {
        const io::Safetensors source = io::Safetensors::OpenFolder(model).OrThrow();
        for (const auto& [name, entry] : source.tensors()) {
          source.Read(entry, 0, data.emplace_back(entry.bytes)).OrThrow();
          const auto row = static_cast<size_t>(3 * entry.shape.back());
          if (name == broken) std::memcpy(data.back().data() + row * sizeof value, &value, sizeof value);
          tensors.push_back({name, entry.dtype, entry.shape, data.back()});
        }
      }
      std::filesystem::remove(model / "model.safetensors");
      io::WriteSafetensors(model / "model.safetensors", tensors, {}).OrThrow();
      const auto [code, message] = Refusal(model, kPeft, out(), "float16");
      EXPECT_EQ(code, ExitCode::kBadInput);
      EXPECT_TRUE(message.starts_with(std::string("tensor ") + broken + " has a number in row 3 that is"))
          << message;
      EXPECT_FALSE(std::filesystem::exists(out()));
    }
  }
}

// Names in a GGUF file are bytes; JSON has no place for those that are no UTF-8.
TEST_F(MergeTest, AModelsNameMayBeAnyBytes) {
  const io::Gguf source = io::Gguf::Open("tests/data/families/qwen2.gguf").OrThrow();
  std::string bytes = ReadTextFile("tests/data/families/qwen2.gguf", 1 << 26).OrThrow();
  const std::string* name = source.GetString("general.name");
  ASSERT_TRUE(name && !name->empty());
  const std::string key = "general.name";
  const size_t at = bytes.find(*name, bytes.find(key) + key.size());
  ASSERT_NE(at, std::string::npos);
  bytes[at] = '\xe9';
  const Path model = Write("named.gguf", bytes);
  Merge(model, RandomPairs(model, ""), "bfloat16");
  EXPECT_TRUE(model::ReadConfig(out()).ok());
}

TEST_F(MergeTest, NothingThatWasThereIsTouched) {
  const Path model = folder_ / "merged.tmp";
  std::filesystem::copy(kLlama, model);
  Merge(model, kPeft, "bfloat16");
  EXPECT_TRUE(std::filesystem::exists(model / "model.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(out() / "model.safetensors"));
  const auto refuse = [&](const Path& to) { return Refusal(model, kPeft, to, "auto"); };
  EXPECT_NE(refuse(model).second.find("is what --model names"), std::string::npos);
  EXPECT_NE(refuse(kPeft).second.find("is what --adapter names"), std::string::npos);
  EXPECT_EQ(refuse("").second, "--out: is empty; give a name");
}

TEST_F(MergeTest, RefusesAndLeavesNothingBehind) {
  const auto refuse = [&](const Path& model, const Path& adapter, const std::string& dtype) {
    return Refusal(model, adapter, out(), dtype);
  };
  const model::Config config = model::ReadConfig(kTrained).OrThrow();
  model::AdapterSpec ladder;
  ladder.ladder.emplace();
  ladder.ladder->taps = {0};
  ladder.ladder->rungs = 1;
  ladder.ladder->S = ladder.ladder->F = 32;
  SaveAdapter(folder_ / "ladder", model::Adapter::Make(config, ladder, 1, false, 8), config, {"", ""})
      .OrThrow();
  const auto [code, message] = refuse(kTrained, folder_ / "ladder", "auto");
  EXPECT_EQ(code, ExitCode::kUsage);
  EXPECT_NE(message.find("a ladder cannot be merged"), std::string::npos) << message;
  EXPECT_EQ(refuse(kTrained, kPeft, "auto").first, ExitCode::kBadInput) << "another model's";
  EXPECT_EQ(refuse("no/such", kPeft, "auto").first, ExitCode::kBadInput);
  EXPECT_THROW(MergeModel(
                   {kLlama, kPeft, out(), "auto", 1, infer::TestContext()},
                   [](size_t, size_t) { return false; }, nullptr),
               Error);
  EXPECT_FALSE(std::filesystem::exists(out()));
  for (const auto& item : std::filesystem::directory_iterator(folder_))
    EXPECT_EQ(item.path(), folder_ / "ladder");
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
}  // namespace rung::convert
