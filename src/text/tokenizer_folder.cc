// A model folder: tokenizer.json, or vocab.json with merges.txt, and in the files beside it special ids, ends
// of turns and the chat template.
#include <fmt/format.h>

#include <memory>
#include <span>

#include "io/json_file.h"
#include "text/json_reader.h"
#include "text/tokenizer.h"
#include "text/tokenizer_impl.h"
#include "text/tokenizer_parts.h"

namespace rung::text {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kTokenizerLimit = uint64_t{128} << 20;  // bytes; the largest known has 33 MB
constexpr uint64_t kSmallLimit = uint64_t{8} << 20;        // of the files beside it

// An absent file is an empty object.
Result<Json> ReadBeside(const Path& folder, const char* file) {
  const Path path = folder / file;
  std::error_code error;
  if (!std::filesystem::exists(path, error)) return Json::object();
  Result<Json> json = io::ReadJson(path, kSmallLimit);
  if (json.ok() && !json.value().is_object()) return Failure{path.string() + ": expected a JSON object"};
  return json;
}

// A token named by its text or by an object with its text; -1 when the key is absent or null.
int32_t ReadTokenText(const Json& json, const char* key, const TokenizerImpl& impl, JsonReader* reader) {
  const auto member = json.find(key);
  if (member == json.end() || member->is_null()) return -1;
  const std::string text = member->is_object() ? reader->String(*member, "content", "", key)
                                               : reader->String(json, key, "", "tokenizer");
  const int32_t id = text.empty() ? -1 : impl.Find(text);
  if (id < 0 && reader->ok())
    reader->Fail(fmt::format("{}: '{:.60}' is no token of tokenizer.json", key, text));
  return id;
}

// One id or a list of ids; empty when the key is absent or null.
std::vector<int32_t> ReadIds(const Json& json, const char* key, JsonReader* reader) {
  const auto member = json.find(key);
  std::vector<int32_t> ids;
  if (member == json.end() || member->is_null()) return ids;
  if (!member->is_array()) return {static_cast<int32_t>(reader->Int(*member, key))};
  for (const Json& id : *member) ids.push_back(static_cast<int32_t>(reader->Int(id, key)));
  return ids;
}

int32_t FirstKnown(const std::vector<int32_t>& ids, const TokenizerImpl& impl) {
  for (const int32_t id : ids)
    if (impl.vocabulary.Has(id)) return id;
  return -1;
}

// A string, or a list of {"name", "template"} of which "default" is taken.
std::string ReadTemplate(const Json& config, JsonReader* reader) {
  const auto member = config.find("chat_template");
  if (member == config.end() || member->is_null()) return {};
  if (!member->is_array()) return reader->String(config, "chat_template", "", "tokenizer_config");
  for (const Json& entry : *member)
    if (reader->String(entry, "name", "", "chat_template") == "default")
      return reader->String(entry, "template", "", "chat_template");
  return {};
}

// What one file beside tokenizer.json says; a failure names that file.
template <class Take>
Status ReadFile(const Path& folder, const char* file, const Take& take) {
  const Result<Json> json = ReadBeside(folder, file);
  if (!json.ok()) return json.failure();
  JsonReader reader((folder / file).string());
  take(json.value(), &reader);
  if (!reader.ok()) return Failure{reader.failure()};
  return Ok{};
}

Result<std::shared_ptr<TokenizerImpl>> ReadVocabulary(const Path& folder) {
  const Path path = folder / "tokenizer.json";
  std::error_code error;
  if (!std::filesystem::exists(path, error) && std::filesystem::exists(folder / "merges.txt", error)) {
    const Result<Json> root = ReadVocabularyFiles(folder);
    if (!root.ok()) return root.failure();
    return ReadTokenizerRoot(root.value(), (folder / "vocab.json").string());
  }
  const Result<std::string> text = ReadTextFile(path, kTokenizerLimit);
  if (!text.ok()) return text.failure();
  return ReadTokenizerJson(text.value(), path.string());
}

}  // namespace

Result<std::shared_ptr<TokenizerImpl>> ReadTokenizerFolder(const Path& folder) {
  Result<std::shared_ptr<TokenizerImpl>> read = ReadVocabulary(folder);
  if (!read.ok()) return read;
  TokenizerImpl& impl = *read.value();
  int32_t bos = -1, eos = -1;
  // Earlier files are nearer to the tokenizer, and win; ids of later ones fill in what is missing.
  Status status = ReadFile(folder, "tokenizer_config.json", [&](const Json& json, JsonReader* reader) {
    bos = ReadTokenText(json, "bos_token", impl, reader);
    eos = ReadTokenText(json, "eos_token", impl, reader);
    impl.adds_bos = reader->Bool(json, "add_bos_token", impl.adds_bos, "tokenizer_config");
    impl.chat_template = ReadTemplate(json, reader);
  });
  if (!status.ok()) return status.failure();
  status = ReadFile(folder, "special_tokens_map.json", [&](const Json& json, JsonReader* reader) {
    if (bos < 0) bos = ReadTokenText(json, "bos_token", impl, reader);
    if (eos < 0) eos = ReadTokenText(json, "eos_token", impl, reader);
  });
  if (!status.ok()) return status.failure();
  for (const char* file : {"generation_config.json", "config.json"}) {
    status = ReadFile(folder, file, [&](const Json& json, JsonReader* reader) {
      const std::vector<int32_t> ends = ReadIds(json, "eos_token_id", reader);
      impl.end_ids.insert(impl.end_ids.end(), ends.begin(), ends.end());
      if (eos < 0) eos = FirstKnown(ends, impl);
      if (bos < 0 && impl.bos < 0 && impl.adds_bos)
        bos = FirstKnown(ReadIds(json, "bos_token_id", reader), impl);
    });
    if (!status.ok()) return status.failure();
  }
  if (bos >= 0) impl.bos = bos;
  impl.eos = eos;
  std::error_code error;
  const Path jinja = folder / "chat_template.jinja";
  if (std::filesystem::exists(jinja, error)) {
    Result<std::string> source = ReadTextFile(jinja, kSmallLimit);
    if (!source.ok()) return source.failure();
    impl.chat_template = std::move(source).value();
  }
  return read;
}

std::span<const char* const> Tokenizer::FolderFiles() {
  static constexpr const char* kNames[] = {"tokenizer.json",
                                           "vocab.json",
                                           "merges.txt",
                                           "tokenizer_config.json",
                                           "special_tokens_map.json",
                                           "added_tokens.json",
                                           "generation_config.json",
                                           "config.json",
                                           "chat_template.jinja"};
  return kNames;
}

}  // namespace rung::text
