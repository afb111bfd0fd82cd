// vocab.json and merges.txt, with the special tokens that tokenizer_config.json and its like name.
#include <fmt/format.h>

#include <filesystem>
#include <set>
#include <string>
#include <string_view>
#include <system_error>

#include "io/json_file.h"
#include "text/tokenizer_parts.h"

namespace rung::text {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kLimit = uint64_t{128} << 20;  // bytes

// "left right" a line, behind an optional "#version" line.
Result<Json> ReadMergeLines(const Path& path) {
  const Result<std::string> text = ReadTextFile(path, kLimit);
  if (!text.ok()) return text.failure();
  Json merges = Json::array();
  std::string_view rest = text.value();
  for (size_t number = 1; !rest.empty(); ++number) {
    const size_t end = rest.find('\n');
    std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty() || line.starts_with("#version")) continue;
    const size_t space = line.find(' ');
    if (space == 0 || space + 1 >= line.size() || line.find(' ', space + 1) != std::string_view::npos)
      return Failure{fmt::format("{}:{}: expected two tokens with a space between, found '{:.80}'",
                                 path.string(), number, line)};
    merges.push_back({std::string(line.substr(0, space)), std::string(line.substr(space + 1))});
  }
  return merges;
}

// Gathers added tokens, each once.
class AddedList {
 public:
  explicit AddedList(const Json& vocabulary) : vocabulary_(vocabulary) {}

  // A special token that is in the vocabulary: its text, or an object with its text and flags. Others are
  // left to those who read the file for what it names.
  void AddNamed(const Json& token) {
    const Json text = token.is_object() ? token.value("content", Json()) : token;
    if (!text.is_string()) return;
    const auto id = vocabulary_.find(text.get<std::string>());
    if (id != vocabulary_.end()) Add(*id, text, token, true);
  }
  void AddId(const Json& id) {
    for (const auto& [text, value] : vocabulary_.items())
      if (value == id) Add(id, text, Json(), true);
  }
  void Add(const Json& id, const Json& text, const Json& flags, bool special) {
    if (!seen_.insert(text.dump()).second) return;
    Json token = {{"id", id}, {"content", text}, {"special", special}, {"normalized", false}};
    for (const char* flag : {"lstrip", "rstrip", "single_word"})
      if (flags.is_object() && flags.contains(flag)) token[flag] = flags[flag];
    tokens_.push_back(std::move(token));
  }
  const Json& tokens() const { return tokens_; }

 private:
  const Json& vocabulary_;
  Json tokens_ = Json::array();
  std::set<std::string> seen_;
};

// An absent file is null.
Result<Json> ReadOptional(const Path& path) {
  std::error_code error;
  return std::filesystem::exists(path, error) ? io::ReadJson(path, kLimit) : Result<Json>(Json());
}

void AddNamedTokens(const Json& file, AddedList* added) {
  for (const char* key :
       {"bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token", "mask_token"})
    if (const auto token = file.find(key); token != file.end()) added->AddNamed(*token);
  if (const auto more = file.find("additional_special_tokens"); more != file.end() && more->is_array())
    for (const Json& token : *more) added->AddNamed(token);
}

// {"id": {"content": ..., flags}}
Status AddDecoder(const Json& decoder, const std::string& name, AddedList* added) {
  for (const auto& [key, token] : decoder.items()) {
    const bool number =
        !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
    if (!number || !token.is_object() || !token.contains("content"))
      return Failure{fmt::format(
          "{}: added_tokens_decoder: '{:.40}': expected an id and an object with content", name, key)};
    added->Add(std::stoull(key), token["content"], token, token.value("special", Json(false)) == true);
  }
  return Ok{};
}

// Special tokens by id, where no file beside says more.
void AddIds(const Json& config, AddedList* added) {
  for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
    const auto ids = config.find(key);
    if (ids == config.end()) continue;
    if (!ids->is_array()) added->AddId(*ids);
    for (const Json& id : ids->is_array() ? *ids : Json::array()) added->AddId(id);
  }
}

}  // namespace

Result<Json> ReadVocabularyFiles(const Path& folder) {
  Result<Json> vocabulary = io::ReadJson(folder / "vocab.json", kLimit);
  if (!vocabulary.ok()) return vocabulary;
  if (!vocabulary.value().is_object())
    return Failure{(folder / "vocab.json").string() + ": expected an object of tokens and ids"};
  Result<Json> merges = ReadMergeLines(folder / "merges.txt");
  if (!merges.ok()) return merges;

  AddedList added(vocabulary.value());
  Json prefix = false;
  for (const char* file :
       {"tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "config.json"}) {
    const Result<Json> json = ReadOptional(folder / file);
    if (!json.ok()) return json;
    if (!json.value().is_object()) continue;  // of another type: those who read it for what it names say so
    const std::string_view name = file;
    if (name == "tokenizer_config.json") {
      if (const auto decoder = json.value().find("added_tokens_decoder"); decoder != json.value().end()) {
        const Status status = AddDecoder(*decoder, (folder / file).string(), &added);
        if (!status.ok()) return status.failure();
      }
      prefix = json.value().value("add_prefix_space", Json(false));
    }
    if (name == "added_tokens.json")
      for (const auto& [text, id] : json.value().items()) added.Add(id, text, Json(), false);
    else if (name == "config.json")
      AddIds(json.value(), &added);
    else
      AddNamedTokens(json.value(), &added);
  }
  return Json{
      {"added_tokens", added.tokens()},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", prefix}}},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model",
       {{"type", "BPE"}, {"vocab", std::move(vocabulary).value()}, {"merges", std::move(merges).value()}}}};
}

}  // namespace rung::text
