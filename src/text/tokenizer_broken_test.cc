// Damaged and unsupported tokenizers: one message each, that says where.
#include <gtest/gtest.h>

#include <functional>

#include "text/tokenizer.h"
#include "text/tokenizer_fixture.h"

namespace rung::text {
namespace {

using Json = nlohmann::json;

// A character-level BPE that loads: a, b, c, ab, abc and one special token.
Json Small() {
  return Json::parse(R"({
    "added_tokens": [{"id": 9, "content": "<s>", "special": true, "normalized": false}],
    "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4, "?": 5}, "unk_token": "?",
              "merges": ["a b", ["ab", "c"]]}})");
}

TEST(TokenizerJson, SmallOneLoads) {
  const Tokenizer tokenizer = Tokenizer::FromJson(Small().dump(), "small").OrThrow();
  EXPECT_EQ(tokenizer.Encode("abcxab"), (std::vector<int32_t>{4, 5, 3}));
  EXPECT_EQ(tokenizer.EncodeWithSpecials("a<s>b"), (std::vector<int32_t>{0, 9, 1}));
  EXPECT_EQ(tokenizer.vocab_size(), 10);
}

struct Damage {
  const char* pointer;   // what is replaced
  const char* value;     // by what; "" removes it
  const char* expected;  // in the message
};
constexpr Damage kDamages[] = {
    {"/model", "", "model: missing"},
    {"/model", "7", "model: expected an object"},
    {"/model/type", "\"WordPiece\"", "WordPiece is not supported"},
    {"/model/type", "\"Unigram\"", "model.vocab: expected an array"},
    {"/model", R"({"type": "Unigram", "vocab": [["a", 0], ["a", -1]]})", "entry 1: 'a' is there twice"},
    {"/model", R"({"type": "Unigram", "vocab": [["a"]]})", "entry 0: expected [text, score]"},
    {"/model", R"({"type": "Unigram", "vocab": [["a", "0"]]})", "entry 0: expected [text, score]"},
    {"/model", R"({"type": "Unigram", "unk_id": 1, "vocab": [["a", 0]]})", "model.unk_id: 1 is beyond"},
    {"/model/vocab", "", "model.vocab: missing"},
    {"/model/vocab", "[]", "model.vocab: expected an object"},
    {"/model/vocab/a", "\"0\"", "model.vocab: expected a number"},
    {"/model/vocab/a", "-1", "model.vocab: expected a number"},
    {"/model/vocab/a", "1", "id 1 is given to two tokens"},
    {"/model/vocab/a", "2000000000", "'a' has id 2000000000"},
    {"/model/vocab/a", "1e99", "model.vocab: expected a number"},
    {"/model/merges", "", "model.merges: missing"},
    {"/model/merges", "{}", "model.merges: expected an array"},
    {"/model/merges/0", "\"a x\"", "merge 0: \"a x\""},
    {"/model/merges/0", "\"b a\"", "merge 0"},
    {"/model/merges/0", "\"ab\"", "merge 0"},
    {"/model/merges/1", "[\"ab\"]", "merge 1"},
    {"/model/merges/1", "[1, 2]", "merge 1"},
    {"/model/merges/1", "\" \"", "merge 1"},
    {"/model/unk_token", "\"nowhere\"", "model.unk_token: 'nowhere'"},
    {"/model/unk_token", "3", "model.unk_token: expected a string"},
    {"/model/dropout", "0.1", "model.dropout"},
    {"/model/end_of_word_suffix", "\"</w>\"", "model.end_of_word_suffix"},
    {"/model/fuse_unk", "1", "model.fuse_unk: expected true or false"},
    {"/added_tokens", "{}", "added_tokens: expected an array"},
    {"/added_tokens/0", "5", "added_tokens"},
    {"/added_tokens/0/id", "0", "'<s>' has id 0, which is another token's"},
    {"/added_tokens/0/id", "", "added_tokens"},
    {"/added_tokens/0/id", "99999999", "'<s>' has id 99999999"},
    {"/added_tokens/0/special", "\"yes\"", "added_tokens.special"},
    {"/added_tokens/0/content", "\"ab\"", "'ab' has id 9, but in model.vocab 3"},
    {"/added_tokens/1", R"({"id": 8, "content": "<s>"})", "'<s>' has id 9 and id 8"},
    {"/normalizer", "{\"type\": \"BertNormalizer\"}", "normalizer: BertNormalizer is not supported"},
    {"/normalizer", "{\"type\": \"Precompiled\"}", "shorter than its header"},
    {"/normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "????"})", "byte 0 is no base64"},
    {"/normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "/////wAA"})",
     "a trie of 4294967295 bytes"},
    {"/normalizer", "{}", "normalizer.type: missing"},
    {"/normalizer", "{\"type\": \"Replace\"}", "normalizer.pattern: missing"},
    {"/pre_tokenizer", "{\"type\": \"UnicodeScripts\"}", "pre_tokenizer: UnicodeScripts is not supported"},
    {"/pre_tokenizer", R"({"type": "FixedLength", "length": 0})", "length: expected at least 1"},
    {"/pre_tokenizer", R"({"type": "Delimiter", "delimiter": "ab"})", "delimiter: expected one character"},
    {"/pre_tokenizer", R"({"type": "Metaspace", "replacement": "ab"})",
     "replacement: expected one character"},
    {"/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "\\p{Greek}"}})",
     "\\p{Greek} is not supported"},
    {"/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "[^\\W]"}})",
     "a negated class inside [...]"},
    {"/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "\\bx"}})", "\\b is not supported"},
    {"/pre_tokenizer", R"({"type": "Split", "pattern": {"Regex": "a{1,3}+"}})", "{n,m}+ is not supported"},
    {"/pre_tokenizer", R"x({"type": "Split", "pattern": {"Regex": "(?m:a)"}})x", "(?m is not supported"},
    {"/pre_tokenizer", "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"(\"}}", "regular expression"},
    {"/pre_tokenizer", "{\"type\": \"Split\", \"pattern\": {\"Regex\": \"[a&&b]\"}}", "&& inside [...]"},
    {"/pre_tokenizer", "{\"type\": \"Split\", \"pattern\": {\"String\": \"x\"}, \"behavior\": \"Sideways\"}",
     "behavior 'Sideways'"},
    {"/pre_tokenizer",
     "{\"type\": \"Sequence\", \"pretokenizers\": [{\"type\": \"ByteLevel\"}, {\"type\": \"Digits\"}]}",
     "Digits behind ByteLevel"},
    {"/decoder", "null", "without a decoder"},
    {"/decoder", "{\"type\": \"WordPiece\"}", "decoder: WordPiece is not supported"},
    {"/decoder", "{\"type\": \"Strip\", \"content\": \"x\", \"start\": 1}", "decoder: Strip"},
    {"/decoder", "{\"type\": \"Strip\", \"content\": \" \", \"start\": \"1\"}", "decoder.start"},
    {"/post_processor", "{\"type\": \"Sideways\"}", "post_processor: Sideways is not supported"},
    {"/post_processor", R"({"type": "RobertaProcessing", "cls": "x"})", "post_processor.cls"},
    {"/post_processor", R"({"type": "RobertaProcessing", "cls": ["<cls>", 1]})", "'<cls>' is no token"},
    {"/post_processor", "7", "post_processor: expected an object"},
};

TEST(TokenizerJson, DamageIsNamed) {
  for (const Damage& damage : kDamages) {
    Json json = Small();
    const Json::json_pointer pointer(damage.pointer);
    if (*damage.value == '\0')
      json[pointer.parent_pointer()].erase(pointer.back());
    else
      json[pointer] = Json::parse(damage.value);
    const Result<Tokenizer> tokenizer = Tokenizer::FromJson(json.dump(), "file.json");
    ASSERT_FALSE(tokenizer.ok()) << damage.pointer << " = " << damage.value;
    EXPECT_TRUE(tokenizer.failure().message.starts_with("file.json: ")) << tokenizer.failure().message;
    EXPECT_NE(tokenizer.failure().message.find(damage.expected), std::string::npos)
        << tokenizer.failure().message;
  }
}

TEST(TokenizerJson, EveryPrefixOfAFileFails) {
  const std::string text = Small().dump();
  for (size_t size = 0; size < text.size(); ++size)
    EXPECT_FALSE(Tokenizer::FromJson(std::string_view(text).substr(0, size), "cut").ok());
}

// By hand, from the definitions of the `tokenizers` library.
TEST(TokenizerJson, StepsDoWhatTheirNamesSay) {
  struct Step {
    const char* part;
    const char* json;
    const char* text;
    std::vector<int32_t> ids;
  };
  const Step steps[] = {
      {"normalizer", R"({"type": "Lowercase"})", "ABC", {4}},
      {"normalizer", R"({"type": "NFKC"})", "\uFF41\uFF42\uFF43", {4}},
      {"normalizer", R"({"type": "Prepend", "prepend": "a"})", "bc", {4}},
      {"normalizer", R"({"type": "Replace", "pattern": {"String": "xy"}, "content": "b"})", "axyc", {4}},
      {"normalizer", R"({"type": "Replace", "pattern": {"Regex": "x+"}, "content": "b"})", "axxxc", {4}},
      {"pre_tokenizer",
       R"({"type": "Split", "pattern": {"String": "c"}, "behavior": "Isolated"})",
       "abc",
       {3, 2}},
      {"pre_tokenizer",
       R"({"type": "Split", "pattern": {"String": "b"}, "behavior": "Removed"})",
       "abc",
       {0, 2}},
      {"pre_tokenizer",
       R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "MergedWithPrevious"})",
       "cabab",
       {2, 0, 1, 0, 1}},
      {"pre_tokenizer",
       R"({"type": "Split", "pattern": {"String": "a"}, "behavior": "MergedWithNext"})",
       "cabab",
       {2, 3, 3}},
      {"pre_tokenizer",
       R"({"type": "Split", "pattern": {"Regex": "[ab]"}, "behavior": "Contiguous"})",
       "abc",
       {3, 2}},
      {"pre_tokenizer",
       R"({"type": "Split", "pattern": {"Regex": "[ab]+"}, "behavior": "Removed", "invert": true})",
       "abc",
       {3}},
      {"pre_tokenizer", R"({"type": "Digits", "individual_digits": true})", "ab1", {3, 5}},
  };
  for (const Step& step : steps) {
    Json json = Small();
    json[step.part] = Json::parse(step.json);
    const Tokenizer tokenizer = Tokenizer::FromJson(json.dump(), "small").OrThrow();
    EXPECT_EQ(tokenizer.Encode(step.text), step.ids) << step.json;
  }
}

TEST(TokenizerJson, AddedTokensTakeSpaceAndRespectWords) {
  Json json = Small();
  json["added_tokens"] = Json::parse(R"([
      {"id": 9, "content": "<s>", "special": true, "lstrip": true, "rstrip": true},
      {"id": 10, "content": "cc", "special": false, "single_word": true, "normalized": false}])");
  const Tokenizer tokenizer = Tokenizer::FromJson(json.dump(), "small").OrThrow();
  EXPECT_EQ(tokenizer.EncodeWithSpecials("a \t<s> \u00A0b"), (std::vector<int32_t>{0, 9, 1}));
  EXPECT_EQ(tokenizer.Encode("cc"), (std::vector<int32_t>{10}));
  EXPECT_EQ(tokenizer.Encode("acc"), (std::vector<int32_t>{0, 2, 2}));
  EXPECT_EQ(tokenizer.Encode("cca"), (std::vector<int32_t>{2, 2, 0}));
}

// A pattern that backtracks without end gives up, and loses no byte.
TEST(TokenizerJson, HostilePatternsEnd) {
  Json json = Small();
  json["pre_tokenizer"] =
      Json::parse(R"({"type": "Split", "pattern": {"Regex": "(a+)+c$"}, "behavior": "Isolated"})");
  const Tokenizer tokenizer = Tokenizer::FromJson(json.dump(), "small").OrThrow();
  const std::string text = std::string(40, 'a') + "cb";  // 2^40 ways to fail at the last letter
  EXPECT_EQ(tokenizer.Decode(tokenizer.Encode(text), false), text);
}

std::string GgufWith(const std::function<void(GgufWriter*)>& fill) {
  GgufWriter writer;
  fill(&writer);
  return writer.Finish();
}

std::string Refusal(const std::string& bytes) {
  const io::Gguf gguf = io::Gguf::Parse(std::as_bytes(std::span(bytes)), "file.gguf").OrThrow();
  const Result<Tokenizer> tokenizer = Tokenizer::FromGguf(gguf);
  return tokenizer.ok() ? "" : tokenizer.failure().message;
}

TEST(TokenizerGguf, DamageIsNamed) {
  const auto has = [](const std::string& message, const char* expected) {
    EXPECT_TRUE(message.starts_with("file.gguf: ")) << message;
    EXPECT_NE(message.find(expected), std::string::npos) << message;
  };
  const std::string model = "tokenizer.ggml.model", tokens = "tokenizer.ggml.tokens";
  has(Refusal(GgufWith([](GgufWriter*) {})), "carries no tokenizer");
  has(Refusal(GgufWith([&](GgufWriter* w) { w->String(model, "bert"); })), "'bert' is not supported");
  has(Refusal(GgufWith([&](GgufWriter* w) { w->String(model, "gpt2"); })), "tokens: missing");
  has(Refusal(GgufWith([&](GgufWriter* w) {
        w->String(model, "gpt2");
        w->String("tokenizer.ggml.pre", "unheard-of");
      })),
      "'unheard-of' is not supported");
  has(Refusal(GgufWith([&](GgufWriter* w) {
        w->String(model, "gpt2");
        w->Ints(tokens, {1, 2});
      })),
      "tokens: missing");
  has(Refusal(GgufWith([&](GgufWriter* w) {
        w->String(model, "gpt2");
        w->Strings(tokens, {"a", "b"});
      })),
      "merges: missing");
  has(Refusal(GgufWith([&](GgufWriter* w) {
        w->String(model, "gpt2");
        w->Strings(tokens, {"a", "b"});
        w->Strings("tokenizer.ggml.merges", {"a b"});
      })),
      "merge 0: 'a b'");
  has(Refusal(GgufWith([&](GgufWriter* w) {
        w->String(model, "gpt2");
        w->Strings(tokens, {"a", "b"});
        w->Ints("tokenizer.ggml.token_type", {1});
      })),
      "token_type: 1 entries for 2 tokens");
  has(Refusal(GgufWith([&](GgufWriter* w) {
        w->String(model, "llama");
        w->Strings(tokens, {"a", "b"});
        w->Floats("tokenizer.ggml.scores", {0});
      })),
      "scores: 1 entries for 2 tokens");
  has(Refusal(GgufWith([&](GgufWriter* w) {
        w->String(model, "llama");
        w->Strings(tokens, {"a", "b"});
        w->Floats("tokenizer.ggml.scores", {0, std::numeric_limits<float>::quiet_NaN()});
      })),
      "not a number");
}

// Special ids, ends of turns and the template, as GGUF keys name them.
TEST(TokenizerGguf, KeysNameSpecials) {
  const std::string bytes = GgufWith([](GgufWriter* w) {
    w->String("tokenizer.ggml.model", "llama");
    w->Strings("tokenizer.ggml.tokens", {"<unk>", "<s>", "</s>", "a", "<|im_end|>", "<|end|>", "b"});
    w->Floats("tokenizer.ggml.scores", {0, 0, 0, -1, 0, 0, -2});
    w->Ints("tokenizer.ggml.token_type", {2, 3, 3, 1, 3, 1, 1});
    w->Int("tokenizer.ggml.bos_token_id", 1);
    w->Int("tokenizer.ggml.eos_token_id", 2);
    w->Int("tokenizer.ggml.eot_token_id", 6);
    w->Int("tokenizer.ggml.unknown_token_id", 0);
    w->Int("tokenizer.ggml.padding_token_id", 0xFFFFFFFFu);
    w->Bool("tokenizer.ggml.add_bos_token", false);
    w->Bool("tokenizer.ggml.add_space_prefix", false);
    w->String("tokenizer.chat_template", "T");
  });
  const io::Gguf gguf = io::Gguf::Parse(std::as_bytes(std::span(bytes)), "file.gguf").OrThrow();
  const Tokenizer tokenizer = Tokenizer::FromGguf(gguf).OrThrow();
  EXPECT_EQ(tokenizer.bos(), 1);
  EXPECT_EQ(tokenizer.eos(), 2);
  EXPECT_FALSE(tokenizer.adds_bos());
  // <|end|> is an ordinary token here.
  EXPECT_EQ(tokenizer.end_ids(), (std::vector<int32_t>{2, 6, 4}));
  EXPECT_EQ(tokenizer.chat_template(), "T");
  EXPECT_EQ(tokenizer.Encode("ab"), (std::vector<int32_t>{3, 6})) << "no space is put in front";
  EXPECT_EQ(tokenizer.Encode("axxb"), (std::vector<int32_t>{3, 0, 0, 6})) << "no byte tokens: unknown";
  EXPECT_EQ(tokenizer.EncodeWithSpecials("a</s>"), (std::vector<int32_t>{3, 2}));
}

}  // namespace
}  // namespace rung::text
