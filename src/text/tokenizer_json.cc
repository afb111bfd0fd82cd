// tokenizer.json: the vocabulary and merges of a BPE model, and the steps around them (tokenizer_parts.h).
#include <fmt/format.h>

#include <cmath>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "io/json_file.h"
#include "text/json_reader.h"
#include "text/tokenizer_impl.h"
#include "text/tokenizer_parts.h"
#include "text/utf8.h"

namespace rung::text {
namespace {

using Json = nlohmann::json;

const Json kNull;

const Json& MemberOrNull(const Json& object, const char* key) {
  const auto member = object.find(key);
  return member == object.end() ? kNull : *member;
}

void ReadModelOptions(const Json& model, JsonReader* reader, TokenizerImpl* impl) {
  const std::string type = reader->String(model, "type", "BPE", "model");
  if (type == "Unigram") {
    impl->unigram.emplace();
    impl->unigram->byte_fallback = reader->Bool(model, "byte_fallback", false, "model");
    return;
  }
  if (type != "BPE")
    reader->Fail(fmt::format("model: {:.60} is not supported, only BPE and Unigram are", type));
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!reader->String(model, key, "", "model").empty())
      reader->Fail(fmt::format("model.{}: is not supported", key));
  const Json& dropout = MemberOrNull(model, "dropout");
  if (!dropout.is_null() && dropout != 0) reader->Fail("model.dropout: is not supported");
  impl->bpe.fuse_unknown = reader->Bool(model, "fuse_unk", false, "model");
  impl->bpe.byte_fallback = reader->Bool(model, "byte_fallback", false, "model");
  impl->bpe.ignore_merges = reader->Bool(model, "ignore_merges", false, "model");
}

void AddModelToken(const std::string& text, int64_t id, bool byte_tokens, JsonReader* reader,
                   TokenizerImpl* impl) {
  std::string bytes;
  // A token outside the byte alphabet can come from no text, but may be named by an added token.
  const bool is_alphabet = impl->bpe.bytes && AppendAlphabetBytes(text, &bytes);
  const TokenKind kind = byte_tokens && ByteOfToken(text) >= 0 ? TokenKind::kByte
                         : impl->bpe.bytes && !is_alphabet     ? TokenKind::kUserDefined
                                                               : TokenKind::kNormal;
  if (impl->vocabulary.Add(id, is_alphabet ? std::string_view(bytes) : std::string_view(text), kind)) return;
  if (impl->vocabulary.Has(id))
    return reader->Fail(
        fmt::format("model.vocab: id {} is given to two tokens, one of them '{:.60}'", id, text));
  reader->Fail(fmt::format("model.vocab: '{:.60}' has id {}; at most {} is allowed", text, id,
                           Vocabulary::kMaxTokens - 1));
}

// {"text": id}
void ReadVocabulary(const Json& model, bool byte_tokens, JsonReader* reader, TokenizerImpl* impl) {
  const Json* vocabulary = reader->Object(model, "vocab", "model");
  if (vocabulary == nullptr) return reader->Fail("model.vocab: missing");
  for (const auto& [text, value] : vocabulary->items()) {
    const int64_t id = reader->Int(value, "model.vocab");
    if (reader->ok()) AddModelToken(text, id, byte_tokens, reader, impl);
    if (!reader->ok()) return;
  }
}

// [["text", score]], the id is the place.
void ReadScoredVocabulary(const Json& model, bool byte_tokens, JsonReader* reader, TokenizerImpl* impl,
                          std::vector<double>* scores) {
  const Json* vocabulary = reader->Array(model, "vocab", "model");
  if (vocabulary == nullptr) return reader->Fail("model.vocab: missing");
  std::unordered_set<std::string_view> seen;
  for (const Json& entry : *vocabulary) {
    const size_t id = scores->size();
    if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number() ||
        !std::isfinite(entry[1].get<double>()))
      return reader->Fail(fmt::format("model.vocab: entry {}: expected [text, score]", id));
    const auto& text = entry[0].get_ref<const std::string&>();
    if (!seen.insert(text).second)
      return reader->Fail(fmt::format("model.vocab: entry {}: '{:.60}' is there twice", id, text));
    scores->push_back(entry[1].get<double>());
    AddModelToken(text, static_cast<int64_t>(id), byte_tokens, reader, impl);
    if (!reader->ok()) return;
  }
}

void BuildUnigram(const Json& model, std::vector<double> scores, JsonReader* reader, TokenizerImpl* impl) {
  int64_t unknown = -1;
  if (const Json& id = MemberOrNull(model, "unk_id"); !id.is_null()) {
    unknown = reader->Int(id, "model.unk_id");
    if (unknown >= static_cast<int64_t>(scores.size()))
      reader->Fail(fmt::format("model.unk_id: {} is beyond the vocabulary of {}", unknown, scores.size()));
    if (!reader->ok()) return;
  }
  impl->unigram->byte_ids = impl->FindByteTokens();
  impl->unigram->Build(impl->vocabulary, std::move(scores), static_cast<int32_t>(unknown));
}

void ReadAddedTokens(const Json& root, JsonReader* reader, TokenizerImpl* impl) {
  const Json* list = reader->Array(root, "added_tokens", "tokenizer");
  if (list == nullptr) return;
  constexpr std::string_view kWhere = "added_tokens";
  const Json& vocabulary = MemberOrNull(MemberOrNull(root, "model"), "vocab");
  std::unordered_map<std::string, int32_t> ids;
  for (const Json& json : *list) {
    AddedToken token;
    token.text = reader->String(json, "content", "", kWhere);
    token.special = reader->Bool(json, "special", false, kWhere);
    token.lstrip = reader->Bool(json, "lstrip", false, kWhere);
    token.rstrip = reader->Bool(json, "rstrip", false, kWhere);
    token.single_word = reader->Bool(json, "single_word", false, kWhere);
    token.normalized = reader->Bool(json, "normalized", !token.special, kWhere);
    if (!json.is_object() || !json.contains("id") || token.text.empty())
      reader->Fail("added_tokens: expected objects with id and content");
    if (!reader->ok()) return;
    token.id = static_cast<int32_t>(reader->Int(json["id"], "added_tokens.id"));
    const auto [known, is_new] = ids.emplace(token.text, token.id);
    if (reader->ok() && known->second != token.id)
      reader->Fail(
          fmt::format("added_tokens: '{:.60}' has id {} and id {}", token.text, known->second, token.id));
    const Json& in_model = MemberOrNull(vocabulary, token.text.c_str());
    if (reader->ok() && !in_model.is_null() && in_model != token.id)
      reader->Fail(fmt::format("added_tokens: '{:.60}' has id {}, but in model.vocab {}", token.text,
                               token.id, in_model.dump()));
    if (reader->ok() && is_new && !impl->AddToken(token))
      reader->Fail(fmt::format("added_tokens: '{:.60}' has id {}, which is another token's or beyond {}",
                               token.text, token.id, Vocabulary::kMaxTokens - 1));
    if (!reader->ok()) return;
  }
}

// "left right" or ["left", "right"].
void ReadMerges(const Json& model, JsonReader* reader, TokenizerImpl* impl) {
  const Json* merges = reader->Array(model, "merges", "model");
  if (merges == nullptr) return reader->Fail("model.merges: missing");
  impl->bpe.merges.Reserve(merges->size());
  uint32_t rank = 0;
  for (const Json& merge : *merges) {
    const bool is_pair =
        merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string();
    const bool set = merge.is_string() ? impl->SetMerge(merge.get_ref<const std::string&>(), rank)
                     : is_pair         ? impl->SetMerge(merge[0].get_ref<const std::string&>(),
                                                        merge[1].get_ref<const std::string&>(), rank)
                                       : false;
    if (!set)
      return reader->Fail(
          fmt::format("model.merges: merge {}: {:.80}: expected two tokens of the vocabulary that join "
                      "into a third",
                      rank, merge.dump(-1, ' ', false, Json::error_handler_t::replace)));
    ++rank;
  }
}

void FindByteSymbols(const Json& model, JsonReader* reader, TokenizerImpl* impl) {
  const std::string unknown = reader->String(model, "unk_token", "", "model");
  if (!unknown.empty()) {
    impl->bpe.unknown = impl->Find(unknown);
    if (impl->bpe.unknown < 0)
      return reader->Fail(fmt::format("model.unk_token: '{:.60}' is no token of the vocabulary", unknown));
  }
  if (!impl->bpe.bytes) {
    impl->bpe.byte_ids = impl->FindByteTokens();
    return;
  }
  impl->bpe.byte_ids.fill(-1);
  for (int byte = 0; byte < 256; ++byte) {
    const char text = static_cast<char>(byte);
    const int32_t id = impl->vocabulary.Find({&text, 1});
    if (impl->vocabulary.Kind(id) == TokenKind::kNormal) impl->bpe.byte_ids[static_cast<size_t>(byte)] = id;
  }
}

// The name that GGUF files have for a byte-level pre-tokenizer, for people to read.
std::string NamePattern(const Json& root) {
  const std::string shown = MemberOrNull(root, "pre_tokenizer").dump();
  const auto has = [&](std::string_view text) {
    return shown.find(Json(std::string(text)).dump()) != std::string::npos;
  };
  if (has(kLlama3Pattern.pattern)) return "llama-bpe";
  if (has(kQwen2Pattern.pattern)) return "qwen2";
  if (has("Split")) return "own pattern";
  return has("Digits") ? "smollm" : "gpt-2";
}

}  // namespace

Result<std::shared_ptr<TokenizerImpl>> ReadTokenizerJson(std::string_view text, const std::string& name) {
  const Result<Json> parsed = io::ParseJson(text, name);
  if (!parsed.ok()) return parsed.failure();
  return ReadTokenizerRoot(parsed.value(), name);
}

Result<std::shared_ptr<TokenizerImpl>> ReadTokenizerRoot(const Json& root, const std::string& name) {
  JsonReader reader(name);
  auto impl = std::make_shared<TokenizerImpl>();
  const Json* model = reader.Object(root, "model", "tokenizer");
  if (model == nullptr) {
    reader.Fail("model: missing: this is no tokenizer.json");
    return Failure{reader.failure()};
  }
  bool byte_level = false, byte_tokens = false;
  ReadModelOptions(*model, &reader, impl.get());
  ReadNormalizer(MemberOrNull(root, "normalizer"), &reader, &impl->normalizer);
  ReadPreTokenizer(MemberOrNull(root, "pre_tokenizer"), &reader, &impl->pretokenizer, &byte_level);
  ReadDecoder(MemberOrNull(root, "decoder"), &reader, impl.get(), &byte_tokens);
  if (byte_level && impl->unigram)
    reader.Fail("pre_tokenizer: ByteLevel with a Unigram model is not supported");
  impl->bpe.bytes = byte_level;
  std::vector<double> scores;
  if (reader.ok() && impl->unigram)
    ReadScoredVocabulary(*model, byte_tokens, &reader, impl.get(), &scores);
  else if (reader.ok())
    ReadVocabulary(*model, byte_tokens, &reader, impl.get());
  if (reader.ok()) ReadAddedTokens(root, &reader, impl.get());
  if (!reader.ok()) return Failure{reader.failure()};
  impl->vocabulary.BuildIndex();
  if (impl->unigram) {
    BuildUnigram(*model, std::move(scores), &reader, impl.get());
  } else {
    FindByteSymbols(*model, &reader, impl.get());
    if (reader.ok()) ReadMerges(*model, &reader, impl.get());
    impl->FindWordMark(kSpaceMark);
  }
  const std::string first = ReadFirstSpecial(MemberOrNull(root, "post_processor"), &reader);
  if (!reader.ok()) return Failure{reader.failure()};
  impl->bos = first.empty() ? -1 : impl->Find(first);
  if (!first.empty() && impl->bos < 0)
    return Failure{fmt::format("{}: post_processor: '{:.60}' is no token of the vocabulary", name, first)};
  impl->adds_bos = impl->bos >= 0;
  impl->kind = impl->unigram             ? "unigram"
               : byte_level              ? fmt::format("byte-level bpe ({})", NamePattern(root))
               : impl->bpe.byte_fallback ? "sentencepiece bpe"
                                         : "bpe";
  return impl;
}

}  // namespace rung::text
