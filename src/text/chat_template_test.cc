// Whole templates, against transformers (tools/make_template_fixtures.py), and what a caller may give.
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <set>

#include "text/chat_template_fixture.h"

namespace rung::text {
namespace {

TEST(ChatTemplate, EqualsPython) {
  std::set<std::string> names;
  int equal = 0, failures = 0;
  for (const auto& entry : TemplateGolden().at("templates")) {
    const std::string name = entry.at("template"), chat = entry.at("conversation");
    names.insert(name);
    const Result<Rendered> rendered = RenderEntry(entry);
    if (entry.contains("error")) {
      ASSERT_FALSE(rendered.ok()) << name << " of " << chat << "\nPython: " << entry.at("error");
      // The template's own words; what Python says of a wrong operation is said otherwise here, and where.
      const std::string message = rendered.failure().message, prefix = "template of " + name + ": ";
      if (message != prefix + entry.at("error").get<std::string>()) {
        EXPECT_EQ(message.find(prefix + "line "), 0u) << message << "\nPython: " << entry.at("error");
      }
      ++failures;
    } else {
      ASSERT_TRUE(rendered.ok()) << name << " of " << chat << "\n" << rendered.failure().message;
      EXPECT_EQ(rendered.value().text, entry.at("output").get<std::string>()) << name << " of " << chat;
      ++equal;
    }
  }
  EXPECT_GE(names.size(), 30u);
  EXPECT_GE(equal, 600);
  EXPECT_GE(failures, 50);
}

TEST(ChatTemplate, GenerationBlocksAreThePythonSpans) {
  int spans = 0;
  for (const auto& entry : TemplateGolden().at("templates")) {
    if (!entry.contains("spans")) continue;
    const Rendered rendered = RenderEntry(entry).OrThrow();
    ASSERT_EQ(rendered.assistant.size(), entry.at("spans").size());
    for (size_t i = 0; i < rendered.assistant.size(); ++i, ++spans) {
      EXPECT_EQ(rendered.assistant[i].begin, entry.at("spans")[i][0].get<size_t>());
      EXPECT_EQ(rendered.assistant[i].end, entry.at("spans")[i][1].get<size_t>());
    }
  }
  EXPECT_GE(spans, 20);
}

RenderOptions Options(const std::string& tools, const std::string& documents, const std::string& variables) {
  RenderOptions options;
  options.tools = tools;
  options.documents = documents;
  options.variables = variables;
  return options;
}

std::string Written(const std::string& source, const std::vector<Message>& messages,
                    const RenderOptions& options = {}) {
  const Result<Rendered> rendered = ChatTemplate::Parse(source, "t").OrThrow().Render(messages, options);
  return rendered.ok() ? rendered.value().text : rendered.failure().message;
}

TEST(ChatTemplate, GivesKeysInTheirOrder) {
  const std::vector<Message> messages = {
      {"assistant", "c", R"({"z": {"y": 1, "a": 1.0}, "b": null, "name": "n", "z": [true, 12e2]})"}};
  EXPECT_EQ(Written("{{ messages[0] | tojson }}", messages),
            R"({"role": "assistant", "content": "c", "z": [true, 1200.0], "name": "n"})");
  EXPECT_EQ(Written("{{ messages[0].content is defined }}", {{"assistant", "c", R"({"content": null})"}}),
            "False");
  EXPECT_EQ(Written("{{ messages[0].content[0].text }}", {{"user", "c", R"({"content": [{"text": "p"}]})"}}),
            "p");
  EXPECT_EQ(
      Written("{{ messages[0] | tojson }}", {{"assistant", "", R"({"reasoning": "r"})"}}),
      R"({"thinking": "r", "role": "assistant", "content": "", "reasoning": "r", "reasoning_content": "r"})");
}

TEST(ChatTemplate, GivesToolsDocumentsAndVariables) {
  const std::string source = "{{ tools | tojson }}{{ documents | tojson }}{{ a }}{{ bos_token is defined }}";
  EXPECT_EQ(Written(source, {}), "nullnullFalse");
  EXPECT_EQ(Written(source, {}, Options(R"([{"b": 1, "a": []}])", "[]", R"({"a": 2, "bos_token": ""})")),
            R"([{"b": 1, "a": []}][]2True)");
  RenderOptions options;
  options.now = 0;
  EXPECT_EQ(Written("{{ strftime_now('%Y-%m-%d %H:%M') }}", {}, options), "1970-01-01 00:00");
}

TEST(ChatTemplate, RefusesWhatIsNoJson) {
  const auto failure = [](const RenderOptions& options) { return Written("x", {}, options); };
  EXPECT_EQ(failure(Options("{}", "", "")), "template of t: tools: a JSON list is needed, not a dictionary");
  EXPECT_EQ(failure(Options("", "[1,", "")).rfind("template of t: documents: not JSON: 1:4: ", 0), 0u)
      << failure(Options("", "[1,", ""));
  EXPECT_EQ(failure(Options("", "", "[]")), "template of t: variables: a JSON object is needed, not a list");
  EXPECT_EQ(failure(Options("", "", R"({"messages": 1})")),
            "template of t: variables: 'messages' is not one of them: it is given by itself");
  EXPECT_EQ(failure(Options(std::string(65, '['), "", "")),
            "template of t: tools: JSON nested more than 64 deep");
  EXPECT_EQ(failure(Options("[18446744073709551615]", "", "")),
            "template of t: tools: JSON with an integer of more than 64 bits");
  EXPECT_EQ(failure(Options("[100000000000000000000000000]", "", "")),
            "template of t: tools: JSON with an integer of more than 64 bits");
  EXPECT_EQ(Written("x", {{"user", "a"}, {"user", "b", "[]"}}),
            "template of t: message 1: its other keys must be a JSON object, not a list");
  EXPECT_EQ(
      Written("x", {{"user", "a", "{\"a\": \"\xff\"}"}}).rfind("template of t: message 0: not JSON: ", 0),
      0u);
}

TEST(ChatTemplate, SaysWhetherItAsksForTheTime) {
  EXPECT_TRUE(LoadTemplate("llama3.1").asks_time());
  EXPECT_FALSE(LoadTemplate("qwen3").asks_time());
}

TEST(ChatTemplate, KeepsItsSource) {
  const std::string source = "a\r\n{{ messages[0].content }}\n";
  const ChatTemplate parsed = ChatTemplate::Parse(source, "x").OrThrow();
  EXPECT_EQ(parsed.source(), source);
  EXPECT_EQ(parsed.Render({{"user", "u\r\n"}}, false, "", "").OrThrow().text, "a\nu\r\n");
}

}  // namespace
}  // namespace rung::text
