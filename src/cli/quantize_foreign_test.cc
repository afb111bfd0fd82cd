// GGUF files that say what a Hugging Face folder cannot, or what this program does not know: refused by name,
// or carried over byte for byte, never changed.
#include <cstring>
#include <limits>

#include "cli/test_support.h"
#include "convert/folder_config.h"
#include "convert/gguf_metadata.h"
#include "convert/quantize_gguf.h"
#include "infer/test_support.h"
#include "model/config_difference.h"
#include "model/gguf_testing.h"

namespace rung::cli {
namespace {

using model::GgufChanges;
using model::Quantize;

const Path kModels = "tests/data/families";

class ForeignTest : public FolderTest {
 protected:
  Path Changed(const std::string& family, const GgufChanges& changes) const {
    const Path file = folder_ / "changed.gguf";
    std::filesystem::remove(file);
    model::WriteChanged(kModels / (family + ".gguf"), file, changes);
    return file;
  }
};

struct Unsayable {
  const char* family;
  GgufChanges changes;
  const char* says;
};

TEST_F(ForeignTest, WhatAFolderCannotSayIsRefusedByName) {
  const auto u32 = [](uint32_t value) { return io::GgufField(value); };
  const std::vector<Unsayable> cases = {
      {"olmo2", {{{"olmo2.attention.sliding_window", u32(8)}}, {}}, "an attention window of 8 tokens"},
      {"llama3",
       {{{"llama.rope.scaling.type", std::string("linear")}, {"llama.rope.scaling.factor", 2.0f}}, {}},
       "rope_freqs.weight) beside another scaling"},
      {"gpt2", {{{"gpt2.attention.head_count_kv", u32(2)}}, {}}, "4 heads, 2 for keys and values"},
      {"gpt_neox",
       {{{"gptneox.attention.key_length", u32(4)}, {"gptneox.attention.value_length", u32(4)}}, {}},
       "2 heads, 2 for keys and values, 4 wide"},
      {"granite", {{{"granite.rope.scaling.finetuned", false}}, {}}, "whether there is RoPE"},
      {"smollm2", {{{"llama.attention.scale", 0.5f}}, {}}, "attention scale"},
      {"smollm2", {{{"llama.rope.dimension_count", u32(4)}}, {}}, "the rotary part of a head"},
      {"olmo2", {{{"olmo2.rope.dimension_count", u32(4)}}, {}}, "the rotary part of a head"},
      {"gemma2", {{{"gemma2.rope.dimension_count", u32(4)}}, {}}, "the rotary part of a head"},
      {"smollm2", {{{"llama.rope.scaling.attn_factor", 2.0f}}, {}}, "the angles of RoPE"}};
  for (const Unsayable& c : cases) {
    const Path file = Changed(c.family, c.changes), out = folder_ / "out";
    // What rung merge writes into its folder.
    try {
      convert::MergedConfig(convert::TensorReader(file), file, "bfloat16");
      ADD_FAILURE() << c.family << ": " << c.says << " was not refused";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::kBadInput);
      EXPECT_NE(std::string(error.what()).find(c.says), std::string::npos)
          << c.family << ": " << error.what();
      EXPECT_NE(std::string(error.what()).find("keep it a GGUF file"), std::string::npos) << error.what();
    }
    const auto [code, message] =
        Refusal(AddQuantize, {"--model", file.string(), "--out", out.string(), "--format", "bf16"});
    EXPECT_EQ(code, ExitCode::kBadInput) << message;
    EXPECT_NE(message.find(c.says), std::string::npos) << message;
    EXPECT_FALSE(std::filesystem::exists(out));
    // The way that the message names.
    convert::QuantizeGguf({file, folder_ / "again.gguf", {Quantize::kNone, Quantize::kNone, {}}}, nullptr,
                          nullptr);
    EXPECT_EQ(model::ConfigDifference(model::ReadConfig(file).OrThrow(),
                                      model::ReadConfig(folder_ / "again.gguf").OrThrow()),
              "");
    std::filesystem::remove(folder_ / "again.gguf");
  }
}

// Numbers of every kind that GGUF has; what readers of this program make of them is narrower.
TEST_F(ForeignTest, MetadataKeepsItsKindsAndBytes) {
  std::vector<std::string> kept;  // the bytes live here
  kept.reserve(32);
  const auto raw = [&](uint32_t kind, const auto&... values) {
    std::string bytes;
    (bytes.append(reinterpret_cast<const char*>(&values), sizeof values), ...);
    kept.push_back(bytes);
    return io::GgufRawValue{kind, std::as_bytes(std::span(kept.back()))};
  };
  const io::GgufFields fields = {
      {"x.u8", raw(0, uint8_t{200})},
      {"x.i8", raw(1, int8_t{-5})},
      {"x.u16", raw(2, uint16_t{60000})},
      {"x.i16", raw(3, int16_t{-300})},
      {"x.i32", raw(5, int32_t{-70000})},
      {"x.u64", raw(10, uint64_t{1} << 40)},
      {"x.i64", raw(11, int64_t{-1} << 40)},
      {"x.f64", raw(12, 0.1)},
      {"x.nan", raw(6, uint32_t{0x7fc12345})},
      {"x.bools", raw(9, uint32_t{7}, uint64_t{3}, uint8_t{1}, uint8_t{0}, uint8_t{1})},
      {"x.i64s", raw(9, uint32_t{11}, uint64_t{2}, int64_t{-1} << 40, int64_t{7})},
      {"x.f64s", raw(9, uint32_t{12}, uint64_t{1}, 1e-300)},
      {"x.none", raw(9, uint32_t{8}, uint64_t{0})}};
  const Path file = Changed("smollm2", {fields, {}}), out = folder_ / "out.gguf";
  convert::QuantizeGguf({file, out, {Quantize::kQ8_0, Quantize::kNone, {}}}, nullptr, nullptr);
  const io::Gguf before = io::Gguf::Open(file).OrThrow(), after = io::Gguf::Open(out).OrThrow();
  EXPECT_GE(before.raw_metadata().size(), fields.size() + 10);
  for (const auto& [key, value] : before.raw_metadata()) {
    const auto found = after.raw_metadata().find(key);
    ASSERT_NE(found, after.raw_metadata().end()) << key;
    EXPECT_EQ(found->second.type, value.type) << key;
    ASSERT_EQ(found->second.bytes.size(), value.bytes.size()) << key;
    EXPECT_EQ(std::memcmp(found->second.bytes.data(), value.bytes.data(), value.bytes.size()), 0) << key;
  }
}

// In both directions of the same rule.
TEST_F(ForeignTest, WhatIsNoNumberIsNotQuantised) {
  const Path model = folder_ / "model";
  std::filesystem::create_directory(model);
  for (const auto& item : std::filesystem::directory_iterator(kTrained)) {
    if (item.path().extension() != ".safetensors") std::filesystem::copy(item.path(), model);
  }
  constexpr const char* kBroken = "model.layers.1.mlp.up_proj.weight";
  const io::Safetensors from = io::Safetensors::OpenFolder(kTrained).OrThrow();
  std::vector<std::vector<std::byte>> bytes;
  std::vector<io::TensorToWrite> tensors;
  for (const auto& [name, entry] : from.tensors()) {
    bytes.push_back(ReadAll(from, entry));
    if (name == kBroken) {
      const float nan = std::numeric_limits<float>::quiet_NaN();
      std::memcpy(bytes.back().data() + (5 * entry.shape[1] + 3) * 4, &nan, sizeof nan);
    }
    tensors.push_back({name, entry.dtype, entry.shape, bytes.back()});
  }
  io::WriteSafetensors(model / "model.safetensors", tensors, {{"format", "pt"}}).OrThrow();
  const std::pair<const char*, const char*> formats[] = {{"nf4", "out"},        {"nf4-single", "out"},
                                                         {"f16", "out"},        {"q8_0", "out.gguf"},
                                                         {"mxfp4", "out.gguf"}, {"f16", "out.gguf"}};
  for (const auto& [format, name] : formats) {
    const std::string out = (folder_ / name).string();
    const auto [code, message] =
        Refusal(AddQuantize, {"--model", model.string(), "--out", out, "--format", format});
    EXPECT_EQ(code, ExitCode::kBadInput) << format;
    EXPECT_NE(message.find(std::string("tensor ") + kBroken + " has a number in row 5"), std::string::npos)
        << format << ": " << message;
    EXPECT_FALSE(std::filesystem::exists(out));
  }
}

// It is no loss of a rounding here.
TEST_F(ForeignTest, WhatIsNoNumberInF16StaysInF16) {
  const Path model = folder_ / "model";
  convert::QuantizeFolder({kTrained, model, {Quantize::kF16, Quantize::kF16, {}}}, nullptr, nullptr);
  constexpr const char* kBroken = "model.layers.1.mlp.up_proj.weight";
  constexpr uint16_t kInfinity = 0x7C00;
  std::vector<io::TensorToWrite> tensors;
  std::vector<std::vector<std::byte>> bytes;
  std::vector<std::byte> want;
  {
    const io::Safetensors from = io::Safetensors::OpenFolder(model).OrThrow();
    for (const auto& [name, entry] : from.tensors()) {
      bytes.push_back(ReadAll(from, entry));
      if (name == kBroken) {
        std::memcpy(bytes.back().data() + 6, &kInfinity, sizeof kInfinity);
        want = bytes.back();
      }
      tensors.push_back({name, entry.dtype, entry.shape, bytes.back()});
    }
  }
  std::filesystem::remove(model / "model.safetensors");
  io::WriteSafetensors(model / "model.safetensors", tensors, {{"format", "pt"}}).OrThrow();
  const std::string folder = (folder_ / "out").string(), gguf = (folder_ / "out.gguf").string();
  for (const std::string& out : {folder, gguf}) {
    const auto [code, message] =
        Refusal(AddQuantize, {"--model", model.string(), "--out", out, "--format", "f16"});
    EXPECT_EQ(code, ExitCode::kDone) << message;
  }
  const io::Safetensors copy = io::Safetensors::OpenFolder(folder).OrThrow();
  EXPECT_EQ(ReadAll(copy, *copy.Find(kBroken)), want);
  const io::Gguf file = io::Gguf::Open(gguf).OrThrow();
  const auto data = file.Find("blk.1.ffn_up.weight")->data;
  EXPECT_EQ(std::vector<std::byte>(data.begin(), data.end()), want);
}

TEST_F(ForeignTest, ATemporaryFileOfAnotherRunIsNoRiddle) {
  Write("x.gguf.tmp", "half");
  const std::string out = (folder_ / "x.gguf").string();
  const auto [code, message] = Refusal(AddQuantize, {"--model", kStories, "--out", out});
  EXPECT_EQ(code, ExitCode::kUsage);
  EXPECT_NE(message.find("x.gguf.tmp is there: another run writes it, or one was killed"), std::string::npos)
      << message;
  EXPECT_NE(message.find("remove it if none runs"), std::string::npos) << message;
  std::filesystem::remove(folder_ / "x.gguf.tmp");
  RunVerb(AddQuantize, {"--model", kStories, "--out", out});
  EXPECT_NE(Refusal(AddQuantize, {"--model", kStories, "--out", out}).second.find("is there already"),
            std::string::npos);
}

// transformers rounds Gemma's factor of the embedding to the type of the weights, llama.cpp does not.
TEST_F(ForeignTest, GemmasFactorOfTheEmbeddingIsNoDifference) {
  model::Config folder = model::ReadConfig(kModels / "gemma2").OrThrow(), file = folder;
  folder.embedding_scale = 59.75f;
  file.embedding_scale = 59.866f;
  EXPECT_EQ(model::ConfigDifference(folder, file), "");
  file.embedding_scale = 1.0f;
  EXPECT_NE(model::ConfigDifference(folder, file), "");
  model::Config granite = model::ReadConfig(kModels / "granite").OrThrow(), other = granite;
  other.embedding_scale *= 1.002f;
  EXPECT_NE(model::ConfigDifference(granite, other), "");
}

}  // namespace
}  // namespace rung::cli
