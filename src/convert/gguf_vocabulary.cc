#include "convert/gguf_vocabulary.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "io/json_file.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace rung::convert {
namespace {

using nlohmann::json;
using text::TokenKind;

constexpr uint64_t kSmallLimit = uint64_t{8} << 20;  // bytes of the files beside tokenizer.json

// Why a tokenizer has no words in GGUF: not wrong, only not known there.
struct NotKnown {
  std::string why;
};

json ReadBeside(const Path& folder, const char* name) {
  std::error_code error;
  if (!std::filesystem::exists(folder / name, error)) return json::object();
  json read = io::ReadJson(folder / name, kSmallLimit).OrThrow();
  if (!read.is_object()) {
    throw Error(ExitCode::kBadInput, fmt::format("{}: not a JSON object", (folder / name).string()));
  }
  return read;
}

const json& MemberOf(const json& object, const char* key) {
  static const json kNull;
  const auto found = object.is_object() ? object.find(key) : object.end();
  return !object.is_object() || found == object.end() ? kNull : *found;
}

std::string TextOf(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  const json& content = MemberOf(value, "content");  // a token as an object
  return content.is_string() ? content.get<std::string>() : "";
}

bool Contains(const json& value, std::string_view text) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace).find(text) != std::string::npos;
}

struct Token {
  std::string text;
  TokenKind kind = TokenKind::kUnused;
};

class VocabularyWriter {
 public:
  VocabularyWriter(const Path& folder, int64_t V)
      : folder_(folder),
        root_(io::ReadJson(folder / "tokenizer.json", io::kJsonFileLimit).OrThrow()),
        config_(ReadBeside(folder, "tokenizer_config.json")),
        map_(ReadBeside(folder, "special_tokens_map.json")),
        tokenizer_(text::Tokenizer::FromFolder(folder).OrThrow()),
        tokens_(static_cast<size_t>(V)) {}

  io::GgufFields Fields() {
    if (tokenizer_.vocab_size() > static_cast<int64_t>(tokens_.size())) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: the tokenizer has ids up to {}, the model's vocabulary is {}",
                              folder_.string(), tokenizer_.vocab_size() - 1, tokens_.size()));
    }
    const bool byte_level = tokenizer_.kind().starts_with("byte-level");
    if (!byte_level && tokenizer_.kind() != "sentencepiece bpe") {
      throw NotKnown{fmt::format("a tokenizer of kind \"{}\"", tokenizer_.kind())};
    }
    ReadTokens(byte_level);
    Put("model", std::string(byte_level ? "gpt2" : "llama"));
    Put("pre", byte_level ? PatternName() : std::string("default"));
    PutTokens();
    if (byte_level) {
      Put("merges", Merges());
    } else {
      Put("scores", Scores());
      Put("add_space_prefix", AddsSpace());
    }
    PutIds();
    if (!tokenizer_.chat_template().empty()) {
      fields_.emplace_back("tokenizer.chat_template", tokenizer_.chat_template());
    }
    return std::move(fields_);
  }

 private:
  void Put(const char* key, io::GgufField value) {
    fields_.emplace_back(fmt::format("tokenizer.ggml.{}", key), std::move(value));
  }

  void ReadTokens(bool byte_level) {
    const json& model = MemberOf(root_, "model");
    for (const auto& [text, id] : MemberOf(model, "vocab").items()) {
      const bool is_byte = !byte_level && text::ByteOfToken(text) >= 0;
      At(id) = {text, is_byte ? TokenKind::kByte : TokenKind::kNormal};
    }
    for (const json& added : MemberOf(root_, "added_tokens")) {
      const bool special = MemberOf(added, "special") == true;
      At(MemberOf(added, "id")) = {TextOf(added), special ? TokenKind::kControl : TokenKind::kUserDefined};
    }
    const std::string unknown = TextOf(MemberOf(model, "unk_token"));
    for (size_t id = 0; id < tokens_.size(); ++id) {
      Token& token = tokens_[id];
      if (!byte_level && !unknown.empty() && token.text == unknown) token.kind = TokenKind::kUnknown;
      if (token.kind == TokenKind::kUnused) token.text = fmt::format("[PAD{}]", id);
    }
  }

  // What FromFolder has checked is only looked up.
  Token& At(const json& id) {
    const int64_t number = id.is_number_integer() ? id.get<int64_t>() : -1;
    RUNG_CHECK(number >= 0 && number < static_cast<int64_t>(tokens_.size()),
               "tokenizer: an id that was checked");
    return tokens_[static_cast<size_t>(number)];
  }

  void PutTokens() {
    std::vector<std::string> texts;
    std::vector<int32_t> kinds;
    for (const Token& token : tokens_) {
      texts.push_back(token.text);
      kinds.push_back(static_cast<int32_t>(token.kind));
    }
    Put("tokens", std::move(texts));
    Put("token_type", std::move(kinds));
  }

  // "byte-level bpe (smollm)" -> "smollm".
  std::string PatternName() const {
    const std::string& kind = tokenizer_.kind();
    const size_t open = kind.find('(');
    const std::string name = kind.substr(open + 1, kind.size() - open - 2);
    if (name == "own pattern") throw NotKnown{"the pattern of its pre-tokenizer has no name in GGUF"};
    return name;
  }

  std::vector<std::pair<std::string, std::string>> MergePairs() const {
    std::vector<std::pair<std::string, std::string>> pairs;
    for (const json& merge : MemberOf(MemberOf(root_, "model"), "merges")) {
      if (merge.is_array()) {
        pairs.emplace_back(merge[0].get<std::string>(), merge[1].get<std::string>());
        continue;
      }
      const std::string both = merge.get<std::string>();
      const size_t space = both.find(' ', 1);
      pairs.emplace_back(both.substr(0, space), both.substr(space + 1));
    }
    return pairs;
  }

  std::vector<std::string> Merges() const {
    std::vector<std::string> merges;
    for (const auto& [left, right] : MergePairs()) {
      // Between two tokens a space is all that parts them.
      if (left.find(' ') != std::string::npos || right.find(' ') != std::string::npos) {
        throw NotKnown{"a merge of tokens with spaces in them"};
      }
      merges.push_back(left + ' ' + right);
    }
    return merges;
  }

  // SentencePiece joins where the score is highest: the order of the merges, by the first that makes a token.
  std::vector<float> Scores() const {
    std::map<std::string, float> of_text;
    for (const auto& [left, right] : MergePairs()) {
      of_text.emplace(left + right, -static_cast<float>(of_text.size()));
    }
    // Characters are made by no merge, and need a score below all others.
    auto next = -static_cast<float>(of_text.size());
    std::vector<float> scores;
    for (const Token& token : tokens_) {
      const auto made = of_text.find(token.text);
      if (token.kind != TokenKind::kNormal) {
        scores.push_back(0.0f);
      } else {
        scores.push_back(made == of_text.end() ? next-- : made->second);
      }
    }
    return scores;
  }

  // A space is put before a text: by the normaliser or, newer, by the pre-tokenizer.
  bool AddsSpace() const {
    const json &normalizer = MemberOf(root_, "normalizer"), &pre = MemberOf(root_, "pre_tokenizer");
    return Contains(normalizer, "\"Prepend\"") ||
           (Contains(pre, "\"Metaspace\"") && !Contains(pre, "\"never\"") &&
            !Contains(pre, "\"add_prefix_space\":false"));
  }

  int32_t IdOf(const char* key) const {
    for (const json* file : {&config_, &map_}) {
      const std::string text = TextOf(MemberOf(*file, key));
      if (!text.empty()) return tokenizer_.Find(text);
    }
    return -1;
  }

  void PutIds() {
    const std::string unknown = TextOf(MemberOf(MemberOf(root_, "model"), "unk_token"));
    const std::pair<const char*, int32_t> ids[] = {
        {"bos_token_id", tokenizer_.bos()},
        {"eos_token_id", tokenizer_.eos()},
        {"unknown_token_id", unknown.empty() ? IdOf("unk_token") : tokenizer_.Find(unknown)},
        {"padding_token_id", IdOf("pad_token")}};
    for (const auto& [key, id] : ids) {
      if (id >= 0) Put(key, static_cast<uint32_t>(id));
    }
    // A further end that the model's files name, of a turn.
    for (const int32_t id : tokenizer_.end_ids()) {
      if (id == tokenizer_.eos()) continue;
      Put("eot_token_id", static_cast<uint32_t>(id));
      break;
    }
    Put("add_bos_token", tokenizer_.adds_bos());
    Put("add_eos_token", MemberOf(config_, "add_eos_token") == true);
  }

  Path folder_;
  json root_, config_, map_;
  text::Tokenizer tokenizer_;
  std::vector<Token> tokens_;
  io::GgufFields fields_;
};

}  // namespace

io::GgufFields VocabularyFields(const Path& folder, int64_t V, const OnNote& on_note) {
  const auto without = [&](const std::string& why) -> io::GgufFields {
    if (on_note) on_note(fmt::format("note: the file has no tokenizer: {}", why));
    return {{"tokenizer.ggml.model", std::string("no_vocab")}};
  };
  std::error_code error;
  if (!std::filesystem::exists(folder / "tokenizer.json", error)) {
    return without(fmt::format("{} has no tokenizer.json", folder.string()));
  }
  try {
    return VocabularyWriter(folder, V).Fields();
  } catch (const NotKnown& unknown) {
    return without(unknown.why);
  }
}

io::GgufFields CopiedFields(const io::Gguf& gguf) {
  io::GgufFields fields;
  for (const auto& [key, value] : gguf.raw_metadata()) {
    if (key == "general.file_type" || key == "general.alignment" || key.starts_with("split.") ||
        key.starts_with("quantize.")) {
      continue;
    }
    fields.emplace_back(key, value);
  }
  return fields;
}

}  // namespace rung::convert
