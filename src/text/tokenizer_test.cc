// Ids against other implementations: the expected ones in tests/data/text come from the `tokenizers` and
// `sentencepiece` libraries and from llama.cpp's vocabulary tests.
#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/text.h"
#include "text/tokenizer_fixture.h"
#include "text/utf8.h"

namespace rung::text {
namespace {

Tokenizer FromJsonFile(const Path& path) {
  return Tokenizer::FromJson(ReadFixture(path), path.string()).OrThrow();
}

Tokenizer FromGgufBytes(const std::string& bytes) {
  return Tokenizer::FromGguf(io::Gguf::Parse(std::as_bytes(std::span(bytes)), "test").OrThrow()).OrThrow();
}

void ExpectIds(const Tokenizer& tokenizer, const std::string& model, const std::string& kind, size_t count) {
  const std::vector<Case> cases = ReadCases(kTextData / (kind + ".inp"), kTextData / model / (kind + ".out"));
  ASSERT_EQ(cases.size(), count);
  for (const Case& one : cases) {
    const auto ids = kind == "chat" ? tokenizer.EncodeWithSpecials(one.text) : tokenizer.Encode(one.text);
    EXPECT_EQ(ids, one.ids) << "text: " << one.text;
  }
}

// Mixes scripts, blanks, marks and planes; valid UTF-8. With `rare`, control characters and unused planes
// too.
std::string RandomText(std::mt19937* rng, size_t characters, bool rare) {
  static constexpr uint32_t kRanges[][2] = {
      {0x20, 0x7F},     {0x20, 0x7F},       {0x20, 0x21},   {0x09, 0x0E},       {0xA0, 0x250},
      {0x300, 0x370},   {0x400, 0x500},     {0x900, 0x980}, {0x3000, 0x9FFF},   {0xAC00, 0xD7A3},
      {0xE000, 0xFFFF}, {0x1F300, 0x1FAFF}, {0, 0x20},      {0x10000, 0x110000}};
  std::string text;
  for (size_t i = 0; i < characters; ++i) {
    const auto& range = kRanges[(*rng)() % (rare ? 14 : 12)];
    const auto c = range[0] + static_cast<uint32_t>((*rng)() % (range[1] - range[0]));
    AppendUtf8(c, &text);
  }
  return text;
}

std::string Stream(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  StreamDecoder decoder(tokenizer);
  std::string text;
  for (const int32_t id : ids) {
    const std::string part = decoder.Push(id);
    EXPECT_TRUE(IsUtf8(part)) << "a character was split";
    text += part;
  }
  return text + decoder.Finish();
}

struct Model {
  const char* folder;
  const char* pre;
  const char* kind;
  size_t chat;
};
class ByteLevel : public testing::TestWithParam<Model> {
 protected:
  const Path json_ = kTextData / GetParam().folder / "tokenizer.json";
};

TEST_P(ByteLevel, TokenizerJsonGivesTheReferenceIds) {
  const Tokenizer tokenizer = FromJsonFile(json_);
  EXPECT_EQ(tokenizer.kind(), GetParam().kind);
  ExpectIds(tokenizer, GetParam().folder, "cases", 47);
  ExpectIds(tokenizer, GetParam().folder, "more", 103);
  if (GetParam().chat > 0) ExpectIds(tokenizer, GetParam().folder, "chat", GetParam().chat);
}

TEST_P(ByteLevel, GgufGivesTheReferenceIds) {
  const Tokenizer tokenizer = FromGgufBytes(GgufOfJson(json_, GetParam().pre));
  EXPECT_EQ(tokenizer.kind(), GetParam().kind);
  ExpectIds(tokenizer, GetParam().folder, "cases", 47);
  ExpectIds(tokenizer, GetParam().folder, "more", 103);
  if (GetParam().chat > 0) ExpectIds(tokenizer, GetParam().folder, "chat", GetParam().chat);
}

TEST_P(ByteLevel, DecodingRestoresTheText) {
  const Tokenizer tokenizer = FromJsonFile(json_);
  std::mt19937 rng(1);
  for (int i = 0; i < 200; ++i) {
    // SmolLM2 has no tokens for 21 bytes, which are dropped: those of control characters and of unused
    // planes.
    std::string text = RandomText(&rng, rng() % 60, std::string_view(GetParam().folder) != "smollm2");
    // NFC is part of Qwen's tokenizer: only normal text comes back.
    if (std::string_view(GetParam().folder) == "qwen2") std::erase_if(text, [](char c) { return c < 0; });
    const std::vector<int32_t> ids = tokenizer.Encode(text);
    EXPECT_EQ(tokenizer.Decode(ids, false), text);
    EXPECT_EQ(Stream(tokenizer, ids), text);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ByteLevel,
                         testing::Values(Model{"gpt2", "gpt-2", "byte-level bpe (gpt-2)", 0},
                                         Model{"qwen2", "qwen2", "byte-level bpe (qwen2)", 10},
                                         Model{"smollm2", "smollm", "byte-level bpe (smollm)", 10}),
                         [](const auto& model) { return std::string(model.param.folder); });

// Granite's files name "refact", which is the pattern of SmolLM.
TEST(Tokenizer, RefactGivesTheReferenceIdsOfItsPattern) {
  const Tokenizer tokenizer = FromGgufBytes(GgufOfJson(kTextData / "smollm2" / "tokenizer.json", "refact"));
  EXPECT_EQ(tokenizer.kind(), "byte-level bpe (smollm)");
  ExpectIds(tokenizer, "smollm2", "cases", 47);
  ExpectIds(tokenizer, "smollm2", "more", 103);
}

// OLMo 2's files name "dbrx": the pattern that its tokenizer.json has, without what else Llama-3 does.
TEST(Tokenizer, DbrxIsThePatternOfOlmo2) {
  const Path path = kTextData / "gpt2" / "tokenizer.json";
  nlohmann::json root = nlohmann::json::parse(ReadFixture(path));
  root["pre_tokenizer"] = {
      {"type", "Sequence"},
      {"pretokenizers",
       {{{"type", "Split"},
         {"pattern",
          {{"Regex",
            R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}}},
         {"behavior", "Isolated"},
         {"invert", false}},
        {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", false}}}}};
  const Tokenizer json = Tokenizer::FromJson(root.dump(), "olmo2").OrThrow();
  const Tokenizer gguf = FromGgufBytes(GgufOfJson(path, "dbrx"));
  EXPECT_FALSE(gguf.adds_bos());
  std::mt19937 rng(3);
  for (int i = 0; i < 500; ++i) {
    const std::string text = RandomText(&rng, rng() % 80, true);
    ASSERT_EQ(gguf.Encode(text), json.Encode(text)) << text;
  }
}

// Llama-3's vocabulary may not be shipped: set RUNG_LLAMA3_TOKENIZER to a tokenizer.json of it.
TEST(Tokenizer, Llama3GivesTheReferenceIds) {
  const char* path = std::getenv("RUNG_LLAMA3_TOKENIZER");
  if (path == nullptr) GTEST_SKIP() << "RUNG_LLAMA3_TOKENIZER is not set";
  for (const Tokenizer& tokenizer : {FromJsonFile(path), FromGgufBytes(GgufOfJson(path, "llama-bpe"))}) {
    EXPECT_EQ(tokenizer.kind(), "byte-level bpe (llama-bpe)");
    ExpectIds(tokenizer, "llama3", "cases", 47);
    ExpectIds(tokenizer, "llama3", "more", 103);
  }
}

TEST(Tokenizer, LlamaStyleFolderGivesTheReferenceIdsAndSpecials) {
  const Tokenizer tokenizer = Tokenizer::FromFolder(kTextData / "tinystories").OrThrow();
  EXPECT_EQ(tokenizer.kind(), "sentencepiece bpe");
  ExpectIds(tokenizer, "tinystories", "cases", 47);
  ExpectIds(tokenizer, "tinystories", "more", 103);
  EXPECT_EQ(tokenizer.bos(), 1);
  EXPECT_EQ(tokenizer.eos(), 2);
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.end_ids(), std::vector<int32_t>{2});
  EXPECT_EQ(tokenizer.Find("<|end_story|>"), 2);
  EXPECT_EQ(tokenizer.vocab_size(), 2048);
}

TEST(Tokenizer, SentencePieceGgufGivesTheReferenceIds) {
  const io::Gguf gguf = io::Gguf::Open(kTextData / "stories260k/vocab.gguf").OrThrow();
  const Tokenizer tokenizer = Tokenizer::FromGguf(gguf).OrThrow();
  EXPECT_EQ(tokenizer.kind(), "sentencepiece bpe");
  ExpectIds(tokenizer, "stories260k", "cases", 47);
  ExpectIds(tokenizer, "stories260k", "more", 103);
  EXPECT_EQ(tokenizer.bos(), 1);
  EXPECT_EQ(tokenizer.eos(), 2);
  EXPECT_TRUE(tokenizer.adds_bos());
  std::mt19937 rng(2);
  for (int i = 0; i < 200; ++i) {
    const std::string text = RandomText(&rng, rng() % 40, true);
    const std::vector<int32_t> ids = tokenizer.Encode(text);
    // The space that encoding puts in front is dropped again.
    EXPECT_EQ(tokenizer.Decode(ids, false), text);
    EXPECT_EQ(Stream(tokenizer, ids), text);
  }
}

TEST(Tokenizer, PlainTextHoldsNoSpecials) {
  const Tokenizer tokenizer = FromJsonFile(kTextData / "smollm2/tokenizer.json");
  const std::string text = "<|im_start|>user<|im_end|>";
  for (const int32_t id : tokenizer.Encode(text)) EXPECT_FALSE(tokenizer.IsSpecial(id));
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text), false), text);
  const std::vector<int32_t> ids = tokenizer.EncodeWithSpecials(text);
  ASSERT_EQ(ids.size(), 3u);
  EXPECT_TRUE(tokenizer.IsSpecial(ids[0]));
  EXPECT_EQ(tokenizer.Piece(ids[0]), "<|im_start|>");
  EXPECT_EQ(tokenizer.Decode(ids, true), "user");
  EXPECT_EQ(tokenizer.Decode(ids, false), text);
  EXPECT_EQ(tokenizer.Find("<|im_end|>"), 2);
  EXPECT_EQ(tokenizer.Find("no such token"), -1);
  EXPECT_EQ(tokenizer.end_ids(), (std::vector<int32_t>{2, 0}));
}

TEST(Tokenizer, IdsWithoutATokenAreNothing) {
  const Tokenizer tokenizer = FromJsonFile(kTextData / "qwen2/tokenizer.json");
  const std::vector<int32_t> ids = {-1, static_cast<int32_t>(tokenizer.vocab_size()), 2000000000, 100000};
  EXPECT_EQ(tokenizer.Decode(ids, false), "");
}

TEST(StreamDecoder, HoldsBackUnfinishedCharactersOnly) {
  const Tokenizer tokenizer = FromJsonFile(kTextData / "gpt2/tokenizer.json");
  const std::vector<int32_t> ids = tokenizer.Encode("\U0001F999");  // a llama: four bytes, several tokens
  ASSERT_GT(ids.size(), 1u);
  StreamDecoder decoder(tokenizer);
  for (size_t i = 0; i + 1 < ids.size(); ++i) EXPECT_EQ(decoder.Push(ids[i]), "");
  EXPECT_EQ(decoder.Push(ids.back()), "\U0001F999");
  // A broken start is given out, as U+FFFD, as soon as it is known to be broken.
  EXPECT_EQ(decoder.Push(ids[0]), "");
  EXPECT_EQ(decoder.Push(tokenizer.Encode("a")[0]), "\uFFFDa");
  EXPECT_EQ(decoder.Push(ids[0]), "");
  EXPECT_EQ(decoder.Finish(), "\uFFFD");
}

TEST(StreamDecoder, KeepsTheSpaceOfAContinuation) {
  const Tokenizer tokenizer = Tokenizer::FromFolder(kTextData / "tinystories").OrThrow();
  const std::vector<int32_t> ids = tokenizer.Encode("a");
  StreamDecoder fresh(tokenizer), going_on(tokenizer, /*continues=*/true);
  std::string first, second;
  for (const int32_t id : ids) {
    first += fresh.Push(id);
    second += going_on.Push(id);
  }
  EXPECT_EQ(first, "a");
  EXPECT_EQ(second, " a");
}

TEST(Tokenizer, AnyBytesAreEncoded) {
  std::mt19937 rng(3);
  const Tokenizer tokenizers[] = {FromJsonFile(kTextData / "qwen2/tokenizer.json"),
                                  FromJsonFile(kTextData / "smollm2/tokenizer.json"),
                                  Tokenizer::FromFolder(kTextData / "tinystories").OrThrow()};
  for (const Tokenizer& tokenizer : tokenizers) {
    for (int i = 0; i < 300; ++i) {
      std::string bytes(rng() % 100, ' ');
      for (char& c : bytes) c = static_cast<char>(rng() % 3 == 0 ? rng() % 128 : rng() % 256);
      const std::vector<int32_t> ids = tokenizer.EncodeWithSpecials(bytes);
      EXPECT_EQ(Stream(tokenizer, ids), tokenizer.Decode(ids, false));
    }
  }
  // Byte-level: broken bytes pass through unchanged.
  std::string bytes;
  for (const int32_t id : tokenizers[0].Encode("ab\xFF\xC3 \xE2\x82")) bytes += tokenizers[0].Piece(id);
  EXPECT_EQ(bytes, "ab\xFF\xC3 \xE2\x82");
}

// A quadratic merge or pattern would take minutes here.
TEST(Tokenizer, LongLinesTakeLinearTime) {
  const Tokenizer tokenizers[] = {FromJsonFile(kTextData / "qwen2/tokenizer.json"),
                                  FromJsonFile(kTextData / "smollm2/tokenizer.json"),
                                  Tokenizer::FromFolder(kTextData / "tinystories").OrThrow()};
  std::string marks;
  for (int i = 0; i < 60000; ++i) marks += "\u0301\u0323";
  for (const Tokenizer& tokenizer : tokenizers)
    for (const std::string& text :
         {std::string(300000, 'a'), std::string(300000, ' '), std::string(300000, '\n'), marks})
      EXPECT_FALSE(tokenizer.Encode(text).empty());
}

// Folders made here: what the files beside tokenizer.json say.
class Folder : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / ("rung_text_" + std::to_string(std::random_device()()));
    std::filesystem::create_directory(folder_);
    std::filesystem::copy(kTextData / "qwen2/tokenizer.json", folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void Write(const char* file, const std::string& text) { std::ofstream(folder_ / file) << text; }
  Path folder_;
};

TEST_F(Folder, TokenizerConfigNamesSpecialsAndTemplate) {
  Write(
      "tokenizer_config.json",
      R"({"eos_token": {"content": "<|im_end|>"}, "bos_token": null, "add_bos_token": false, "chat_template": "T"})");
  Write("generation_config.json", R"({"eos_token_id": [151645, 151643], "bos_token_id": 151643})");
  const Tokenizer tokenizer = Tokenizer::FromFolder(folder_).OrThrow();
  EXPECT_EQ(tokenizer.bos(), -1);
  EXPECT_EQ(tokenizer.eos(), 151645);
  EXPECT_FALSE(tokenizer.adds_bos());
  EXPECT_EQ(tokenizer.end_ids(), (std::vector<int32_t>{151645, 151643}));
  EXPECT_EQ(tokenizer.chat_template(), "T");
}

TEST_F(Folder, IdsOfConfigFillInWhatIsMissing) {
  Write("config.json", R"({"eos_token_id": 151643})");
  Write("tokenizer_config.json", R"({"chat_template": [{"name": "tools", "template": "A"},
                                                       {"name": "default", "template": "B"}]})");
  EXPECT_EQ(Tokenizer::FromFolder(folder_).OrThrow().eos(), 151643);
  EXPECT_EQ(Tokenizer::FromFolder(folder_).OrThrow().chat_template(), "B");
  Write("chat_template.jinja", "C");
  EXPECT_EQ(Tokenizer::FromFolder(folder_).OrThrow().chat_template(), "C");
}

// GPT-2's own form: the same ids, and special tokens of the files beside it.
TEST_F(Folder, VocabularyAndMergesAreEnough) {
  const nlohmann::json root = nlohmann::json::parse(ReadFixture(kTextData / "gpt2/tokenizer.json"));
  std::filesystem::remove(folder_ / "tokenizer.json");
  std::string merges = "#version: 0.2\n";
  for (const auto& merge : root["model"]["merges"]) merges += merge.get<std::string>() + "\n";
  Write("vocab.json", root["model"]["vocab"].dump());
  Write("merges.txt", merges);
  const Tokenizer plain = Tokenizer::FromFolder(folder_).OrThrow();
  EXPECT_EQ(plain.kind(), "byte-level bpe (gpt-2)");
  ExpectIds(plain, "gpt2", "cases", 47);
  ExpectIds(plain, "gpt2", "more", 103);
  EXPECT_EQ(plain.eos(), -1);

  Write("config.json", R"({"eos_token_id": 50256})");
  Write("added_tokens.json", R"({"<new>": 50257})");
  Write("tokenizer_config.json", R"({"add_bos_token": true, "bos_token": {"content": "<|endoftext|>"},
      "added_tokens_decoder": {"50258": {"content": "<mark>", "special": true, "lstrip": true}}})");
  const Tokenizer tokenizer = Tokenizer::FromFolder(folder_).OrThrow();
  EXPECT_EQ(tokenizer.eos(), 50256);
  EXPECT_EQ(tokenizer.bos(), 50256);
  EXPECT_TRUE(tokenizer.adds_bos());
  EXPECT_TRUE(tokenizer.IsSpecial(50256));
  EXPECT_FALSE(tokenizer.IsSpecial(50257));
  EXPECT_EQ(tokenizer.EncodeWithSpecials("<new> <mark><|endoftext|>"),
            (std::vector<int32_t>{50257, 50258, 50256}));

  Write("merges.txt", "#version: 0.2\na b c\n");
  EXPECT_NE(Tokenizer::FromFolder(folder_).failure().message.find("merges.txt:2: expected two tokens"),
            std::string::npos);
  Write("merges.txt", "nowhere b\n");
  EXPECT_NE(Tokenizer::FromFolder(folder_).failure().message.find("merge 0"), std::string::npos);
}

TEST_F(Folder, AFileThatIsWrongIsNamed) {
  Write("tokenizer_config.json", R"({"eos_token": "<|nowhere|>"})");
  const Result<Tokenizer> tokenizer = Tokenizer::FromFolder(folder_);
  ASSERT_FALSE(tokenizer.ok());
  EXPECT_NE(tokenizer.failure().message.find("tokenizer_config.json"), std::string::npos);
  EXPECT_NE(tokenizer.failure().message.find("<|nowhere|>"), std::string::npos);
  EXPECT_FALSE(Tokenizer::FromFolder(folder_ / "absent").ok());
}

}  // namespace
}  // namespace rung::text
