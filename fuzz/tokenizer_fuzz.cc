// Foreign tokenizer.json files and foreign text: a message or ids, whole and streamed decoding alike.
//
// Input: the bytes before the first NUL are a tokenizer.json, those behind it a text. An empty file stands
// for two small built-in tokenizers, so that texts are reached at once.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/text.h"
#include "text/tokenizer.h"

namespace {

constexpr const char* kBuiltIn = R"({
  "added_tokens": [{"id": 300, "content": "<|x|>", "special": true}, {"id": 301, "content": "  ", "special": false}],
  "normalizer": {"type": "NFC"},
  "pre_tokenizer": {"type": "Split", "behavior": "Isolated", "pattern": {"Regex":
      "(?i:'s|'t)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"}},
  "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
  "model": {"type": "BPE", "unk_token": "?", "byte_fallback": true,
      "vocab": {"a": 0, "b": 1, "ab": 2, "aa": 3, "?": 4, " ": 5, " a": 6, "<0xC3>": 7, "<0xA9>": 8},
      "merges": ["a b", "a a", [" ", "a"]]}})";

constexpr const char* kUnigram = R"({
  "added_tokens": [{"id": 9, "content": "b a", "special": false, "normalized": true, "lstrip": true, "rstrip": true}],
  "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Strip"}]},
  "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Punctuation"}, {"type": "Digits"},
      {"type": "Metaspace", "replacement": "_", "prepend_scheme": "first"}]},
  "decoder": {"type": "Metaspace", "replacement": "_"},
  "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": [["<unk>", 0], ["_", -1], ["a", -2.5],
      ["ab", -3], ["_a", -2], ["bab", -4], ["<0xC3>", -9], ["<0xA9>", -9], ["e", -3]]}})";

void Check(const rung::text::Tokenizer& tokenizer, std::string_view text) {
  for (const bool specials : {false, true}) {
    const auto ids = specials ? tokenizer.EncodeWithSpecials(text) : tokenizer.Encode(text);
    rung::text::StreamDecoder decoder(tokenizer);
    std::string streamed;
    for (const int32_t id : ids) {
      if (id < 0 || id >= tokenizer.vocab_size()) std::abort();
      streamed += decoder.Push(id);
    }
    streamed += decoder.Finish();
    if (streamed != tokenizer.Decode(ids, false) || !rung::IsUtf8(streamed)) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view input(reinterpret_cast<const char*>(data), size);
  const size_t nul = input.find('\0');
  const std::string_view json = input.substr(0, nul);
  const std::string_view text = nul == input.npos ? std::string_view("ab 12\u00e9") : input.substr(nul + 1);
  static const rung::text::Tokenizer kSmall = rung::text::Tokenizer::FromJson(kBuiltIn, "built-in").OrThrow();
  static const rung::text::Tokenizer kScored = rung::text::Tokenizer::FromJson(kUnigram, "unigram").OrThrow();
  if (json.empty()) {
    Check(kSmall, text);
    Check(kScored, text);
    return 0;
  }
  const auto tokenizer = rung::text::Tokenizer::FromJson(json, "fuzz");
  if (!tokenizer.ok()) {
    if (tokenizer.failure().message.size() <= sizeof("fuzz:")) std::abort();
    return 0;
  }
  Check(tokenizer.value(), text);
  return 0;
}
