// Whole templates, against Python's jinja2 (tools/make_template_fixtures.py), and the spans that are learned.
#include "text/chat_template.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "base/files.h"

namespace rung::text {
namespace {

constexpr const char* kFolder = "tests/data/text/templates/";

ChatTemplate Load(const std::string& name) {
  const std::string source = ReadTextFile(Path(kFolder) / (name + ".jinja"), 1 << 20).OrThrow();
  return ChatTemplate::Parse(source, name).OrThrow();
}

const nlohmann::json& Golden() {
  static const auto kGolden =
      nlohmann::json::parse(ReadTextFile(Path(kFolder) / "golden.json", 1 << 24).OrThrow());
  return kGolden;
}

std::vector<Message> Conversation(const std::string& name) {
  std::vector<Message> messages;
  for (const auto& message : Golden().at("conversations").at(name))
    messages.push_back({message.at("role"), message.at("content")});
  return messages;
}

Result<Rendered> RenderEntry(const nlohmann::json& entry) {
  return Load(entry.at("template"))
      .Render(Conversation(entry.at("conversation")), entry.at("add_generation_prompt"),
              entry.at("bos").get<std::string>(), entry.at("eos").get<std::string>());
}

std::vector<std::string> Learned(const Rendered& rendered) {
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

std::vector<std::string> LearnedFrom(std::string_view source, const std::vector<Message>& messages) {
  return Learned(
      ChatTemplate::Parse(source, "test").OrThrow().Render(messages, false, "<s>", "</s>").OrThrow());
}

using Pieces = std::vector<std::string>;

TEST(ChatTemplate, EqualsPython) {
  ASSERT_GE(Golden().at("templates").size(), 200u);
  for (const auto& entry : Golden().at("templates")) {
    const std::string name =
        entry.at("template").get<std::string>() + " of " + entry.at("conversation").get<std::string>();
    const Result<Rendered> rendered = RenderEntry(entry);
    if (entry.contains("error")) {
      ASSERT_FALSE(rendered.ok()) << name;
      EXPECT_EQ(rendered.failure().message, "template of " + entry.at("template").get<std::string>() + ": " +
                                                entry.at("error").get<std::string>());
    } else {
      ASSERT_TRUE(rendered.ok()) << name << "\n" << rendered.failure().message;
      EXPECT_EQ(rendered.value().text, entry.at("output").get<std::string>()) << name;
    }
  }
}

TEST(ChatTemplate, GenerationBlocksAreThePythonSpans) {
  int spans = 0;
  for (const auto& entry : Golden().at("templates")) {
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

std::string Trim(const std::string& text) {
  static const std::string kSpace = " \t\n";
  const size_t begin = text.find_first_not_of(kSpace);
  return begin == std::string::npos ? "" : text.substr(begin, text.find_last_not_of(kSpace) + 1 - begin);
}

// Of the models whose templates write a turn as content and marker: the learned text is exactly that.
TEST(ChatTemplate, LearnsContentAndEndOfTurn) {
  struct Rule {
    const char* marker;
    bool trimmed;
  };
  const std::map<std::string, Rule> rules = {
      {"smollm2", {"<|im_end|>", false}}, {"qwen2.5", {"<|im_end|>", false}},
      {"mistral", {"</s>", false}},       {"phi3", {"<|end|>", false}},
      {"gemma", {"<end_of_turn>", true}}, {"chatml", {"<|im_end|>", false}},
      {"macro", {"</s>", true}},          {"zephyr", {"</s>", false}}};
  int turns = 0;
  for (const auto& entry : Golden().at("templates")) {
    const auto rule = rules.find(entry.at("template"));
    // Python trims U+3000 too, which Trim above does not.
    if (rule == rules.end() || entry.contains("error") || entry.at("conversation") == "spaces") continue;
    // Zephyr writes the generation prompt in the iteration of the last message: training never asks for it.
    if (rule->first == "zephyr" && entry.at("add_generation_prompt")) continue;
    Pieces expected;
    for (const Message& message : Conversation(entry.at("conversation"))) {
      if (message.role != "assistant" || message.content.empty()) continue;
      expected.push_back((rule->second.trimmed ? Trim(message.content) : message.content) +
                         rule->second.marker);
      ++turns;
    }
    EXPECT_EQ(Learned(RenderEntry(entry).OrThrow()), expected)
        << entry.at("template") << entry.at("conversation");
  }
  EXPECT_GE(turns, 200);
}

TEST(ChatTemplate, LearnsThinkingWhereTheTemplateKeepsIt) {
  const Rendered rendered = Load("qwen3").Render(Conversation("think"), false, "", "<|im_end|>").OrThrow();
  // The reasoning of turns before the last question is dropped by the template.
  EXPECT_EQ(Learned(rendered), (Pieces{"Because.<|im_end|>", "hm\n</think>\n\nYes.<|im_end|>"}));
}

TEST(ChatTemplate, SpansKeepSpacesOfTheContent) {
  const Rendered rendered = Load("smollm2").Render(Conversation("spaces"), true, "", "").OrThrow();
  EXPECT_EQ(Learned(rendered), (Pieces{"\n answer with spaces \t\n<|im_end|>", " y\u3000<|im_end|>"}));
  // Without a marker the content's own spaces are still its own.
  EXPECT_EQ(LearnedFrom("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}",
                        {{"assistant", "x \n"}}),
            Pieces{"x \n"});
}

TEST(ChatTemplate, OriginSurvivesStringOperations) {
  const std::vector<Message> messages = {{"user", "q"}, {"assistant", " One-two "}};
  const auto learned = [&](const std::string& expression) {
    return LearnedFrom(
        "{% for m in messages %}{{ '<' + m.role + '>' }}{{ " + expression + " }}</s>\n{% endfor %}",
        messages);
  };
  EXPECT_EQ(learned("m.content | trim"), Pieces{"One-two</s>"});
  EXPECT_EQ(learned("m.content[1:4]"), Pieces{"One</s>"});
  EXPECT_EQ(learned("m.content.split('-')[-1].strip()"), Pieces{"two</s>"});
  EXPECT_EQ(learned("m.content.replace('-', '+') | upper"), Pieces{" ONE+TWO </s>"});
  EXPECT_EQ(learned("'a' ~ m.content ~ 'b'"), Pieces{" One-two b</s>"});
  EXPECT_EQ(learned("[m.content, 'b'] | join('-')"), Pieces{" One-two -b</s>"});
  EXPECT_EQ(learned("{'c': m.content} | tojson"), Pieces{" One-two \"}</s>"});
  EXPECT_EQ(learned("m.content | length"), Pieces{});
  EXPECT_EQ(learned("'fixed'"), Pieces{});
}

TEST(ChatTemplate, FindsTheTurnWhateverTheLoop) {
  const std::vector<Message> messages = {
      {"user", "q"}, {"assistant", "A"}, {"user", "r"}, {"assistant", "B"}};
  const Pieces turns = {"A</s>", "B</s>"};
  EXPECT_EQ(LearnedFrom("{% for m in messages %}{{ m.content }}</s>\n{% endfor %}tail", messages), turns);
  EXPECT_EQ(LearnedFrom("{% for i in range(messages | length) %}{{ messages[i].content }}</s> {% endfor %}",
                        messages),
            turns);
  EXPECT_EQ(
      LearnedFrom(
          "{% macro t(m) %}{{ m.content }}</s>{% endmacro %}{% for m in messages %}{{ t(m) }}\n{% endfor %}",
          messages),
      turns);
  EXPECT_EQ(
      LearnedFrom("{% macro all() %}{% for m in messages %}{{ m.content }}</s>\n{% endfor %}{% endmacro %}"
                  "{{ all() | trim }}!",
                  messages),
      turns);
  EXPECT_EQ(LearnedFrom(
                "{% for once in [1] %}{% for m in messages %}{{ m.content }}</s>\n{% endfor %}x{% endfor %}",
                messages),
            turns);
  // A loop over the parts of a content is inside of the turn.
  EXPECT_EQ(LearnedFrom("{% for m in messages %}{% for c in m.content %}{{ c }}.{% endfor %}</s>{% endfor %}",
                        messages),
            (Pieces{"A.</s>", "B.</s>"}));
  EXPECT_EQ(
      LearnedFrom(
          "{% set s %}{% for m in messages %}{{ m.content }}</s>\n{% endfor %}{% endset %}{{ s }}{{ s }}",
          messages),
      (Pieces{"A</s>", "B</s>", "A</s>", "B</s>"}));
  // Outside of a loop nothing says where the turn ends.
  EXPECT_EQ(LearnedFrom("{{ messages[1].content }}</s>{{ messages[3].content }}</s>", messages),
            (Pieces{"A", "B"}));
}

TEST(ChatTemplate, KeepsItsSource) {
  const std::string source = "a\r\n{{ messages[0].content }}\n";
  const ChatTemplate parsed = ChatTemplate::Parse(source, "x").OrThrow();
  EXPECT_EQ(parsed.source(), source);
  EXPECT_EQ(parsed.Render({{"user", "u\r\n"}}, false, "", "").OrThrow().text, "a\nu\r\n");
}

}  // namespace
}  // namespace rung::text
