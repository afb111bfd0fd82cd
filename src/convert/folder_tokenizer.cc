#include "convert/folder_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "base/text.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace rung::convert {
namespace {

using Json = nlohmann::ordered_json;
using text::TokenKind;

constexpr const char* kSpaceMark = "\u2581";

std::string Dump(const Json& json) { return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n"; }

class TokenizerWriter {
 public:
  TokenizerWriter(const io::Gguf& gguf, const text::Tokenizer& tokenizer)
      : gguf_(gguf),
        tokenizer_(tokenizer),
        tokens_(*gguf.GetStrings("tokenizer.ggml.tokens")),
        kinds_(gguf.GetInts("tokenizer.ggml.token_type")),
        byte_level_(tokenizer.kind().starts_with("byte-level")) {}

  std::string TokenizerJson() const {
    Json model = {{"type", "BPE"},
                  {"dropout", nullptr},
                  {"unk_token", byte_level_ ? Json(nullptr) : Text(Id("unknown"))},
                  {"continuing_subword_prefix", nullptr},
                  {"end_of_word_suffix", nullptr},
                  {"fuse_unk", !byte_level_},
                  {"byte_fallback", !byte_level_},
                  {"ignore_merges", Is("llama-bpe")},
                  {"vocab", Vocab()},
                  {"merges", byte_level_ ? GivenMerges() : MadeMerges()}};
    return Dump({{"version", "1.0"},
                 {"truncation", nullptr},
                 {"padding", nullptr},
                 {"added_tokens", AddedTokens()},
                 {"normalizer", Normalizer()},
                 {"pre_tokenizer", PreTokenizer()},
                 {"post_processor", PostProcessor()},
                 {"decoder", Decoder()},
                 {"model", std::move(model)}});
  }

  std::string ConfigJson() const {
    Json config = {{"tokenizer_class", "PreTrainedTokenizerFast"},
                   {"add_bos_token", tokenizer_.adds_bos()},
                   {"clean_up_tokenization_spaces", false}};
    const std::pair<const char*, int32_t> tokens[] = {{"bos_token", tokenizer_.bos()},
                                                      {"eos_token", tokenizer_.eos()},
                                                      {"unk_token", Id("unknown")},
                                                      {"pad_token", Id("padding")}};
    for (const auto& [key, id] : tokens) {
      if (id >= 0) config[key] = Text(id);
    }
    if (!tokenizer_.chat_template().empty()) config["chat_template"] = tokenizer_.chat_template();
    return Dump(config);
  }

  std::string GenerationJson() const {
    Json config = Json::object();
    if (tokenizer_.bos() >= 0) config["bos_token_id"] = tokenizer_.bos();
    std::vector<int32_t> ends = tokenizer_.end_ids();
    if (ends.size() == 1) config["eos_token_id"] = ends[0];
    if (ends.size() > 1) config["eos_token_id"] = ends;
    if (const int32_t pad = Id("padding"); pad >= 0) config["pad_token_id"] = pad;
    return Dump(config);
  }

 private:
  TokenKind Kind(size_t id) const {
    if (!kinds_ || id >= kinds_->size()) return TokenKind::kNormal;
    const int64_t kind = (*kinds_)[id];
    return kind >= 1 && kind <= 6 ? static_cast<TokenKind>(kind) : TokenKind::kNormal;
  }
  bool Is(std::string_view pattern) const {
    return tokenizer_.kind().find(fmt::format("({})", pattern)) != std::string::npos;
  }
  int32_t Id(const char* key) const {
    const auto id = gguf_.GetInt(fmt::format("tokenizer.ggml.{}_token_id", key));
    return id && *id >= 0 && *id < static_cast<int64_t>(tokens_.size()) ? static_cast<int32_t>(*id) : -1;
  }
  Json Text(int32_t id) const { return id < 0 ? Json(nullptr) : Json(tokens_[static_cast<size_t>(id)]); }

  Json Vocab() const {
    Json vocab = Json::object();
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (Kind(id) != TokenKind::kUnused) vocab[tokens_[id]] = id;
    }
    return vocab;
  }

  Json AddedTokens() const {
    Json list = Json::array();
    for (size_t id = 0; id < tokens_.size(); ++id) {
      const TokenKind kind = Kind(id);
      const bool special = kind == TokenKind::kControl || kind == TokenKind::kUnknown;
      if (!special && kind != TokenKind::kUserDefined) continue;
      list.push_back({{"id", id},
                      {"content", tokens_[id]},
                      {"single_word", false},
                      {"lstrip", false},
                      {"rstrip", false},
                      {"normalized", false},
                      {"special", special}});
    }
    return list;
  }

  Json GivenMerges() const {
    Json merges = Json::array();
    for (const std::string& merge : *gguf_.GetStrings("tokenizer.ggml.merges")) merges.push_back(merge);
    return merges;
  }

  // Every way to join two tokens into a third, the best-scored result first; among equals the order of ids.
  Json MadeMerges() const {
    const std::vector<double>& scores = *gguf_.GetFloats("tokenizer.ggml.scores");
    std::unordered_map<std::string_view, size_t> ids;
    for (size_t id = 0; id < tokens_.size(); ++id) {
      if (Kind(id) == TokenKind::kNormal) ids.emplace(tokens_[id], id);
    }
    struct Merge {
      double score;
      size_t result, left, right;
    };
    std::vector<Merge> merges;
    for (const auto& [text, id] : ids) {
      for (size_t cut = 1; cut < text.size(); ++cut) {
        const auto left = ids.find(text.substr(0, cut)), right = ids.find(text.substr(cut));
        if (left == ids.end() || right == ids.end()) continue;
        merges.push_back({scores[id], id, left->second, right->second});
      }
    }
    std::sort(merges.begin(), merges.end(), [](const Merge& a, const Merge& b) {
      if (a.score != b.score) return a.score > b.score;
      return std::tie(a.result, a.left, a.right) < std::tie(b.result, b.left, b.right);
    });
    Json list = Json::array();
    for (const Merge& merge : merges) list.push_back({tokens_[merge.left], tokens_[merge.right]});
    return list;
  }

  Json Normalizer() const {
    if (byte_level_) return Is("qwen2") ? Json({{"type", "NFC"}}) : Json(nullptr);
    Json steps = Json::array();
    if (AddsSpace()) steps.push_back({{"type", "Prepend"}, {"prepend", kSpaceMark}});
    steps.push_back({{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpaceMark}});
    return {{"type", "Sequence"}, {"normalizers", steps}};
  }
  bool AddsSpace() const { return gguf_.GetBool("tokenizer.ggml.add_space_prefix").value_or(true); }

  Json PreTokenizer() const {
    if (!byte_level_) return nullptr;
    Json bytes = {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}};
    const text::KnownPattern* split = Is("llama-bpe") ? &text::kLlama3Pattern
                                      : Is("qwen2")   ? &text::kQwen2Pattern
                                                      : nullptr;
    bytes["use_regex"] = split == nullptr;
    Json steps = Json::array();
    if (Is("smollm")) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
    if (split) {
      steps.push_back({{"type", "Split"},
                       {"pattern", {{"Regex", split->pattern}}},
                       {"behavior", "Isolated"},
                       {"invert", false}});
    }
    if (steps.empty()) return bytes;
    steps.push_back(bytes);
    return {{"type", "Sequence"}, {"pretokenizers", steps}};
  }

  Json PostProcessor() const {
    if (!tokenizer_.adds_bos() || tokenizer_.bos() < 0) return nullptr;
    const Json bos = Text(tokenizer_.bos());
    const auto text = [](const char* id, int type) {
      return Json{{"Sequence", {{"id", id}, {"type_id", type}}}};
    };
    const auto special = [&](int type) { return Json{{"SpecialToken", {{"id", bos}, {"type_id", type}}}}; };
    Json specials = Json::object();
    specials[bos.get<std::string>()] = {
        {"id", bos}, {"ids", {tokenizer_.bos()}}, {"tokens", Json::array({bos})}};
    return {{"type", "TemplateProcessing"},
            {"single", Json::array({special(0), text("A", 0)})},
            {"pair", Json::array({special(0), text("A", 0), special(1), text("B", 1)})},
            {"special_tokens", specials}};
  }

  Json Decoder() const {
    if (byte_level_) {
      return {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}};
    }
    Json steps = Json::array({{{"type", "Replace"}, {"pattern", {{"String", kSpaceMark}}}, {"content", " "}},
                              {{"type", "ByteFallback"}},
                              {{"type", "Fuse"}}});
    if (AddsSpace()) steps.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
    return {{"type", "Sequence"}, {"decoders", steps}};
  }

  const io::Gguf& gguf_;
  const text::Tokenizer& tokenizer_;
  const std::vector<std::string>& tokens_;
  const std::vector<int64_t>* kinds_;
  bool byte_level_;
};

}  // namespace

ModelTexts TokenizerTexts(const io::Gguf& gguf, const OnNote& on_note) {
  const auto without = [&](const std::string& why) -> ModelTexts {
    if (on_note) {
      on_note(
          fmt::format("note: the folder has no tokenizer: {}; copy tokenizer.json and "
                      "tokenizer_config.json from the original model",
                      why));
    }
    return {};
  };
  const Result<text::Tokenizer> tokenizer = text::Tokenizer::FromGguf(gguf);
  if (!tokenizer.ok()) return without(tokenizer.failure().message);
  for (const std::string& token : *gguf.GetStrings("tokenizer.ggml.tokens")) {
    // JSON is UTF-8.
    if (!IsUtf8(token)) return without("one of its tokens is no UTF-8");
  }
  const TokenizerWriter writer(gguf, tokenizer.value());
  return {{"tokenizer.json", writer.TokenizerJson()},
          {"tokenizer_config.json", writer.ConfigJson()},
          {"generation_config.json", writer.GenerationJson()}};
}

}  // namespace rung::convert
