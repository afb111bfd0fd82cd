#include "data/columns.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace rung::data {
namespace {

using Json = nlohmann::json;

// The keys of each format. Those of no format, or of several, do not say which is meant.
struct FormatKeys {
  std::array<std::string_view, 6> keys;
  bool Has(std::string_view key) const { return std::find(keys.begin(), keys.end(), key) != keys.end(); }
};
constexpr FormatKeys kFormats[] = {{{"prompt", "completion", "tools"}},
                                   {{"messages", "tools"}},
                                   {{"text"}},
                                   {{"instruction", "input", "output", "system", "history", "tools"}},
                                   {{"conversations", "system", "tools"}},
                                   {{"segments"}}};
constexpr std::array<std::string_view, 2> kOfAll = {"label", "choices"};

bool IsOfAll(std::string_view key) { return std::find(kOfAll.begin(), kOfAll.end(), key) != kOfAll.end(); }

Failure NoColumn(const std::string& name, const Json& object) {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object.items()) {
    if (keys.size() < 12 && key.size() <= 40) keys.push_back(key);
  }
  const std::vector<std::string_view> views(keys.begin(), keys.end());
  const std::string_view near = Nearest(name, views);
  const std::string hint = near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near);
  return Failure{
      fmt::format("there is no column \"{}\"; found \"{}\"{}", name, fmt::join(keys, "\", \""), hint)};
}

Result<std::string> ScalarOf(const Json& object, const std::string& column) {
  const auto value = object.find(column);
  if (value == object.end()) return NoColumn(column, object);
  if (value->is_string()) return value->get<std::string>();
  if (value->is_structured() || value->is_null()) {
    return Failure{fmt::format("the column \"{}\" of a template must be a text or a number, it is {}", column,
                               value->type_name())};
  }
  return value->dump();
}

}  // namespace

Result<FieldTemplate> FieldTemplate::Parse(std::string_view source) {
  FieldTemplate made;
  made.source_ = source;
  Part text;
  for (size_t i = 0; i < source.size(); ++i) {
    const char c = source[i];
    const char next = i + 1 < source.size() ? source[i + 1] : '\0';
    if (c == '\\' && (next == 'n' || next == 't' || next == '\\')) {
      text.text += next == 'n' ? '\n' : next == 't' ? '\t' : '\\';
      ++i;
    } else if ((c == '{' || c == '}') && next == c) {
      text.text += c;
      ++i;
    } else if (c == '}') {
      return UsageFailure(fmt::format(
          "template \"{}\": a }} at byte {} closes nothing; a brace itself is }}}}", source, i + 1));
    } else if (c == '{') {
      const size_t end = source.find('}', i);
      const std::string_view name = end == source.npos ? "" : source.substr(i + 1, end - i - 1);
      if (name.empty() || name.find('{') != name.npos) {
        return UsageFailure(
            fmt::format("template \"{}\": the {{ at byte {} begins no {{column}}; a brace itself is {{{{",
                        source, i + 1));
      }
      made.parts_.push_back(std::exchange(text, {}));
      made.parts_.push_back({std::string(name), true});
      i = end;
    } else {
      text.text += c;
    }
  }
  made.parts_.push_back(std::move(text));
  const bool uses =
      std::any_of(made.parts_.begin(), made.parts_.end(), [](const Part& p) { return p.column; });
  if (!uses) {
    return UsageFailure(
        fmt::format("template \"{}\": it has no {{column}}: all records would be the same", source));
  }
  return made;
}

bool FieldTemplate::Uses(std::string_view column) const {
  return std::any_of(parts_.begin(), parts_.end(),
                     [&](const Part& part) { return part.column && part.text == column; });
}

Result<std::string> FieldTemplate::Fill(const Json& object) const {
  std::string text;
  for (const Part& part : parts_) {
    if (!part.column) {
      text += part.text;
      continue;
    }
    Result<std::string> value = ScalarOf(object, part.text);
    if (!value.ok()) return value.failure();
    text += value.value();
  }
  return text;
}

const std::string& Columns::SourceOf(const std::string& key) const {
  for (const auto& [name, column] : names) {
    if (name == key) return column;
  }
  return key;
}

Status Columns::AddNames(std::string_view text) {
  while (!text.empty()) {
    const size_t end = std::min(text.find(','), text.size());
    const std::string_view pair = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    const size_t equals = pair.find('=');
    const std::string_view key = pair.substr(0, equals);
    if (equals == pair.npos || equals + 1 == pair.size()) {
      return UsageFailure(
          fmt::format("columns \"{}\": write KEY=COLUMN, as in prompt=question,completion=answer", pair));
    }
    if (std::find(kRecordKeys.begin(), kRecordKeys.end(), key) == kRecordKeys.end()) {
      const std::string_view near = Nearest(key, kRecordKeys);
      return UsageFailure(fmt::format("columns \"{}\": \"{}\" is no key of a record{}; keys are {}", pair,
                                      key, near.empty() ? "" : fmt::format(" (did you mean \"{}\"?)", near),
                                      fmt::join(kRecordKeys, ", ")));
    }
    if (std::any_of(names.begin(), names.end(), [&](const auto& name) { return name.first == key; })) {
      return UsageFailure(fmt::format("columns: \"{}\" is given twice", key));
    }
    names.emplace_back(key, pair.substr(equals + 1));
  }
  return Ok{};
}

Status Columns::AddTemplate(const std::string& key, std::string_view source) {
  Result<FieldTemplate> parsed = FieldTemplate::Parse(source);
  if (!parsed.ok()) return parsed.failure();
  if (std::any_of(names.begin(), names.end(), [&](const auto& name) { return name.first == key; })) {
    return UsageFailure(fmt::format("\"{}\" has a column and a template: give one", key));
  }
  templates.emplace_back(key, std::move(parsed).value());
  return Ok{};
}

bool Columns::Keeps(std::string_view key) const {
  const auto mapped = [&](std::string_view name) {
    const auto is = [&](const auto& entry) { return entry.first == name; };
    return std::any_of(names.begin(), names.end(), is) || std::any_of(templates.begin(), templates.end(), is);
  };
  if (mapped(key)) return false;
  if (std::any_of(names.begin(), names.end(), [&](const auto& name) { return name.second == key; }))
    return false;
  if (std::any_of(templates.begin(), templates.end(), [&](const auto& t) { return t.second.Uses(key); }))
    return false;
  if (IsOfAll(key)) return true;
  return std::any_of(std::begin(kFormats), std::end(kFormats), [&](const FormatKeys& format) {
    const bool all = std::all_of(kRecordKeys.begin(), kRecordKeys.end(), [&](std::string_view name) {
      return !mapped(name) || IsOfAll(name) || format.Has(name);
    });
    return all && format.Has(key);
  });
}

Result<Json> Columns::Map(const Json& object) const {
  Json record = Json::object();
  for (const auto& [key, column] : names) {
    const auto value = object.find(column);
    if (value == object.end()) return NoColumn(column, object);
    record[key] = *value;
  }
  for (const auto& [key, text] : templates) {
    Result<std::string> filled = text.Fill(object);
    if (!filled.ok()) return filled.failure();
    record[key] = std::move(filled).value();
  }
  for (const std::string_view name : kRecordKeys) {
    const std::string key(name);
    if (object.contains(key) && Keeps(key)) record[key] = object[key];
  }
  return record;
}

std::string Columns::Key() const {
  std::string key;
  for (const auto& [name, column] : names) key += fmt::format("{:?}={:?};", name, column);
  for (const auto& [name, text] : templates) key += fmt::format("{:?}:{:?};", name, text.source());
  return key;
}

}  // namespace rung::data
