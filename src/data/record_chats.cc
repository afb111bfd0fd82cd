// Formats that become a list of messages.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "data/record_fields.h"
#include "io/json_file.h"

namespace rung::data {
namespace {

constexpr std::array<std::string_view, 4> kMessageKeys = {"role", "content", "tool_calls",
                                                          "reasoning_content"};
constexpr std::array<std::string_view, 5> kRoles = {"system", "developer", "user", "assistant", "tool"};
constexpr std::array<std::string_view, 2> kTurnKeys = {"from", "value"};

// Names that ShareGPT files have for roles.
constexpr std::pair<std::string_view, std::string_view> kSpeakers[] = {
    {"system", "system"},    {"human", "user"},          {"user", "user"},
    {"gpt", "assistant"},    {"assistant", "assistant"}, {"chatgpt", "assistant"},
    {"model", "assistant"},  {"bot", "assistant"},       {"function_call", "function_call"},
    {"observation", "tool"}, {"tool", "tool"},           {"function_response", "tool"},
};

// "weight": 0 and "train": false: an answer that is context only.
Result<bool> IsLearned(const Json& message, Format format, const std::string& where) {
  for (const char* key : {"weight", "train"}) {
    const auto mark = message.find(key);
    if (mark == message.end() || mark->is_null()) continue;
    if (mark->is_boolean()) return mark->get<bool>();
    if (mark->is_number() && (*mark == 0 || *mark == 1)) return *mark == 1;
    return WrongRecord(format, fmt::format("{}: \"{}\" must be 0, 1, true or false", where, key));
  }
  return true;
}

// What of a message goes to the template as it is: neither role, text nor mark.
template <class AnyJson>
bool IsExtra(std::string_view key, const AnyJson& value) {
  return key != "role" && key != "weight" && key != "train" && !(key == "content" && value.is_string());
}

// With its keys in order.
std::string ExtraOf(const OrderedJson& message) {
  OrderedJson extra = OrderedJson::object();
  for (const auto& [key, value] : message.items()) {
    if (IsExtra(key, value)) extra[key] = value;
  }
  return extra.empty() ? "" : extra.dump();
}

Result<text::Message> MessageOf(const Json& item, Format format, const std::string& where) {
  for (const char* key : {"role", "content"}) {
    if (item.is_object() && item.contains(key) && item.at(key).is_string()) continue;
    const bool other = item.is_object() && std::string_view(key) == "content" &&
                       (item.contains("tool_calls") || item.contains("reasoning_content") ||
                        (item.contains("content") && item.at("content").is_array()));
    if (other) continue;
    return WrongRecord(format, fmt::format("{} must have \"{}\" as a string{}", where, key,
                                           item.is_object() ? "; " + DescribeKeys(item, kMessageKeys) : ""));
  }
  text::Message message;
  message.role = item.at("role").get<std::string>();
  if (item.contains("content") && item.at("content").is_string()) {
    message.content = item.at("content").get<std::string>();
  }
  if (std::find(kRoles.begin(), kRoles.end(), message.role) == kRoles.end()) {
    return WrongRecord(format, fmt::format("{} has the role \"{}\"; roles are {}", where,
                                           Excerpt(message.role, 40), fmt::join(kRoles, ", ")));
  }
  return message;
}

bool HasExtra(const Json& message) {
  for (const auto& [key, value] : message.items()) {
    if (IsExtra(key, value)) return true;
  }
  return false;
}

// A call that a ShareGPT file writes as text: {"name": ..., "arguments": ...}, or a list of them.
Result<text::Message> CallOf(const std::string& value, const std::string& where) {
  Result<Json> checked = io::ParseJson(value, where);
  const auto is_call = [](const Json& call) { return call.is_object() && call.contains("name"); };
  bool right = checked.ok();
  if (right && checked.value().is_array()) {
    right = !checked.value().empty() && std::all_of(checked.value().begin(), checked.value().end(), is_call);
  } else if (right) {
    right = is_call(checked.value());
  }
  if (!right) {
    return WrongRecord(Format::kShareGpt,
                       fmt::format("{}: a function_call must be JSON with a name, as in "
                                   "\"{{\\\"name\\\": \\\"add\\\", \\\"arguments\\\": {{\\\"a\\\": 2}}}}\"",
                                   where));
  }
  const OrderedJson calls = OrderedJson::parse(value);
  OrderedJson list = OrderedJson::array();
  const auto add = [&](const OrderedJson& call) {
    list.push_back({{"type", "function"}, {"function", call}});
  };
  if (calls.is_array()) {
    for (const OrderedJson& call : calls) add(call);
  } else {
    add(calls);
  }
  return text::Message{"assistant", "", OrderedJson{{"tool_calls", list}}.dump()};
}

Result<text::Message> TurnOf(const Json& item, const std::string& where) {
  for (const std::string_view key : kTurnKeys) {
    if (item.is_object() && item.contains(key) && item.at(key).is_string()) continue;
    return WrongRecord(Format::kShareGpt,
                       fmt::format("{} must have \"{}\" as a string{}", where, key,
                                   item.is_object() ? "; " + DescribeKeys(item, kTurnKeys) : ""));
  }
  const std::string from = item.at("from").get<std::string>();
  std::vector<std::string_view> known;
  for (const auto& [name, role] : kSpeakers) {
    known.push_back(name);
    if (from != name) continue;
    std::string value = item.at("value").get<std::string>();
    if (role == "function_call") return CallOf(value, where);
    return text::Message{std::string(role), std::move(value)};
  }
  return WrongRecord(Format::kShareGpt, fmt::format("{} is from \"{}\"; it must be one of {}", where,
                                                    Excerpt(from, 40), fmt::join(known, ", ")));
}

void Add(Record* record, text::Message message, bool learned = true) {
  record->messages.push_back(std::move(message));
  record->learned.push_back(learned);
}

}  // namespace

Status ReadMessageList(const RecordFields& fields, const char* key, Format format, Record* record) {
  const auto found = fields.object().find(key);
  if (found == fields.object().end() || !found->is_array() || found->empty()) {
    return WrongRecord(format, fmt::format("\"{}\" must be a list of at least one message", key));
  }
  std::optional<OrderedJson> ordered;
  for (size_t i = 0; i < found->size(); ++i) {
    const Json& item = (*found)[i];
    const std::string where = fmt::format("{}[{}]", key, i);
    Result<text::Message> message = MessageOf(item, format, where);
    if (!message.ok()) return message.failure();
    Result<bool> learned = IsLearned(item, format, where);
    if (!learned.ok()) return learned.failure();
    if (HasExtra(item)) {
      if (!ordered) ordered = fields.Ordered(key);
      text::Message with = std::move(message).value();
      with.extra = ExtraOf(ordered->at(i));
      Add(record, std::move(with), learned.value());
    } else {
      Add(record, std::move(message).value(), learned.value());
    }
  }
  return Ok{};
}

Status ReadTools(const RecordFields& fields, Format format, Record* record) {
  if (!fields.Has("tools")) return Ok{};
  const Json& tools = fields.object().at("tools");
  if (tools.is_string()) {  // LLaMA-Factory writes the list as a text
    const std::string& text = tools.get_ref<const std::string&>();
    if (text.find_first_not_of(" \t\r\n") == text.npos) return Ok{};
    Result<Json> parsed = io::ParseJson(text, "tools");
    if (parsed.ok() && parsed.value().is_array()) {
      if (!parsed.value().empty()) record->tools = OrderedJson::parse(text).dump();
      return Ok{};
    }
  } else if (tools.is_array()) {
    if (!tools.empty()) record->tools = fields.Ordered("tools").dump();
    return Ok{};
  }
  return WrongRecord(format, "\"tools\" must be a list of function schemas, or its JSON as a string");
}

Status ReadAlpaca(const RecordFields& fields, Record* record) {
  const Json& object = fields.object();
  Result<std::string> instruction = TextOf(object, "instruction", Format::kAlpaca);
  if (!instruction.ok()) return instruction.failure();
  Result<std::string> output = TextOf(object, "output", Format::kAlpaca);
  if (!output.ok()) return output.failure();
  std::string prompt = std::move(instruction).value();
  std::string system;
  for (const auto& [key, into] : {std::pair{"input", &prompt}, {"system", &system}}) {
    if (!fields.Has(key)) continue;
    Result<std::string> text = TextOf(object, key, Format::kAlpaca);
    if (!text.ok()) return text.failure();
    if (!into->empty() && !text.value().empty()) *into += '\n';
    *into += text.value();
  }
  const Json history = fields.Has("history") ? object.at("history") : Json::array();
  const bool pairs =
      history.is_array() && std::all_of(history.begin(), history.end(), [](const Json& pair) {
        return pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_string();
      });
  if (!pairs) {
    return WrongRecord(
        Format::kAlpaca,
        "\"history\" must be a list of pairs, as in [[\"2 + 2?\", \"4\"], [\"2 + 3?\", \"5\"]]");
  }
  if (system.empty() && history.empty() && record->tools.empty()) {
    record->shape = Shape::kCompletion;
    record->prompt = std::move(prompt);
    record->completion = std::move(output).value();
    return Ok{};
  }
  record->shape = Shape::kMessages;
  if (!system.empty()) Add(record, {"system", std::move(system)});
  for (const Json& pair : history) {
    Add(record, {"user", pair[0].get<std::string>()});
    Add(record, {"assistant", pair[1].get<std::string>()});
  }
  Add(record, {"user", std::move(prompt)});
  Add(record, {"assistant", std::move(output).value()});
  return Ok{};
}

Status ReadShareGpt(const RecordFields& fields, Record* record) {
  const auto list = fields.object().find("conversations");
  if (list == fields.object().end() || !list->is_array() || list->empty()) {
    return WrongRecord(Format::kShareGpt, "\"conversations\" must be a list of at least one turn");
  }
  record->shape = Shape::kMessages;
  if (fields.Has("system")) {
    Result<std::string> system = TextOf(fields.object(), "system", Format::kShareGpt);
    if (!system.ok()) return system.failure();
    if (!system.value().empty()) Add(record, {"system", std::move(system).value()});
  }
  // Many files have messages under this key.
  const Json& first = list->front();
  if (first.is_object() && first.contains("role") && !first.contains("from")) {
    return ReadMessageList(fields, "conversations", Format::kMessages, record);
  }
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string where = fmt::format("conversations[{}]", i);
    Result<text::Message> message = TurnOf((*list)[i], where);
    if (!message.ok()) return message.failure();
    Result<bool> learned = IsLearned((*list)[i], Format::kShareGpt, where);
    if (!learned.ok()) return learned.failure();
    Add(record, std::move(message).value(), learned.value());
  }
  return Ok{};
}

}  // namespace rung::data
