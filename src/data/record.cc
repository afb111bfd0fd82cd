#include "data/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "base/text.h"
#include "data/record_fields.h"
#include "data/rows.h"
#include "io/json_file.h"

namespace rung::data {
namespace {

// Keys whose value is a list: in a table, JSON in their field.
constexpr std::array<const char*, 6> kLists = {"messages", "conversations", "segments",
                                               "tools",    "history",       "choices"};

Status CheckText(std::string_view text) {
  if (text.size() > kMaxRowBytes) {
    return Failure{
        fmt::format("the line has {} bytes, the limit is {}: one record a line", text.size(), kMaxRowBytes)};
  }
  if (const size_t nul = text.find('\0'); nul != text.npos) {
    return Failure{
        fmt::format("NUL byte at byte {}: the file is binary or UTF-16; save it as UTF-8", nul + 1)};
  }
  if (!IsUtf8(text)) return Failure{"not valid UTF-8: save the file as UTF-8"};
  return Ok{};
}

Result<Json> ParseObject(std::string_view line) {
  Result<Json> json = io::ParseJson(line, "JSON");
  if (!json.ok()) {
    // "JSON:1:14: what": the caller knows the row, so that the line here says nothing.
    std::string_view what = json.failure().message;
    for (const std::string_view prefix : {"JSON:1:", "JSON:"}) {
      if (!what.starts_with(prefix)) continue;
      what.remove_prefix(prefix.size());
      while (what.starts_with(' ')) what.remove_prefix(1);
      return Failure{fmt::format("not valid JSON: {}{}", prefix == "JSON:" ? "" : "column ", what)};
    }
    return Failure{std::string(what)};
  }
  if (!json.value().is_object()) {
    return Failure{fmt::format("the record is a JSON {}, not an object, as in {}", json.value().type_name(),
                               ExampleOf(Format::kCompletion))};
  }
  return json;
}

Status ReadExtras(const Json& object, Record* record) {
  if (const auto choices = object.find("choices"); choices != object.end() && !choices->is_null()) {
    const bool strings = choices->is_array() && !choices->empty() &&
                         std::all_of(choices->begin(), choices->end(), [](const Json& choice) {
                           return choice.is_string() && !choice.get_ref<const std::string&>().empty();
                         });
    if (!strings) {
      return Failure{
          "\"choices\" must be a list of strings, none empty, as in \"choices\": [\"yes\", \"no\"]"};
    }
    record->choices = choices->get<std::vector<std::string>>();
  }
  if (const auto label = object.find("label"); label != object.end() && !label->is_null()) {
    if (label->is_structured()) return Failure{"\"label\" must be a string, a number or a boolean"};
    record->label = label->is_string() ? label->get<std::string>() : label->dump();
  }
  return Ok{};
}

// Both halves as texts, or at least one as messages: then all of them are messages, and only those of the
// completion are learned.
Status ReadCompletion(const RecordFields& fields, Record* record) {
  const Json& object = fields.object();
  const auto is_list = [&](const char* key) { return object.contains(key) && object.at(key).is_array(); };
  if (!is_list("prompt") && !is_list("completion")) {
    for (const auto& [key, into] :
         {std::pair{"prompt", &record->prompt}, {"completion", &record->completion}}) {
      Result<std::string> text = TextOf(object, key, Format::kCompletion);
      if (!text.ok()) return text.failure();
      *into = std::move(text).value();
    }
    return ReadTools(fields, Format::kCompletion, record);
  }
  record->shape = Shape::kMessages;
  for (const auto& [key, role] : {std::pair{"prompt", "user"}, {"completion", "assistant"}}) {
    const size_t begin = record->messages.size();
    if (is_list(key)) {
      Status read = ReadMessageList(fields, key, Format::kCompletion, record);
      if (!read.ok()) return read;
    } else {
      Result<std::string> text = TextOf(object, key, Format::kCompletion);
      if (!text.ok()) return text.failure();
      record->messages.push_back({role, std::move(text).value()});
      record->learned.push_back(1);
    }
    if (std::string_view(key) == "prompt") {
      std::fill(record->learned.begin() + static_cast<int64_t>(begin), record->learned.end(), uint8_t{0});
    }
  }
  return ReadTools(fields, Format::kCompletion, record);
}

Status ReadSegments(const Json& object, Record* record) {
  const auto list = object.find("segments");
  if (list == object.end() || !list->is_array() || list->empty()) {
    return WrongRecord(Format::kSegments, "\"segments\" must be a list of at least one segment");
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const Json& item = (*list)[i];
    const bool text = item.is_object() && item.contains("text") && item.at("text").is_string();
    const Json label = item.is_object() && item.contains("label") ? item.at("label") : Json();
    const bool marked = label.is_boolean() || (label.is_string() && (label == "train" || label == "ignore"));
    if (!text || !marked) {
      constexpr std::array<std::string_view, 2> kKeys = {"label", "text"};
      return WrongRecord(
          Format::kSegments,
          fmt::format("segments[{}] must have \"text\" as a string and \"label\" as true, false, "
                      "\"train\" or \"ignore\"{}",
                      i, item.is_object() ? "; " + DescribeKeys(item, kKeys) : ""));
    }
    record->segments.push_back(
        {item.at("text").get<std::string>(), label.is_boolean() ? label.get<bool>() : label == "train"});
  }
  return Ok{};
}

Status ReadAs(const RecordFields& fields, Record* record) {
  switch (record->format) {
    case Format::kAuto:
      break;
    case Format::kCompletion:
      record->shape = Shape::kCompletion;
      return ReadCompletion(fields, record);
    case Format::kMessages: {
      record->shape = Shape::kMessages;
      Status read = ReadMessageList(fields, "messages", Format::kMessages, record);
      return read.ok() ? ReadTools(fields, Format::kMessages, record) : read;
    }
    case Format::kText: {
      record->shape = Shape::kText;
      Result<std::string> text = TextOf(fields.object(), "text", Format::kText);
      if (!text.ok()) return text.failure();
      record->text = std::move(text).value();
      return Ok{};
    }
    case Format::kAlpaca: {
      Status read = ReadTools(fields, Format::kAlpaca, record);
      return read.ok() ? ReadAlpaca(fields, record) : read;
    }
    case Format::kShareGpt: {
      Status read = ReadTools(fields, Format::kShareGpt, record);
      return read.ok() ? ReadShareGpt(fields, record) : read;
    }
    case Format::kSegments:
      record->shape = Shape::kSegments;
      return ReadSegments(fields.object(), record);
  }
  return Failure{"the format is not decided"};
}

// `text`: what `object` was read from, empty for a table.
Result<Record> RecordOf(const Json& object, std::string_view text, const RecordOptions& options) {
  Json mapped;
  if (!options.columns.empty()) {
    Result<Json> made = options.columns.Map(object);
    if (!made.ok()) return made.failure();
    mapped = std::move(made).value();
  }
  const Json& keys = options.columns.empty() ? object : mapped;
  Record record;
  record.format = options.format;
  if (record.format == Format::kAuto) {
    Result<Format> format = FormatOf(keys, object);
    if (!format.ok()) return format.failure();
    record.format = format.value();
  }
  Status read = ReadAs(RecordFields(keys, text, options.columns), &record);
  if (read.ok()) read = ReadExtras(keys, &record);
  if (!read.ok()) return read.failure();
  if (std::all_of(record.learned.begin(), record.learned.end(), [](uint8_t mark) { return mark == 1; })) {
    record.learned.clear();
  }
  return record;
}

}  // namespace

Result<Record> ParseRecord(std::string_view json, const RecordOptions& options) {
  if (Status text = CheckText(json); !text.ok()) return text.failure();
  Result<Json> object = ParseObject(json);
  if (!object.ok()) return object.failure();
  return RecordOf(object.value(), json, options);
}

Result<Record> RecordOfFields(std::span<const std::string> columns, std::span<const std::string> fields,
                              const RecordOptions& options) {
  RUNG_CHECK(columns.size() == fields.size(), "a field for each column");
  Json object = Json::object();
  for (size_t i = 0; i < columns.size(); ++i) {
    for (const std::string& text : {std::cref(columns[i]), std::cref(fields[i])}) {
      if (Status checked = CheckText(text); !checked.ok()) {
        return Failure{fmt::format("column {}: {}", i + 1, checked.failure().message)};
      }
    }
    object[columns[i]] = fields[i];
  }
  for (const char* key : kLists) {
    const auto value = object.find(options.columns.SourceOf(key));
    if (value == object.end()) continue;
    const std::string json = value->get<std::string>();
    if (json.empty()) {
      *value = nullptr;
      continue;
    }
    // Tools may be a text in every format.
    if (std::string_view(key) == "tools") continue;
    Result<Json> parsed = io::ParseJson(json, key);
    if (!parsed.ok()) {
      return Failure{fmt::format("the column {:?} must hold a JSON list: {}", key, parsed.failure().message)};
    }
    *value = std::move(parsed).value();
  }
  if (const auto label = object.find(options.columns.SourceOf("label"));
      label != object.end() && *label == "") {
    *label = nullptr;
  }
  return RecordOf(object, "", options);
}

Result<Record> RecordOfText(std::string_view text, const RecordOptions& options) {
  if (options.format != Format::kAuto && options.format != Format::kText) {
    return UsageFailure(fmt::format(
        "a .txt file holds texts, not records of the format {}: leave --format out", NameOf(options.format)));
  }
  if (!options.columns.empty()) {
    return UsageFailure("a .txt file has no columns: leave --columns and --template-* out");
  }
  if (Status checked = CheckText(text); !checked.ok()) return checked.failure();
  Record record;
  record.text = text;
  return record;
}

const std::string& AskedIn(const Record& record) {
  const size_t messages = record.messages.size();
  return messages > 1 ? record.messages[messages - 2].content : record.prompt;
}

Result<Record> WithCompletion(const Record& record, std::string_view completion) {
  Record other = record;
  if (record.shape == Shape::kCompletion) {
    other.completion = completion;
  } else if (record.shape == Shape::kMessages && record.messages.back().role == "assistant") {
    other.messages.back().content = completion;
  } else {
    return Failure{fmt::format("record {} has no completion: it is {}", record.row,
                               record.shape == Shape::kMessages ? "messages that end without the assistant"
                                                                : NameOf(record.format))};
  }
  return other;
}

}  // namespace rung::data
