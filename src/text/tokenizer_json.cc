// tokenizer.json: the vocabulary and merges of a BPE model, and the steps around them (tokenizer_parts.h).
#include <fmt/format.h>

#include <memory>

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

void ReadModelOptions(const Json& model, JsonReader* reader, Bpe* bpe) {
  const std::string type = reader->String(model, "type", "BPE", "model");
  if (type != "BPE") reader->Fail(fmt::format("model: {:.60} is not supported, only BPE is", type));
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
    if (!reader->String(model, key, "", "model").empty())
      reader->Fail(fmt::format("model.{}: is not supported", key));
  const Json& dropout = MemberOrNull(model, "dropout");
  if (!dropout.is_null() && dropout != 0) reader->Fail("model.dropout: is not supported");
  bpe->fuse_unknown = reader->Bool(model, "fuse_unk", false, "model");
  bpe->byte_fallback = reader->Bool(model, "byte_fallback", false, "model");
  bpe->ignore_merges = reader->Bool(model, "ignore_merges", false, "model");
}

void ReadVocabulary(const Json& model, bool byte_tokens, JsonReader* reader, TokenizerImpl* impl) {
  const Json* vocabulary = reader->Object(model, "vocab", "model");
  if (vocabulary == nullptr) return reader->Fail("model.vocab: missing");
  std::string bytes;
  for (const auto& [text, value] : vocabulary->items()) {
    const int64_t id = reader->Int(value, "model.vocab");
    if (!reader->ok()) return;
    bytes.clear();
    // A token outside the byte alphabet can come from no text, but may be named by an added token.
    const bool is_alphabet = impl->bpe.bytes && AppendAlphabetBytes(text, &bytes);
    const TokenKind kind = byte_tokens && ByteOfToken(text) >= 0 ? TokenKind::kByte
                           : impl->bpe.bytes && !is_alphabet     ? TokenKind::kUserDefined
                                                                 : TokenKind::kNormal;
    if (impl->vocabulary.Add(id, is_alphabet ? std::string_view(bytes) : std::string_view(text), kind))
      continue;
    if (impl->vocabulary.Has(id))
      return reader->Fail(
          fmt::format("model.vocab: id {} is given to two tokens, one of them '{:.60}'", id, text));
    return reader->Fail(fmt::format("model.vocab: '{:.60}' has id {}; at most {} is allowed", text, id,
                                    Vocabulary::kMaxTokens - 1));
  }
}

void ReadAddedTokens(const Json& root, JsonReader* reader, TokenizerImpl* impl) {
  const Json* list = reader->Array(root, "added_tokens", "tokenizer");
  if (list == nullptr) return;
  constexpr std::string_view kWhere = "added_tokens";
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
    if (reader->ok() && !impl->AddToken(token))
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
  if (!impl->bpe.bytes) return impl->FindByteTokens();
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
  const Json& root = parsed.value();
  JsonReader reader(name);
  auto impl = std::make_shared<TokenizerImpl>();
  const Json* model = reader.Object(root, "model", "tokenizer");
  if (model == nullptr) {
    reader.Fail("model: missing: this is no tokenizer.json");
    return Failure{reader.failure()};
  }
  bool byte_level = false, byte_tokens = false;
  ReadModelOptions(*model, &reader, &impl->bpe);
  ReadNormalizer(MemberOrNull(root, "normalizer"), &reader, &impl->normalizer);
  ReadPreTokenizer(MemberOrNull(root, "pre_tokenizer"), &reader, &impl->pretokenizer, &byte_level);
  ReadDecoder(MemberOrNull(root, "decoder"), &reader, impl.get(), &byte_tokens);
  impl->bpe.bytes = byte_level;
  if (reader.ok()) ReadVocabulary(*model, byte_tokens, &reader, impl.get());
  if (reader.ok()) ReadAddedTokens(root, &reader, impl.get());
  if (!reader.ok()) return Failure{reader.failure()};
  impl->vocabulary.BuildIndex();
  FindByteSymbols(*model, &reader, impl.get());
  if (reader.ok()) ReadMerges(*model, &reader, impl.get());
  const std::string first = ReadFirstSpecial(MemberOrNull(root, "post_processor"), &reader);
  if (!reader.ok()) return Failure{reader.failure()};
  impl->bos = first.empty() ? -1 : impl->Find(first);
  impl->adds_bos = impl->bos >= 0;
  impl->kind = byte_level                ? fmt::format("byte-level bpe ({})", NamePattern(root))
               : impl->bpe.byte_fallback ? "sentencepiece bpe"
                                         : "bpe";
  return impl;
}

}  // namespace rung::text
