// The templates under tests/data, and what transformers makes of them (tools/make_template_fixtures.py).
#pragma once

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "base/files.h"
#include "text/chat_template.h"

namespace rung::text {

using OrderedJson = nlohmann::ordered_json;

inline ChatTemplate LoadTemplate(const std::string& name) {
  const Path path = Path("tests/data/text/templates") / (name + ".jinja");
  return ChatTemplate::Parse(ReadTextFile(path, 1 << 20).OrThrow(), name).OrThrow();
}

inline const OrderedJson& TemplateGolden() {
  static const auto kGolden =
      OrderedJson::parse(ReadTextFile("tests/data/text/templates/golden.json", 1 << 24).OrThrow());
  return kGolden;
}

inline std::vector<Message> MessagesOf(const OrderedJson& chat) {
  std::vector<Message> messages;
  for (OrderedJson fields : chat.at("messages")) {
    Message message;
    message.role = fields.at("role");
    fields.erase("role");
    if (!fields.contains("content")) {
      fields["content"] = nullptr;
    } else if (fields.at("content").is_string()) {
      message.content = fields.at("content");
      fields.erase("content");
    }
    if (!fields.empty()) message.extra = fields.dump();
    messages.push_back(std::move(message));
  }
  return messages;
}

inline std::vector<Message> Conversation(const std::string& name) {
  return MessagesOf(TemplateGolden().at("conversations").at(name));
}

// With the clock held still as in the golden file.
inline RenderOptions OptionsOf(const OrderedJson& chat) {
  RenderOptions options;
  options.now = TemplateGolden().at("now").get<int64_t>();
  if (chat.contains("tools")) options.tools = chat.at("tools").dump();
  if (chat.contains("documents")) options.documents = chat.at("documents").dump();
  if (chat.contains("variables")) options.variables = chat.at("variables").dump();
  return options;
}

inline Result<Rendered> RenderEntry(const OrderedJson& entry) {
  const OrderedJson& chat =
      TemplateGolden().at("conversations").at(entry.at("conversation").get<std::string>());
  RenderOptions options = OptionsOf(chat);
  options.add_generation_prompt = entry.at("add_generation_prompt");
  options.bos = entry.at("bos");
  options.eos = entry.at("eos");
  return LoadTemplate(entry.at("template")).Render(MessagesOf(chat), options);
}

inline std::vector<std::string> Learned(const Rendered& rendered) {
  std::vector<std::string> pieces;
  size_t end = 0;
  for (const Rendered::Span& span : rendered.assistant) {
    EXPECT_LE(end, span.begin);
    EXPECT_LT(span.begin, span.end);
    EXPECT_LE(span.end, rendered.text.size());
    end = span.end;
    pieces.push_back(rendered.text.substr(span.begin, span.end - span.begin));
  }
  return pieces;
}

using Pieces = std::vector<std::string>;

}  // namespace rung::text
