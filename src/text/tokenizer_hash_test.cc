// Ids of many texts against the `tokenizers` package, by hash (tests/data/text/hashes.txt), and of all
// components on small tokenizers (components.json). RUNG_TOKENIZERS may name a folder with
// <model>/tokenizer.json and gguf-vocab/*.gguf: what it holds is tested too.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <map>
#include <sstream>

#include "text/tokenizer.h"
#include "text/tokenizer_strings.h"
#include "text/tokenizer_texts.h"

namespace rung::text {
namespace {

// "model mode text" -> hashes
std::map<std::string, std::string> ReadHashes() {
  std::map<std::string, std::string> hashes;
  std::istringstream lines(ReadFixture(kTextData / "hashes.txt"));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string model, mode, text, rest;
    words >> model >> mode >> text >> std::ws;
    std::getline(words, rest);
    hashes[model + " " + mode + " " + text] = rest;
  }
  return hashes;
}

std::vector<std::string> MadeStrings() {
  std::vector<std::string> strings;
  for (uint64_t i = 0; i < 10000; ++i) strings.push_back(MadeString(1000 + i));
  return strings;
}

std::string Hash(const Tokenizer& tokenizer, const std::vector<std::string>& texts, bool special) {
  IdHash hash;
  for (const std::string& text : texts)
    hash.Add(special ? tokenizer.EncodeWithSpecials(text) : tokenizer.Encode(text));
  return hash.Finish();
}

Tokenizer Load(const Path& path) {
  if (path.extension() == ".gguf") return Tokenizer::FromGguf(io::Gguf::Open(path).OrThrow()).OrThrow();
  return Tokenizer::FromFolder(path).OrThrow();
}

class Hashes : public testing::Test {
 protected:
  // `model`: as in hashes.txt.
  void Expect(const Path& path, const std::string& model) {
    const Tokenizer tokenizer = Load(path);
    for (const bool special : {false, true}) {
      const std::string key = model + (special ? " special " : " plain ");
      EXPECT_EQ(Hash(tokenizer, strings_, special), hashes_.at(key + "strings")) << key;
    }
    for (const auto& [kind, texts] : long_) {
      EXPECT_EQ(Hash(tokenizer, texts, false), hashes_.at(model + " plain " + kind)) << model;
    }
  }
  const std::map<std::string, std::string> hashes_ = ReadHashes();
  const std::vector<std::string> strings_ = MadeStrings();
  const std::map<std::string, std::vector<std::string>> long_ = {
      {"english", MadeEnglish()}, {"code", MadeCode()}, {"chinese", MadeChinese()}, {"line", MadeLine()}};
};

// The two programs mean the same texts.
TEST_F(Hashes, TextsAreThoseOfTheScript) {
  const auto bytes = [](const std::vector<std::string>& texts) {
    IdHash hash;
    for (const std::string& text : texts) {
      std::vector<int32_t> ids;
      for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
      hash.Add(ids);
    }
    return hash.Finish();
  };
  EXPECT_EQ(bytes(strings_), hashes_.at("text utf-8 strings"));
  for (const auto& [kind, texts] : long_) EXPECT_EQ(bytes(texts), hashes_.at("text utf-8 " + kind)) << kind;
}

TEST_F(Hashes, TokenizersOfTheRepository) {
  for (const char* model : {"gpt2", "smollm2", "qwen2", "tinystories"}) Expect(kTextData / model, model);
}

// A vocabulary of SentencePiece with its scores, whole: those of Llama-2, Mistral and TinyLlama are its like.
TEST_F(Hashes, Phi3OfItsGguf) {
  Expect(kTextData / "phi3" / "vocabulary.gguf", "folder/gguf-vocab/ggml-vocab-phi-3.gguf");
}

TEST_F(Hashes, SmolLm2OfItsGguf) {
  const char* path = std::getenv("RUNG_SMOLLM2");
  if (path == nullptr) GTEST_SKIP() << "RUNG_SMOLLM2 is not set";
  Expect(path, "smollm2");
}

TEST_F(Hashes, TokenizersOfAFolder) {
  const char* folder = std::getenv("RUNG_TOKENIZERS");
  if (folder == nullptr) GTEST_SKIP() << "RUNG_TOKENIZERS is not set";
  int found = 0;
  for (const auto& [key, hash] : hashes_) {
    if (!key.starts_with("folder/") || !key.ends_with(" plain strings")) continue;
    const std::string model = key.substr(0, key.find(' '));
    const Path path = Path(folder) / model.substr(sizeof("folder/") - 1);
    if (!std::filesystem::exists(path)) continue;
    Expect(path, model);
    ++found;
  }
  EXPECT_GT(found, 0) << folder;
}

// Each tokenizer of components.json has random steps; its texts have the ids without and with special tokens.
TEST(Components, GiveTheIdsOfThePackage) {
  const nlohmann::json cases = nlohmann::json::parse(ReadFixture(kTextData / "components.json"));
  ASSERT_GT(cases.size(), 40u);
  for (size_t i = 0; i < cases.size(); ++i) {
    const nlohmann::json& root = cases[i]["tokenizer"];
    const Tokenizer tokenizer = Tokenizer::FromJson(root.dump(), "case " + std::to_string(i)).OrThrow();
    for (const nlohmann::json& text : cases[i]["texts"]) {
      const auto string = text[0].get<std::string>();
      EXPECT_EQ(tokenizer.Encode(string), text[1].get<std::vector<int32_t>>()) << i << ": " << text[0];
      EXPECT_EQ(tokenizer.EncodeWithSpecials(string), text[2].get<std::vector<int32_t>>())
          << i << ": " << text[0];
    }
  }
}

}  // namespace
}  // namespace rung::text
