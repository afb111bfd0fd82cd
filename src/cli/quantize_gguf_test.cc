// GGUF files as the gguf package writes them from the same folders (tests/data/families, made by
// tools/make_family_goldens.py), and back.
#include "convert/quantize_gguf.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "cli/test_support.h"
#include "convert/folder_tokenizer.h"
#include "convert/gguf_metadata.h"
#include "convert/gguf_vocabulary.h"
#include "convert/output_folder.h"
#include "format/encode.h"
#include "infer/test_support.h"
#include "io/json_file.h"
#include "model/config_difference.h"
#include "text/tokenizer.h"

namespace rung::cli {
namespace {

using model::Quantize;

const std::string kFamilies = "tests/data/families/";

model::Recipe All(Quantize format) { return {format, format, {}}; }

std::vector<float> LogitsOf(const Path& path, const model::Recipe& recipe) {
  model::BackboneOptions options;
  options.recipe = recipe;
  options.positions = 64;
  return infer::LastLogits(model::Backbone::Load(path, options).OrThrow(), nullptr, {1, 8, 47, 11, 30, 57});
}

std::vector<float> Floats(const io::GgufTensor& tensor) {
  format::Matrix matrix;
  EXPECT_TRUE(format::FromGguf(tensor.type, &matrix.format));
  matrix.rows = 1;
  matrix.cols = 1;
  for (const int64_t dim : tensor.dims) matrix.cols *= dim;
  matrix.data = tensor.data.data();
  std::vector<float> values(static_cast<size_t>(matrix.cols));
  format::Of(matrix.format).decode(matrix, 0, matrix.cols, values.data());
  return values;
}

class QuantizeGgufTest : public FolderTest {
 protected:
  Path ToGguf(const Path& model, const model::Recipe& recipe, const std::string& name = "out.gguf") {
    convert::QuantizeGguf({model, folder_ / name, recipe}, nullptr,
                          [&](const std::string& note) { notes_ += note + "\n"; });
    return folder_ / name;
  }
  Path ToFolder(const Path& model, const model::Recipe& recipe, const std::string& name = "out") {
    convert::QuantizeFolder({model, folder_ / name, recipe}, nullptr,
                            [&](const std::string& note) { notes_ += note + "\n"; });
    return folder_ / name;
  }
  std::string notes_;
};

// Fixtures keep the matrices in the folder's type and vectors in f32, as `none` does.
class ConversionTest : public QuantizeGgufTest, public testing::WithParamInterface<const char*> {};

TEST_P(ConversionTest, IsWhatTheGgufPackageWrites) {
  const std::string name = GetParam();
  const io::Gguf want = io::Gguf::Open(kFamilies + name + ".gguf").OrThrow();
  const Path out = ToGguf(kFamilies + name, All(Quantize::kNone));
  const io::Gguf got = io::Gguf::Open(out).OrThrow();
  EXPECT_EQ(got.tensors().size(), want.tensors().size());
  for (const io::GgufTensor& tensor : want.tensors()) {
    const io::GgufTensor* mine = got.Find(tensor.name);
    ASSERT_TRUE(mine) << tensor.name;
    EXPECT_EQ(mine->dims, tensor.dims) << tensor.name;
    const std::vector<float> a = Floats(*mine), b = Floats(tensor);
    // Divisors of RoPE are computed, everything else is moved; 1 + w is one rounding of the same sum.
    if (tensor.name.starts_with("rope_")) {
      EXPECT_LE(infer::Apart(a, b), 1e-6) << tensor.name;
    } else {
      EXPECT_EQ(a, b) << tensor.name;
    }
  }
  model::Config mine = model::ReadConfig(out).OrThrow(), theirs = model::ReadConfig(want.name()).OrThrow();
  EXPECT_EQ(model::ConfigDifference(model::AsFolder(theirs), model::AsFolder(mine)), "");
  EXPECT_LE(
      infer::Apart(LogitsOf(out, All(Quantize::kNone)), LogitsOf(kFamilies + name, All(Quantize::kNone))),
      1e-4);
}

class RoundTripTest : public ConversionTest {};

TEST_P(RoundTripTest, ComesBackBitForBit) {
  const std::string name = GetParam();
  const Path gguf = ToGguf(kFamilies + name, All(Quantize::kF32));
  const io::Safetensors want = io::Safetensors::OpenFolder(kFamilies + name).OrThrow();
  // What the folder is stored as.
  std::map<std::string, Quantize> types = {
      {"BF16", Quantize::kBf16}, {"F16", Quantize::kF16}, {"F32", Quantize::kF32}};
  const Quantize type = types.at(want.tensors().begin()->second.dtype);
  const Path back = ToFolder(gguf, All(type));
  const io::Safetensors got = io::Safetensors::OpenFolder(back).OrThrow();
  for (const auto& [key, entry] : want.tensors()) {
    if (key == "lm_head.weight" && !got.Find(key)) continue;  // tied: written once
    const io::TensorEntry* mine = got.Find(key);
    if (!mine) mine = got.Find("transformer." + key);  // GPT-2's were saved without
    ASSERT_TRUE(mine) << key;
    EXPECT_EQ(mine->shape, entry.shape) << key;
    if (mine->dtype != entry.dtype) continue;
    EXPECT_EQ(ReadAll(got, *mine), ReadAll(want, entry)) << key;
  }
  const model::Config a = model::ReadConfig(back).OrThrow(),
                      b = model::ReadConfig(kFamilies + name).OrThrow();
  EXPECT_EQ(model::ConfigDifference(b, a), "");
}

constexpr const char* kConverted[] = {"llama3",  "smollm2", "qwen2",  "qwen2_yarn", "qwen3",
                                      "smollm3", "granite", "olmo2",  "phi3",       "phi3_long",
                                      "gemma",   "gemma2",  "gemma3", "gpt2",       "gpt_neox"};
INSTANTIATE_TEST_SUITE_P(All, ConversionTest, testing::ValuesIn(kConverted),
                         [](const auto& tested) { return std::string(tested.param); });
INSTANTIATE_TEST_SUITE_P(All, RoundTripTest, testing::ValuesIn(kConverted),
                         [](const auto& tested) { return std::string(tested.param); });
// Their GGUF files say "llama", with a window or without.
INSTANTIATE_TEST_SUITE_P(Mistral, RoundTripTest, testing::Values("mistral", "mistral_window"),
                         [](const auto& tested) { return std::string(tested.param); });

TEST_F(QuantizeGgufTest, ALlamaFileWithAWindowBecomesAMistral) {
  const Path gguf = ToGguf(kFamilies + "mistral_window", All(Quantize::kF32));
  const model::Config config = model::ReadConfig(gguf).OrThrow();
  EXPECT_EQ(config.family, "llama");
  ASSERT_EQ(config.window, 7);
  const Path back = ToFolder(gguf, All(Quantize::kF32));
  const model::Config folder = model::ReadConfig(back).OrThrow();
  EXPECT_EQ(folder.family, "mistral");
  EXPECT_EQ(folder.window, 7);
  // More tokens than the window.
  const std::vector<int32_t> ids = {1, 8, 47, 11, 30, 57, 2, 9, 60, 71, 5, 33};
  const auto logits = [&](const Path& path) {
    return infer::LastLogits(infer::LoadSmall(path.string(), DType::kF32, 16), nullptr, ids);
  };
  EXPECT_LE(infer::Apart(logits(back), logits(kFamilies + "mistral_window")), 1e-5);
}

TEST_F(QuantizeGgufTest, BlocksAreTheEncodersOfTheSource) {
  const Path exact = ToGguf(kFamilies + "llama3", All(Quantize::kF32), "exact.gguf");
  const io::Gguf want = io::Gguf::Open(exact).OrThrow();
  const std::pair<Quantize, format::Format> formats[] = {{Quantize::kQ8_0, format::Format::kQ8_0},
                                                         {Quantize::kQ4_0, format::Format::kQ4_0},
                                                         {Quantize::kQ5_1, format::Format::kQ5_1},
                                                         {Quantize::kMxfp4, format::Format::kMxfp4}};
  for (const auto& [quantize, format] : formats) {
    const Path out =
        ToGguf(kFamilies + "llama3", All(quantize), std::string(model::NameOf(quantize)) + ".gguf");
    const io::Gguf got = io::Gguf::Open(out).OrThrow();
    int64_t blocks = 0;
    for (const io::GgufTensor& tensor : want.tensors()) {
      const io::GgufTensor* mine = got.Find(tensor.name);
      ASSERT_TRUE(mine) << tensor.name;
      if (tensor.dims.size() == 1) {
        EXPECT_EQ(mine->type, 0) << tensor.name;
        continue;
      }
      ASSERT_EQ(mine->type, format::Of(format).gguf_type) << tensor.name;
      const std::vector<float> values = Floats(tensor);
      std::vector<std::byte> bytes(mine->data.size());
      format::Encode(format, values.data(), static_cast<int64_t>(values.size()), bytes.data());
      EXPECT_TRUE(std::equal(bytes.begin(), bytes.end(), mine->data.begin())) << tensor.name;
      ++blocks;
    }
    EXPECT_EQ(blocks, 3 * 7 + 1 + (want.Find("output.weight") ? 1 : 0));
    // The folder quantised while it is loaded; rows of q and k only stand elsewhere.
    EXPECT_LE(
        infer::Apart(LogitsOf(out, All(Quantize::kNone)), LogitsOf(kFamilies + "llama3", All(quantize))),
        1e-5);
  }
}

TEST_F(QuantizeGgufTest, PatternsAndEmbeddingsHaveTheirOwn) {
  model::Recipe recipe{
      Quantize::kQ4_0, Quantize::kQ8_0, {{"blk.0.*", Quantize::kF32}, {"*.down_proj", Quantize::kF16}}};
  const io::Gguf got = io::Gguf::Open(ToGguf(kFamilies + "qwen3", recipe)).OrThrow();
  const auto type = [&](const char* name) { return got.Find(name)->type; };
  EXPECT_EQ(type("blk.0.attn_q.weight"), 0);
  EXPECT_EQ(type("blk.0.ffn_down.weight"), 0);
  EXPECT_EQ(type("blk.1.ffn_down.weight"), 1);
  EXPECT_EQ(type("blk.1.attn_q.weight"), 2);
  EXPECT_EQ(type("token_embd.weight"), 8);
}

TEST_F(QuantizeGgufTest, AGgufFileKeepsWhatIsNotConverted) {
  const Path out = ToGguf(kStories, {Quantize::kQ8_0, Quantize::kNone, {}});
  const io::Gguf before = io::Gguf::Open(kStories).OrThrow(), after = io::Gguf::Open(out).OrThrow();
  const auto same = [&](const char* name) {
    const auto a = before.Find(name)->data, b = after.Find(name)->data;
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size()) == 0;
  };
  EXPECT_TRUE(same("token_embd.weight"));
  EXPECT_TRUE(same("blk.0.attn_norm.weight"));
  EXPECT_EQ(after.Find("blk.0.attn_q.weight")->type, 8);
  for (const auto& [key, value] : before.metadata()) {
    if (key == "general.file_type") continue;
    const auto found = after.metadata().find(key);
    ASSERT_NE(found, after.metadata().end()) << key;
    EXPECT_TRUE(found->second == value) << key;
  }
  // 172 of stories260K's columns are no whole blocks.
  EXPECT_EQ(after.Find("blk.0.ffn_down.weight")->type, 1);
  EXPECT_NE(notes_.find("f16 instead"), std::string::npos) << notes_;
}

TEST_F(QuantizeGgufTest, TheTokenizerSaysTheSame) {
  const std::string words =
      "Once upon a time, there was a little girl . She said: \"No, I can't!\" and ran home.";
  const text::Tokenizer want = text::Tokenizer::FromFolder(kTrained).OrThrow();
  const Path gguf = ToGguf(kTrained, All(Quantize::kNone));
  const text::Tokenizer got = text::Tokenizer::FromGguf(io::Gguf::Open(gguf).OrThrow()).OrThrow();
  EXPECT_EQ(got.Encode(words), want.Encode(words));
  EXPECT_EQ(got.bos(), want.bos());
  EXPECT_EQ(got.eos(), want.eos());
  EXPECT_EQ(got.adds_bos(), want.adds_bos());
  const text::Tokenizer back = text::Tokenizer::FromFolder(ToFolder(gguf, All(Quantize::kNone))).OrThrow();
  EXPECT_EQ(back.Encode(words), want.Encode(words));
  EXPECT_EQ(back.eos(), want.eos());
  EXPECT_EQ(back.adds_bos(), want.adds_bos());
  // SentencePiece, from scores to merges and back.
  const text::Tokenizer pieces = text::Tokenizer::FromGguf(io::Gguf::Open(kStories).OrThrow()).OrThrow();
  const Path stories = ToFolder(kStories, All(Quantize::kNone), "stories");
  const text::Tokenizer merges = text::Tokenizer::FromFolder(stories).OrThrow();
  EXPECT_EQ(merges.Encode(words), pieces.Encode(words));
  EXPECT_EQ(merges.Decode(merges.Encode(words), false), pieces.Decode(pieces.Encode(words), false));
  EXPECT_EQ(merges.bos(), pieces.bos());
  EXPECT_EQ(merges.adds_bos(), pieces.adds_bos());
  const io::Gguf again = io::Gguf::Open(ToGguf(stories, All(Quantize::kNone), "again.gguf")).OrThrow();
  EXPECT_EQ(text::Tokenizer::FromGguf(again).OrThrow().Encode(words), pieces.Encode(words));
}

// Byte-level tokenizers as GGUF keys and back, on texts with all kinds of characters.
TEST_F(QuantizeGgufTest, ByteLevelTokenizersSayTheSame) {
  const std::string words = ReadTextFile("tests/data/text/cases.inp", 1 << 20).OrThrow();
  for (const std::string name : {"gpt2", "smollm2", "qwen2"}) {
    const Path folder = "tests/data/text/" + name;
    const text::Tokenizer want = text::Tokenizer::FromFolder(folder).OrThrow();
    const io::GgufFields fields = convert::VocabularyFields(folder, want.vocab_size() + 3, nullptr);
    const Path file = folder_ / (name + ".gguf");
    io::GgufWriter writer = io::GgufWriter::Create(file, fields, {{"x", 0, {1}}}).OrThrow();
    writer.Write(0, 0, std::vector<std::byte>(4)).OrThrow();
    writer.Commit().OrThrow();
    const io::Gguf gguf = io::Gguf::Open(file).OrThrow();
    const text::Tokenizer got = text::Tokenizer::FromGguf(gguf).OrThrow();
    EXPECT_EQ(got.Encode(words), want.Encode(words)) << name;
    EXPECT_EQ(got.eos(), want.eos()) << name;
    convert::WriteModelTexts(folder_, convert::TokenizerTexts(gguf, nullptr));
    const text::Tokenizer back = text::Tokenizer::FromFolder(folder_).OrThrow();
    EXPECT_EQ(back.Encode(words), want.Encode(words)) << name;
    EXPECT_EQ(back.kind(), got.kind()) << name;
  }
}

TEST_F(QuantizeGgufTest, FromGgufToNf4) {
  const Path nf4 = ToFolder(kFamilies + "llama3.gguf", {Quantize::kNf4, Quantize::kNone, {}});
  const Path direct = ToFolder(kFamilies + "llama3", {Quantize::kNf4, Quantize::kNone, {}}, "direct");
  EXPECT_EQ(LogitsOf(nf4, All(Quantize::kNone)), LogitsOf(direct, All(Quantize::kNone)));
  // And NF4 into GGUF.
  const Path gguf = ToGguf(direct, All(Quantize::kF32), "decoded.gguf");
  EXPECT_LE(infer::Apart(LogitsOf(gguf, All(Quantize::kNone)), LogitsOf(direct, All(Quantize::kNone))), 1e-5);
}

TEST_F(QuantizeGgufTest, LargeFoldersAreSharded) {
  convert::QuantizeOptions options{kFamilies + "llama3", folder_ / "out", All(Quantize::kBf16), 100'000};
  convert::QuantizeFolder(options, nullptr, nullptr);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "out" / "model.safetensors.index.json"));
  EXPECT_EQ(LogitsOf(folder_ / "out", All(Quantize::kNone)),
            LogitsOf(kFamilies + "llama3", All(Quantize::kNone)));
}

// Head and embedding are one table there.
TEST_F(QuantizeGgufTest, APackedEmbeddingKeepsItsBytesUnlessItIsAskedFor) {
  const Path packed =
      ToGguf(kFamilies + "llama3.gguf", {Quantize::kQ4_1, Quantize::kQ8_0, {}}, "packed.gguf");
  const io::Gguf before = io::Gguf::Open(packed).OrThrow();
  const io::GgufTensor& table = *before.Find("token_embd.weight");
  ASSERT_EQ(table.type, 8);
  ASSERT_FALSE(before.Find("output.weight"));
  for (const Quantize embeddings : {Quantize::kNone, Quantize::kQ8_0, Quantize::kQ4_0}) {
    const std::string name = std::string(model::NameOf(embeddings)) + ".gguf";
    const io::Gguf after = io::Gguf::Open(ToGguf(packed, {Quantize::kNone, embeddings, {}}, name)).OrThrow();
    EXPECT_EQ(after.tensors().size(), before.tensors().size());
    for (const io::GgufTensor& tensor : before.tensors()) {
      const io::GgufTensor& same = *after.Find(tensor.name);
      const bool asked = tensor.name == table.name && embeddings == Quantize::kQ4_0;
      EXPECT_EQ(same.type, asked ? 2 : tensor.type) << tensor.name;
      EXPECT_TRUE(asked ||
                  std::equal(same.data.begin(), same.data.end(), tensor.data.begin(), tensor.data.end()))
          << tensor.name;
    }
  }
}

TEST_F(QuantizeGgufTest, ASummaryInWords) {
  const auto said = [&](const std::string& out, const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"--model", kStories, "--out", (folder_ / out).string()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    testing::internal::CaptureStderr();
    RunVerb(AddQuantize, arguments);
    return testing::internal::GetCapturedStderr();
  };
  const std::string same = said("none.gguf", {"--format", "none"});
  EXPECT_NE(same.find("no matrix needed another format: "), std::string::npos) << same;
  EXPECT_NE(said("q8.gguf", {}).find(" matrices to q8_0: "), std::string::npos);
  const std::string mixed = said("mixed.gguf", {"--format", "none", "--keep", "blk.0.*=f16"});
  EXPECT_NE(mixed.find("7 matrices converted: "), std::string::npos) << mixed;
  const std::string two = said(
      "two.gguf", {"--format", "none", "--keep", "blk.0.*=f16,blk.1.*=f16", "--quantize-embeddings=false"});
  EXPECT_NE(two.find("14 matrices converted: "), std::string::npos) << two;
}

TEST_F(QuantizeGgufTest, AFullDiskNamesTheOutputAndBothSizes) {
  const std::filesystem::space_info space = std::filesystem::space(folder_);
  const Path out = folder_ / "not" / "there" / "x";
  convert::CheckSpace(out, space.available / 2);
  try {
    convert::CheckSpace(out, uint64_t{1} << 60);
    FAIL();
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_TRUE(message.starts_with("--out " + out.string() + ": 1073741824.0 GiB needed, ")) << message;
    EXPECT_NE(message.find(" are free on that disk"), std::string::npos) << message;
  }
  // /proc has no room at all.
  const auto [code, message] = Refusal(AddQuantize, {"--model", kStories, "--out", "/proc/x.gguf"});
  EXPECT_EQ(code, ExitCode::kFailed);
  EXPECT_TRUE(message.starts_with("--out /proc/x.gguf: ")) << message;
  EXPECT_EQ(message.find(".tmp"), std::string::npos) << message;
  // No more than the file takes is asked for: 0.4 MiB, not the tens of a reserve.
  EXPECT_NE(message.find(" KiB needed"), std::string::npos) << message;
}

TEST_F(QuantizeGgufTest, RefusesByNameAndLeavesNothingBehind) {
  const std::string gguf = (folder_ / "x.gguf").string(), folder = (folder_ / "x").string();
  const auto refusal = [&](const std::string& model, const std::string& out, const std::string& format) {
    const auto [code, message] = Refusal(AddQuantize, {"--model", model, "--out", out, "--format", format});
    EXPECT_EQ(code, ExitCode::kUsage) << message;
    EXPECT_FALSE(std::filesystem::exists(out));
    return message;
  };
  EXPECT_NE(refusal(kFamilies + "opt", gguf, "q8_0").find("no architecture for opt"), std::string::npos);
  EXPECT_NE(refusal(kFamilies + "llama3", gguf, "nf4").find("GGUF has no nf4"), std::string::npos);
  EXPECT_NE(refusal(kFamilies + "llama3", folder, "q8_0").find("has no q8_0"), std::string::npos);
  EXPECT_NE(refusal(kFamilies + "llama3", folder, "q9").find("--format q9: known are"), std::string::npos);
  Write("there.gguf", "mine");
  const std::string there = (folder_ / "there.gguf").string();
  EXPECT_EQ(Refusal(AddQuantize, {"--model", kFamilies + "llama3", "--out", there}).first, ExitCode::kUsage);
  EXPECT_EQ(ReadTextFile(there, 100).OrThrow(), "mine");
  EXPECT_THROW(
      convert::QuantizeGguf(
          {kFamilies + "llama3", gguf, All(Quantize::kF16)}, [](size_t, size_t) { return false; }, nullptr),
      Error);
  EXPECT_FALSE(std::filesystem::exists(gguf));
  EXPECT_FALSE(std::filesystem::exists(gguf + ".tmp"));
}

}  // namespace
}  // namespace rung::cli
