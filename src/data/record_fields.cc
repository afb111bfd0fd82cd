#include "data/record_fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "base/text.h"

namespace rung::data {
namespace {

struct FormatRow {
  Format format;
  const char* name;
  const char* keys;  // for messages
  const char* example;
};
constexpr FormatRow kFormats[] = {
    {Format::kAuto, "auto", "", ""},
    {Format::kCompletion, "prompt-completion", "prompt and completion",
     R"({"prompt": "2 + 3 =", "completion": "5"})"},
    {Format::kMessages, "messages", "messages",
     R"({"messages": [{"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5"}]})"},
    {Format::kText, "text", "text", R"({"text": "two and three is five"})"},
    {Format::kAlpaca, "alpaca", "instruction and output",
     R"({"instruction": "Add the numbers.", "input": "2, 3", "output": "5"})"},
    {Format::kShareGpt, "sharegpt", "conversations",
     R"({"conversations": [{"from": "human", "value": "2 + 3?"}, {"from": "gpt", "value": "5"}]})"},
    {Format::kSegments, "segments", "segments",
     R"({"segments": [{"label": false, "text": "2 + 3 = "}, {"label": true, "text": "5</s>"}]})"},
};

const FormatRow& RowOf(Format format) { return kFormats[static_cast<size_t>(format)]; }

// Both keys of a pair are needed.
Status RequireBoth(const Json& object, const Json& file, Format format, const char* first,
                   const char* second) {
  for (const char* key : {first, second}) {
    if (object.contains(key)) continue;
    return WrongRecord(format, fmt::format("expected the keys \"{}\" and \"{}\", there is no \"{}\"; {}",
                                           first, second, key, DescribeRecordKeys(file)));
  }
  return Ok{};
}

}  // namespace

Result<Format> ParseFormat(std::string_view name) {
  for (const FormatRow& row : kFormats) {
    if (name == row.name) return row.format;
  }
  return UsageFailure(fmt::format("--format {}: formats are {}", name, fmt::join(FormatNames(), ", ")));
}

const char* NameOf(Format format) { return RowOf(format).name; }

std::vector<std::string> FormatNames() {
  std::vector<std::string> names;
  for (const FormatRow& row : kFormats) names.emplace_back(row.name);
  return names;
}

OrderedJson RecordFields::Ordered(const std::string& key) const {
  // Parsed before, in other order: it is JSON. Anything that still goes wrong is this program's mistake.
  if (text_.empty()) return OrderedJson::parse(object_.at(key).dump());
  const OrderedJson whole = OrderedJson::parse(text_);
  return whole.at(columns_.SourceOf(key));
}

const char* ExampleOf(Format format) { return RowOf(format).example; }

Failure WrongRecord(Format format, std::string what) {
  return Failure{fmt::format("{}\n  a right record: {}", what, ExampleOf(format))};
}

std::string Excerpt(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return std::string(text);
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xc0) == 0x80) --bytes;
  return std::string(text.substr(0, bytes)) + "…";
}

std::string DescribeKeys(const Json& object, std::span<const std::string_view> known) {
  if (object.empty()) return "found no keys";
  std::vector<std::string> names, hints;
  for (const auto& [key, value] : object.items()) {
    if (names.size() == 12) {
      names.emplace_back("…");
      break;
    }
    names.push_back(fmt::format("\"{}\"", Excerpt(key, 40)));
    if (key.size() > 40 || std::find(known.begin(), known.end(), key) != known.end()) continue;
    const std::string_view near = Nearest(key, known);
    if (!near.empty()) hints.push_back(fmt::format("did you mean \"{}\" by \"{}\"?", near, key));
  }
  std::string text = fmt::format("found keys {}", fmt::join(names, ", "));
  for (const std::string& hint : hints) text += "; " + hint;
  return text;
}

std::string DescribeRecordKeys(const Json& object) { return DescribeKeys(object, kRecordKeys); }

Result<std::string> TextOf(const Json& object, const char* key, Format format) {
  const auto value = object.find(key);
  if (value != object.end() && value->is_string()) return value->get<std::string>();
  return WrongRecord(format,
                     fmt::format("\"{}\" must be a string, {}", key,
                                 value == object.end() ? "it is not there; " + DescribeRecordKeys(object)
                                                       : std::string("it is ") + value->type_name()));
}

Result<Format> FormatOf(const Json& object, const Json& file) {
  std::vector<Format> formats;
  if (object.contains("prompt") || object.contains("completion")) formats.push_back(Format::kCompletion);
  if (object.contains("messages")) formats.push_back(Format::kMessages);
  if (object.contains("text")) formats.push_back(Format::kText);
  if (object.contains("instruction")) formats.push_back(Format::kAlpaca);
  if (object.contains("conversations")) formats.push_back(Format::kShareGpt);
  if (object.contains("segments")) formats.push_back(Format::kSegments);
  if (formats.empty()) {
    std::string examples;
    for (const FormatRow& row : kFormats) {
      if (row.format != Format::kAuto) examples += fmt::format("\n    {}", row.example);
    }
    return Failure{
        fmt::format("expected the keys \"prompt\" and \"completion\", or \"messages\", or \"text\", or "
                    "\"instruction\" and "
                    "\"output\", or \"conversations\", or \"segments\"; {}\n  other columns are named with "
                    "--columns, as in "
                    "--columns prompt=question,completion=answer\n  a record is one of{}",
                    DescribeRecordKeys(file), examples)};
  }
  if (formats.size() > 1) {
    return Failure{fmt::format("the record is {} and {} at once; {}: keep one, or say which with --format {}",
                               RowOf(formats[0]).keys, RowOf(formats[1]).keys, DescribeRecordKeys(file),
                               RowOf(formats[0]).name)};
  }
  Status whole = Ok{};
  if (formats[0] == Format::kCompletion)
    whole = RequireBoth(object, file, formats[0], "prompt", "completion");
  if (formats[0] == Format::kAlpaca) whole = RequireBoth(object, file, formats[0], "instruction", "output");
  if (!whole.ok()) return whole.failure();
  return formats[0];
}

}  // namespace rung::data
