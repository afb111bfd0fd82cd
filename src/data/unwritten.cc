// What a chat template leaves out of a record.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "data/encode.h"

namespace rung::data {
namespace {

using Json = nlohmann::ordered_json;

std::string Squeezed(std::string_view text) {
  std::string out;
  std::copy_if(text.begin(), text.end(), std::back_inserter(out),
               [](char c) { return std::string_view(" \t\r\n").find(c) == std::string_view::npos; });
  return out;
}

// A call of a message, and the name that stands for it in the text that is looked through.
struct Call {
  size_t message;
  std::string name, mark;
};

// Gives every call a name that stands nowhere else: its own one may be in the tools or in a question too.
std::vector<Call> MarkCalls(std::vector<text::Message>* messages) {
  std::vector<Call> calls;
  for (size_t i = 0; i < messages->size(); ++i) {
    text::Message& message = (*messages)[i];
    if (message.role != "assistant" || message.extra.find("tool_calls") == message.extra.npos) continue;
    Json extra = Json::parse(message.extra, nullptr, false);
    if (!extra.is_object() || !extra.contains("tool_calls") || !extra["tool_calls"].is_array()) continue;
    for (Json& call : extra["tool_calls"]) {
      if (!call.is_object()) continue;
      Json& function = call.contains("function") ? call["function"] : call;
      if (!function.is_object() || !function.contains("name") || !function["name"].is_string()) continue;
      Json& name = function["name"];
      std::string mark = fmt::format("call{}of", calls.size());
      calls.push_back({i, name.get<std::string>(), mark});
      name = std::move(mark);
    }
    message.extra = extra.dump();
  }
  return calls;
}

}  // namespace

std::vector<std::string> Encoder::Unwritten(const Record& record) const {
  if (!vocabulary_.render) return {};
  std::vector<text::Message> messages = record.messages;
  if (record.shape == Shape::kCompletion)
    messages = {{"user", record.prompt}, {"assistant", record.completion}};
  if (messages.empty()) return {};
  const Result<text::Rendered> rendered = Render({messages, {}, record.tools}, false);
  if (!rendered.ok()) return {};
  const std::string written = Squeezed(rendered.value().text);
  std::vector<std::string> found;
  for (size_t i = 0; i < messages.size(); ++i) {
    const bool learned = messages[i].role == "assistant" && (record.learned.empty() || record.learned[i]);
    if (learned && written.find(Squeezed(messages[i].content)) == written.npos)
      found.push_back(fmt::format("a part of message {}", i + 1));
  }
  std::vector<text::Message> renamed = messages;
  const std::vector<Call> calls = MarkCalls(&renamed);
  if (!calls.empty()) {
    const Result<text::Rendered> marked = Render({renamed, {}, record.tools}, false);
    for (const Call& call : calls) {
      const bool there = marked.ok() ? marked.value().text.find(call.mark) != std::string::npos
                                     : rendered.value().text.find(call.name) != std::string::npos;
      if (!there)
        found.push_back(fmt::format("the call of \"{}\" in message {}", call.name, call.message + 1));
    }
  }
  if (!record.tools.empty()) {
    const Result<text::Rendered> without = Render({messages, {}, ""}, false);
    if (without.ok() && without.value().text == rendered.value().text) found.push_back("the tools");
  }
  return found;
}

}  // namespace rung::data
