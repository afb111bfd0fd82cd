#include "text/message_forms.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace rung::text {
namespace {

using OrderedJson = nlohmann::ordered_json;

std::optional<std::string> Written(const ChatTemplate& chat, const std::vector<Message>& messages) {
  RenderOptions options;
  options.bos = "<s>";
  options.eos = "</s>";
  options.now = 0;
  options.tools =
      R"([{"type": "function", "function": {"name": "probe", "description": "d", "parameters": {"type": "object",
          "properties": {"probed": {"type": "integer", "description": "d"}}, "required": []}}}])";
  Result<Rendered> rendered = chat.Render(messages, options);
  if (!rendered.ok()) return std::nullopt;
  return std::move(rendered).value().text;
}

bool Has(const std::optional<std::string>& text, std::string_view part) {
  return text && text->find(part) != text->npos;
}

// Whether a call with the text of an object as its arguments is written wrongly, and one with an object is
// not.
bool WantsObjects(const ChatTemplate& chat) {
  const auto written = [&](const char* arguments) {
    const std::string extra =
        std::string(R"({"tool_calls": [{"id": "call00001", "type": "function", "function": {"name": "probe",
                                        "arguments": )") +
        arguments + "}}]}";
    return Written(chat, {{"user", "u"}, {"assistant", "", extra}});
  };
  const std::optional<std::string> object = written(R"({"hole": 17})");
  if (!Has(object, "hole") || Has(object, "'hole'")) return false;
  const std::optional<std::string> text = written(R"("{\"hole\": 17}")");
  return !Has(text, "hole") || Has(text, R"(\"hole)");
}

// Whether a call without a content fails, and one with an empty content does not.
bool WantsContent(const ChatTemplate& chat) {
  for (const char* arguments : {R"({"hole": 17})", R"("{\"hole\": 17}")"}) {
    const std::string calls = std::string(R"("tool_calls": [{"id": "call00001", "type": "function",
                                       "function": {"name": "probe", "arguments": )") +
                              arguments + "}}]}";
    const auto written = [&](const std::string& extra) {
      return Written(chat, {{"user", "u"}, {"assistant", "", extra}});
    };
    if (!written(R"({"content": null, )" + calls) && written("{" + calls)) return true;
  }
  return false;
}

bool WantsText(const ChatTemplate& chat) {
  const auto written = [&](const char* question, const char* answer) {
    return Written(chat, {{"user", "", question}, {"assistant", "", answer}});
  };
  const auto right = [](const std::optional<std::string>& text) {
    return Has(text, "asked") && Has(text, "told") && !Has(text, "'asked'") && !Has(text, "\"asked\"");
  };
  if (right(written(R"({"content": [{"type": "text", "text": "asked"}]})",
                    R"({"content": [{"type": "text", "text": "told"}]})"))) {
    return false;
  }
  return right(written(R"({"content": "asked"})", R"({"content": "told"})"));
}

void GiveObjects(OrderedJson& extra) {
  const auto calls = extra.find("tool_calls");
  if (calls == extra.end() || !calls->is_array()) return;
  for (OrderedJson& call : *calls) {
    if (!call.is_object()) continue;
    OrderedJson& function = call.contains("function") ? call["function"] : call;
    if (!function.is_object() || !function.contains("arguments")) continue;
    OrderedJson& arguments = function["arguments"];
    if (!arguments.is_string()) continue;
    OrderedJson object = OrderedJson::parse(arguments.get_ref<const std::string&>(), nullptr, false);
    if (object.is_object()) arguments = std::move(object);
  }
}

// Out of the other keys and into the content.
Status JoinParts(OrderedJson& extra, std::string* content) {
  const auto parts = extra.find("content");
  if (parts == extra.end() || !parts->is_array()) return Ok{};
  std::string joined;
  for (size_t i = 0; i < parts->size(); ++i) {
    const OrderedJson& part = (*parts)[i];
    const bool text =
        part.is_string() || (part.is_object() && part.contains("text") && part["text"].is_string() &&
                             (!part.contains("type") || part["type"] == "text"));
    if (!text) {
      return Failure{"part " + std::to_string(i) +
                     " of its content is no text, and this model's chat template takes texts only"};
    }
    if (i > 0) joined += '\n';
    joined +=
        part.is_string() ? part.get_ref<const std::string&>() : part["text"].get_ref<const std::string&>();
  }
  *content = std::move(joined);
  extra.erase("content");
  return Ok{};
}

}  // namespace

MessageForms FormsOf(const ChatTemplate& chat) {
  return {WantsObjects(chat), WantsText(chat), chat.source().find("developer") == std::string::npos,
          WantsContent(chat)};
}

Result<std::vector<Message>> InForms(std::vector<Message> messages, const MessageForms& forms) {
  for (size_t i = 0; i < messages.size(); ++i) {
    Message& message = messages[i];
    if (forms.system_developer && message.role == "developer") message.role = "system";
    if (message.extra.empty()) continue;
    if (!forms.object_arguments && !forms.text_content && !forms.empty_content) continue;
    OrderedJson extra = OrderedJson::parse(message.extra, nullptr, false);
    if (!extra.is_object()) continue;  // rendering says what is wrong with it
    if (forms.object_arguments) GiveObjects(extra);
    if (const auto content = extra.find("content");
        forms.empty_content && content != extra.end() && content->is_null()) {
      extra.erase(content);
      message.content.clear();
    }
    if (forms.text_content) {
      if (Status joined = JoinParts(extra, &message.content); !joined.ok())
        return Failure{"message " + std::to_string(i) + ": " + joined.failure().message};
    }
    message.extra = extra.empty() ? "" : extra.dump();
  }
  return messages;
}

}  // namespace rung::text
