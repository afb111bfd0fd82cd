// Forms that a template does not take, given in the one that it takes.
#include "text/message_forms.h"

#include <gtest/gtest.h>

#include <set>

#include "text/chat_template_fixture.h"

namespace rung::text {
namespace {

const char* const kTemplates[] = {
    "alpaca",  "chatml",  "command_r",      "deepseek_r1",   "exaone", "falcon",   "gemma",  "gemma3",
    "glm4",    "granite", "harmony",        "hermes",        "lfm2",   "llama2",   "llama3", "llama3.1",
    "macro",   "mistral", "mistral_system", "mistral_tools", "olmo2",  "openchat", "phi3",   "phi4",
    "qwen2.5", "qwen3",   "smollm2",        "vicuna",        "zephyr"};

RenderOptions Tokens() {
  RenderOptions options;
  options.bos = "<s>";
  options.eos = "</s>";
  options.now = 0;
  return options;
}

Result<Rendered> RenderInForms(const std::string& name, const std::vector<Message>& messages,
                               const RenderOptions& options) {
  const ChatTemplate chat = LoadTemplate(name);
  Result<std::vector<Message>> given = InForms(messages, FormsOf(chat));
  if (!given.ok()) return given.failure();
  return chat.Render(given.value(), options);
}

// OpenAI's form, arguments as the text of an object, is written as the object is: by templates that print it
// as an object, and otherwise as the text stands.
TEST(MessageForms, ArgumentsAsTextAreThoseOfTheObject) {
  const auto& objects = TemplateGolden().at("conversations").at("tools_called");
  OrderedJson texts = objects;
  OrderedJson& arguments = texts["messages"][1]["tool_calls"][0]["function"]["arguments"];
  arguments = arguments.dump();
  int written = 0;
  for (const char* name : kTemplates) {
    RenderOptions options = OptionsOf(objects);
    options.bos = "<s>";
    options.eos = "</s>";
    const Result<Rendered> object = LoadTemplate(name).Render(MessagesOf(objects), options);
    if (!object.ok() || object.value().text.find("Zürich \\\"old\\\"") == std::string::npos) continue;
    const Result<Rendered> text = RenderInForms(name, MessagesOf(texts), options);
    ASSERT_TRUE(text.ok()) << name << ": " << text.failure().message;
    const auto squeezed = [](std::string from) {
      std::erase(from, ' ');
      return from;
    };
    EXPECT_EQ(squeezed(text.value().text), squeezed(object.value().text)) << name;
    ++written;
  }
  EXPECT_GE(written, 8);
  for (const char* name : {"llama3.1", "granite", "mistral_tools", "harmony", "glm4"}) {
    EXPECT_TRUE(FormsOf(LoadTemplate(name)).object_arguments) << name;
  }
  for (const char* name : {"qwen3", "deepseek_r1", "chatml"}) {
    EXPECT_FALSE(FormsOf(LoadTemplate(name)).object_arguments) << name;
  }
}

TEST(MessageForms, ArgumentsThatAreNoObjectStayText) {
  const MessageForms forms{true, false, false};
  for (const char* arguments : {"\"[1]\"", "\"half {\"", "\"\"", "{\"a\": 1}"}) {
    const std::string extra =
        std::string(R"({"tool_calls":[{"function":{"name":"f","arguments":)") + arguments + "}}]}";
    EXPECT_EQ(OrderedJson::parse(InForms({{"assistant", "", extra}}, forms).OrThrow()[0].extra),
              OrderedJson::parse(extra));
  }
  EXPECT_EQ(
      InForms({{"assistant", "", R"({"tool_calls":[{"name":"f","arguments":"{\"z\":1,\"a\":2}"}]})"}}, forms)
          .OrThrow()[0]
          .extra,
      R"({"tool_calls":[{"name":"f","arguments":{"z":1,"a":2}}]})");
}

TEST(MessageForms, PartsAreJoinedForTemplatesOfTexts) {
  const std::vector<Message> parts = {
      {"user", "", R"({"content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]})"},
      {"assistant", "", R"({"content": [{"type": "text", "text": "three"}]})"}};
  int joined = 0;
  for (const char* name : kTemplates) {
    const Result<Rendered> rendered = RenderInForms(name, parts, Tokens());
    ASSERT_TRUE(rendered.ok()) << name << ": " << rendered.failure().message;
    const std::string& text = rendered.value().text;
    EXPECT_NE(text.find("one"), std::string::npos) << name;
    EXPECT_NE(text.find("two"), std::string::npos) << name;
    EXPECT_EQ(text.find("'text'"), std::string::npos) << name << ": " << text;
    ASSERT_EQ(Learned(rendered.value()).size(), 1u) << name;
    EXPECT_NE(Learned(rendered.value())[0].find("three"), std::string::npos) << name;
    joined += text.find("one\ntwo") != std::string::npos;
  }
  EXPECT_GE(joined, 15);
  const Result<Rendered> image =
      RenderInForms("chatml", {{"user", "", R"({"content": [{"type": "image"}]})"}}, {});
  ASSERT_FALSE(image.ok());
  EXPECT_EQ(image.failure().message,
            "message 0: part 0 of its content is no text, and this model's chat template takes texts only");
}

// OpenAI's form of a call alone: a content of null. Left out, as templates that ask for it need it, and ""
// for those that take every message to have one.
TEST(MessageForms, NoContentBesideCallsIsAnEmptyOneWhereTheTemplateNeedsOne) {
  const std::string calls =
      R"("tool_calls": [{"id": "call00001", "type": "function",
                         "function": {"name": "add", "arguments": {"a": 1}}}]})";
  const std::vector<Message> null = {{"user", "q"}, {"assistant", "", R"({"content": null, )" + calls}};
  const std::vector<Message> empty = {{"user", "q"}, {"assistant", "", "{" + calls}};
  int needed = 0;
  for (const char* name : kTemplates) {
    const Result<Rendered> with = RenderInForms(name, empty, Tokens());
    if (!with.ok()) continue;
    const Result<Rendered> without = RenderInForms(name, null, Tokens());
    ASSERT_TRUE(without.ok()) << name << ": " << without.failure().message;
    if (!FormsOf(LoadTemplate(name)).empty_content) continue;
    EXPECT_FALSE(LoadTemplate(name).Render(null, Tokens()).ok()) << name;
    EXPECT_EQ(without.value().text, with.value().text) << name;
    ++needed;
  }
  for (const char* name : {"smollm2", "phi3", "qwen3"}) {
    EXPECT_TRUE(FormsOf(LoadTemplate(name)).empty_content) << name;
  }
  EXPECT_GE(needed, 3);
}

TEST(MessageForms, TheDeveloperSpeaksAsTheSystemWhereTheTemplateKnowsNone) {
  const std::vector<Message> messages = {{"developer", "Be brief."}, {"user", "q"}, {"assistant", "a"}};
  for (const char* name : {"chatml", "llama3", "gemma3", "smollm2"}) {
    std::vector<Message> system = messages;
    system[0].role = "system";
    EXPECT_EQ(RenderInForms(name, messages, Tokens()).OrThrow().text,
              LoadTemplate(name).Render(system, Tokens()).OrThrow().text)
        << name;
  }
  EXPECT_FALSE(FormsOf(LoadTemplate("harmony")).system_developer);
}

}  // namespace
}  // namespace rung::text
