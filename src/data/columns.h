// Columns of a file under other names than those of a record: --columns and --template-*.
#pragma once

#include <array>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace rung::data {

// Every key that a record may have.
inline constexpr std::array<std::string_view, 14> kRecordKeys = {
    "prompt", "completion",    "messages", "text",  "instruction", "input", "output",
    "system", "conversations", "segments", "tools", "history",     "label", "choices"};

// Fields put into a text: "Q: {question}\nA:". {{ and }} are braces; \n, \t and \\ as in C, for they are hard
// to type on a command line.
class FieldTemplate {
 public:
  static Result<FieldTemplate> Parse(std::string_view source);
  // Strings as they are, numbers and booleans as JSON writes them. Fails for a column that is not there, or
  // is null, a list or an object.
  Result<std::string> Fill(const nlohmann::json& object) const;
  bool Uses(std::string_view column) const;
  const std::string& source() const { return source_; }

 private:
  struct Part {
    std::string text;
    bool column = false;
  };
  std::string source_;
  std::vector<Part> parts_;
};

struct Columns {
  std::vector<std::pair<std::string, std::string>> names;        // key of the record, column of the file
  std::vector<std::pair<std::string, FieldTemplate>> templates;  // key of the record, its text

  bool empty() const { return names.empty() && templates.empty(); }
  // The column that a key of the record is taken from; the key itself where it is not mapped.
  const std::string& SourceOf(const std::string& key) const;
  // Adds "prompt=question,completion=answer". Each key once.
  Status AddNames(std::string_view text);
  Status AddTemplate(const std::string& key, std::string_view source);
  // The record: the mapped keys, and what else the object has of the formats that they belong to; label and
  // choices always. A column that a key or a template is taken from stands for that key alone.
  Result<nlohmann::json> Map(const nlohmann::json& object) const;
  // Everything that decides the outcome, for the keys of caches.
  std::string Key() const;

 private:
  // Whether a key that the object itself has is of the record.
  bool Keeps(std::string_view key) const;
};

}  // namespace rung::data
