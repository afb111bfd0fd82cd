#include "data/record.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <span>

#include "base/text.h"
#include "io/json_file.h"

namespace rung::data {
namespace {

using Json = nlohmann::json;

constexpr std::array<std::string_view, 6> kKnownKeys = {"prompt", "completion", "messages",
                                                        "text",   "choices",    "label"};
constexpr std::array<std::string_view, 2> kMessageKeys = {"role", "content"};
constexpr std::array<std::string_view, 4> kRoles = {"system", "user", "assistant", "tool"};

constexpr const char* kExamples =
    "a record is one of\n"
    "  {\"prompt\": \"2 + 3 =\", \"completion\": \"5\"}\n"
    "  {\"messages\": [{\"role\": \"user\", \"content\": \"2 + 3?\"}, {\"role\": \"assistant\", \"content\": "
    "\"5\"}]}\n"
    "  {\"text\": \"two and three is five\"}";

const char* ExampleOf(Shape shape) {
  switch (shape) {
    case Shape::kCompletion:
      return "{\"prompt\": \"2 + 3 =\", \"completion\": \"5\"}";
    case Shape::kMessages:
      return "{\"messages\": [{\"role\": \"user\", \"content\": \"2 + 3?\"}, {\"role\": \"assistant\", "
             "\"content\": \"5\"}]}";
    case Shape::kText:
      return "{\"text\": \"two and three is five\"}";
  }
  return "";
}

Failure WrongRecord(Shape shape, std::string what) {
  return Failure{fmt::format("{}\n  a right record: {}", what, ExampleOf(shape))};
}

// At most `bytes` of text, cut before a character rather than inside it.
std::string Excerpt(std::string_view text, size_t bytes) {
  if (text.size() <= bytes) return std::string(text);
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xc0) == 0x80) --bytes;
  return std::string(text.substr(0, bytes)) + "…";
}

Result<Json> ParseObject(std::string_view line) {
  Result<Json> json = io::ParseJson(line, "JSON");
  if (!json.ok()) {
    // "JSON:1:14: what": the caller knows the row, so that the line here says nothing.
    std::string_view what = json.failure().message;
    if (!what.starts_with("JSON:1:")) return Failure{std::string(what)};
    what.remove_prefix(7);
    return Failure{fmt::format("not valid JSON: column {}", what)};
  }
  if (!json.value().is_object()) {
    return Failure{
        fmt::format("the line is a JSON {}, not an object\n  {}", json.value().type_name(), kExamples)};
  }
  return json;
}

// The object's keys for a message, with a suggestion where one is a near miss.
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

Result<std::string> TextOf(const Json& object, const char* key, Shape shape) {
  const Json& value = object.at(key);
  if (value.is_string()) return value.get<std::string>();
  return WrongRecord(shape, fmt::format("\"{}\" must be a string, it is {}", key, value.type_name()));
}

Result<std::vector<text::Message>> MessagesOf(const Json& list) {
  if (!list.is_array() || list.empty()) {
    return WrongRecord(Shape::kMessages, "\"messages\" must be a list of at least one message");
  }
  std::vector<text::Message> messages;
  for (size_t i = 0; i < list.size(); ++i) {
    const Json& item = list[i];
    for (const char* key : {"role", "content"}) {
      if (item.is_object() && item.contains(key) && item.at(key).is_string()) continue;
      return WrongRecord(Shape::kMessages,
                         fmt::format("messages[{}] must have \"{}\" as a string{}", i, key,
                                     item.is_object() ? "; " + DescribeKeys(item, kMessageKeys) : ""));
    }
    text::Message message{item.at("role").get<std::string>(), item.at("content").get<std::string>()};
    if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end()) {
      return WrongRecord(Shape::kMessages, fmt::format("messages[{}] has the role \"{}\"; roles are {}", i,
                                                       Excerpt(message.role, 40), fmt::join(kRoles, ", ")));
    }
    messages.push_back(std::move(message));
  }
  return messages;
}

// The shape that the keys say. Two shapes in one record are ambiguous, half a shape is an error.
Result<Shape> ShapeOf(const Json& object) {
  std::vector<Shape> shapes;
  if (object.contains("prompt") || object.contains("completion")) shapes.push_back(Shape::kCompletion);
  if (object.contains("messages")) shapes.push_back(Shape::kMessages);
  if (object.contains("text")) shapes.push_back(Shape::kText);
  if (shapes.empty()) {
    return Failure{
        fmt::format("expected the keys \"prompt\" and \"completion\", or \"messages\", or \"text\"; {}\n  {}",
                    DescribeKeys(object, kKnownKeys), kExamples)};
  }
  if (shapes.size() > 1) {
    return Failure{fmt::format("the record is {} and {} at once; {}: keep one", ShapeName(shapes[0]),
                               ShapeName(shapes[1]), DescribeKeys(object, kKnownKeys))};
  }
  if (shapes[0] == Shape::kCompletion) {
    for (const char* key : {"prompt", "completion"}) {
      if (!object.contains(key)) {
        return WrongRecord(shapes[0], fmt::format("expected the keys \"prompt\" and \"completion\", there is "
                                                  "no \"{}\"; {}",
                                                  key, DescribeKeys(object, kKnownKeys)));
      }
    }
  }
  return shapes[0];
}

Status ReadExtras(const Json& object, Record& record) {
  if (const auto choices = object.find("choices"); choices != object.end() && !choices->is_null()) {
    const bool strings = choices->is_array() && !choices->empty() &&
                         std::all_of(choices->begin(), choices->end(), [](const Json& choice) {
                           return choice.is_string() && !choice.get_ref<const std::string&>().empty();
                         });
    if (!strings) {
      return Failure{
          "\"choices\" must be a list of strings, none empty, as in \"choices\": [\"yes\", \"no\"]"};
    }
    record.choices = choices->get<std::vector<std::string>>();
  }
  if (const auto label = object.find("label"); label != object.end() && !label->is_null()) {
    if (label->is_structured()) return Failure{"\"label\" must be a string, a number or a boolean"};
    record.label = label->is_string() ? label->get<std::string>() : label->dump();
  }
  return Ok{};
}

}  // namespace

const char* ShapeName(Shape shape) {
  switch (shape) {
    case Shape::kCompletion:
      return "prompt and completion";
    case Shape::kMessages:
      return "messages";
    case Shape::kText:
      return "text";
  }
  return "";
}

Result<Record> ParseRecord(std::string_view line) {
  if (line.size() > kMaxLineBytes) {
    return Failure{
        fmt::format("the line has {} bytes, the limit is {}: one record a line", line.size(), kMaxLineBytes)};
  }
  if (const size_t nul = line.find('\0'); nul != line.npos) {
    return Failure{
        fmt::format("NUL byte at byte {}: the file is binary or UTF-16; save it as UTF-8", nul + 1)};
  }
  if (!IsUtf8(line)) return Failure{"not valid UTF-8: save the file as UTF-8"};

  Result<Json> parsed = ParseObject(line);
  if (!parsed.ok()) return parsed.failure();
  const Json& object = parsed.value();
  Result<Shape> shape = ShapeOf(object);
  if (!shape.ok()) return shape.failure();

  Record record;
  record.shape = shape.value();
  const auto read = [&](const char* key, std::string& into) -> Status {
    Result<std::string> text = TextOf(object, key, record.shape);
    if (!text.ok()) return text.failure();
    into = std::move(text).value();
    return Ok{};
  };
  Status status = Ok{};
  switch (record.shape) {
    case Shape::kCompletion:
      status = read("prompt", record.prompt);
      if (status.ok()) status = read("completion", record.completion);
      break;
    case Shape::kText:
      status = read("text", record.text);
      break;
    case Shape::kMessages: {
      Result<std::vector<text::Message>> messages = MessagesOf(object.at("messages"));
      if (!messages.ok()) return messages.failure();
      record.messages = std::move(messages).value();
      break;
    }
  }
  if (status.ok()) status = ReadExtras(object, record);
  if (!status.ok()) return status.failure();
  return record;
}

Result<Record> WithCompletion(const Record& record, std::string_view completion) {
  Record other = record;
  if (record.shape == Shape::kCompletion) {
    other.completion = completion;
  } else if (record.shape == Shape::kMessages && record.messages.back().role == "assistant") {
    other.messages.back().content = completion;
  } else {
    return Failure{
        fmt::format("record {} has no completion: it is {}", record.row,
                    record.shape == Shape::kText ? "text" : "messages that end without the assistant")};
  }
  return other;
}

}  // namespace rung::data
