// For tests: the strings and ids of tests/data/text, and GGUF metadata made from a tokenizer.json.
#pragma once

#include <cstdint>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "base/files.h"
#include "io/gguf.h"

namespace rung::text {

inline const Path kTextData = "tests/data/text";

inline std::string ReadFixture(const Path& path) { return ReadTextFile(path, uint64_t{64} << 20).OrThrow(); }

struct Case {
  std::string text;
  std::vector<int32_t> ids;
};

// `inp` holds the strings, `out` a line of ids for each: see tools/make_tokenizer_fixtures.py.
inline std::vector<Case> ReadCases(const Path& inp, const Path& out) {
  const std::string strings = ReadFixture(inp), separator = "\n__ggml_vocab_test__\n";
  std::istringstream lines(ReadFixture(out));
  std::vector<Case> cases;
  for (size_t at = 0; at <= strings.size();) {
    const size_t end = std::min(strings.find(separator, at), strings.size());
    Case& one = cases.emplace_back();
    one.text = strings.substr(at, end - at);
    std::string line;
    std::getline(lines, line);
    std::istringstream ids(line);
    for (int32_t id = 0; ids >> id;) one.ids.push_back(id);
    at = end + separator.size();
  }
  return cases;
}

// Writes GGUF version 3 without tensors.
class GgufWriter {
 public:
  void String(const std::string& key, const std::string& value) {
    Key(key, 8);
    Text(value);
  }
  void Bool(const std::string& key, bool value) {
    Key(key, 7);
    body_ += static_cast<char>(value);
  }
  void Int(const std::string& key, uint32_t value) {
    Key(key, 4);
    Raw(value);
  }
  void Strings(const std::string& key, const std::vector<std::string>& values) {
    Array(key, 8, values.size());
    for (const std::string& value : values) Text(value);
  }
  void Ints(const std::string& key, const std::vector<int32_t>& values) {
    Array(key, 5, values.size());
    for (const int32_t value : values) Raw(value);
  }
  void Floats(const std::string& key, const std::vector<float>& values) {
    Array(key, 6, values.size());
    for (const float value : values) Raw(value);
  }
  std::string Finish() const {
    GgufWriter head;
    head.body_ = "GGUF";
    head.Raw(uint32_t{3});
    head.Raw(uint64_t{0});
    head.Raw(count_);
    return head.body_ + body_;
  }

 private:
  template <class T>
  void Raw(T value) {
    body_.append(reinterpret_cast<const char*>(&value), sizeof value);
  }
  void Text(const std::string& text) {
    Raw(uint64_t{text.size()});
    body_ += text;
  }
  void Key(const std::string& key, uint32_t type) {
    Text(key);
    Raw(type);
    ++count_;
  }
  void Array(const std::string& key, uint32_t type, size_t size) {
    Key(key, 9);
    Raw(type);
    Raw(uint64_t{size});
  }
  std::string body_;
  uint64_t count_ = 0;
};

// The same vocabulary as a GGUF file has it.
inline std::string GgufOfJson(const Path& path, const std::string& pre) {
  const nlohmann::json root = nlohmann::json::parse(ReadFixture(path));
  std::vector<std::string> tokens;
  std::vector<int32_t> types;
  const auto set = [&](size_t id, const std::string& text, int32_t type) {
    if (id >= tokens.size()) tokens.resize(id + 1), types.resize(id + 1, 5);
    tokens[id] = text;
    types[id] = type;
  };
  for (const auto& [text, id] : root["model"]["vocab"].items()) set(id.get<size_t>(), text, 1);
  for (const auto& token : root["added_tokens"])
    set(token["id"].get<size_t>(), token["content"].get<std::string>(), token["special"].get<bool>() ? 3 : 4);
  std::vector<std::string> merges;
  for (const auto& merge : root["model"]["merges"])
    merges.push_back(merge.is_string() ? merge.get<std::string>()
                                       : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  GgufWriter writer;
  writer.String("tokenizer.ggml.model", "gpt2");
  writer.String("tokenizer.ggml.pre", pre);
  writer.Strings("tokenizer.ggml.tokens", tokens);
  writer.Ints("tokenizer.ggml.token_type", types);
  writer.Strings("tokenizer.ggml.merges", merges);
  return writer.Finish();
}

}  // namespace rung::text
