// Which bytes are learned: of whole templates a property over random conversations, and of the rule its
// parts.
#include <gtest/gtest.h>

#include <random>

#include "text/chat_template_fixture.h"
#include "text/chat_template_rules.h"

namespace rung::text {
namespace {

std::vector<std::string> LearnedFrom(std::string_view source, const std::vector<Message>& messages) {
  return Learned(
      ChatTemplate::Parse(source, "test").OrThrow().Render(messages, false, "<s>", "</s>").OrThrow());
}

TEST(Turns, AreContentsAndMarkersInAllFamilies) {
  std::mt19937 random(7);
  for (const Rule& rule : kRules) {
    const ChatTemplate chat = LoadTemplate(rule.name);
    int turns = 0;
    for (int round = 0; round < 60; ++round) {
      std::vector<Message> messages;
      if (rule.system && random() % 2) messages.push_back({"system", RandomContent(random)});
      const size_t pairs = 1 + random() % 4;
      Pieces expected;
      for (size_t i = 0; i < pairs; ++i) {
        messages.push_back({"user", RandomContent(random)});
        messages.push_back({"assistant", RandomContent(random)});
        std::string turn = rule.Turn(messages.back().content, i + 1 == pairs);
        if (turn.empty()) continue;
        if (pairs == 1) turn.erase(0, rule.lead(messages.back().content, true).size());
        expected.push_back(std::move(turn));
        ++turns;
      }
      const Result<Rendered> rendered = chat.Render(messages, false, "<s>", "</s>");
      ASSERT_TRUE(rendered.ok()) << rendered.failure().message;
      ASSERT_EQ(Learned(rendered.value()), expected) << rule.name << "\n" << rendered.value().text;
    }
    EXPECT_GE(turns, 80) << rule.name;
  }
}

// Generation begins where the turn does: what stands in front of it is what the model is given.
TEST(Turns, BeginWhereTheGenerationPromptEnds) {
  std::mt19937 random(5);
  std::vector<std::string> never;  // of these no text goes on from the conversation before an answer
  for (const Rule& rule : kRules) {
    const ChatTemplate chat = LoadTemplate(rule.name);
    int compared = 0;
    for (int round = 0; round < 20; ++round) {
      std::vector<Message> messages;
      if (rule.system && random() % 2) messages.push_back({"system", RandomContent(random)});
      for (size_t pairs = 2 + random() % 3; pairs > 0; --pairs) {
        messages.push_back({"user", RandomContent(random)});
        messages.push_back({"assistant", RandomContent(random)});
      }
      const Rendered rendered = chat.Render(messages, false, "<s>", "</s>").OrThrow();
      for (const Rendered::Span& span : rendered.assistant) {
        const std::vector<Message> before(messages.begin(), messages.begin() + span.message);
        const std::string prompt = chat.Render(before, true, "<s>", "</s>").OrThrow().text;
        if (!rendered.text.starts_with(prompt)) continue;
        ASSERT_EQ(span.begin, prompt.size()) << rule.name << "\n" << rendered.text;
        ++compared;
      }
    }
    if (compared < 20) never.emplace_back(rule.name);
  }
  // One has an empty line that its generation prompt has not, one opens reasoning that its answers have not.
  EXPECT_EQ(never, (std::vector<std::string>{"alpaca", "deepseek_r1"}));
}

// The same of a template without a loop over its messages, which fills a variable, and of one whose
// generation prompt is there unasked.
TEST(Turns, BeginThereWhateverTheTemplateDoes) {
  const std::vector<Message> messages = {{"user", "q"},
                                         {"assistant", "A", R"({"tool_calls": [{"name": "f"}]})"},
                                         {"tool", "R"},
                                         {"assistant", "B"}};
  EXPECT_EQ(LearnedFrom(
                "{% set n = namespace(out='') %}{% for i in range(messages | length) %}"
                "{% set m = messages[i] %}{% set n.out = n.out ~ m.role ~ ': ' ~ m.content %}"
                "{% for c in m.tool_calls %}{% set n.out = n.out ~ '<call>' ~ c.name %}{% endfor %}"
                "{% set n.out = n.out ~ '<sep>' %}{% endfor %}"
                "{% if add_generation_prompt %}{% set n.out = n.out ~ 'assistant:' %}{% endif %}{{ n.out }}",
                messages),
            (Pieces{" A<call>f<sep>", " B<sep>"}));
  EXPECT_EQ(LearnedFrom("{% for m in messages %}<{{ m.role }}><say>{{ m.content }}</s>{% endfor %}"
                        "{% if messages[-1].role != 'assistant' %}<assistant>{% endif %}",
                        messages),
            (Pieces{"<say>A</s>", "<say>B</s>"}));
  // The question's last mark is what generation begins behind, and the question is written otherwise later.
  EXPECT_EQ(LearnedFrom("{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}</s>"
                        "{% else %}[{{ 'LAST' if loop.last }}]{{ m.content }}[/]{% endif %}{% endfor %}",
                        messages),
            (Pieces{" A</s>", " B</s>"}));
}

// Without a loop over its messages; `turn` writes an answer m, message i.
std::string IntoVariable(const std::string& turn) {
  return "{% set n = namespace(out='') %}{% for i in range(messages | length) %}{% set m = messages[i] %}"
         "{% set n.out = n.out ~ '<' ~ m.role ~ '>' ~ (" +
         turn +
         " if m.role == 'assistant' else m.content) ~ '\n' %}{% endfor %}"
         "{% if add_generation_prompt %}{% set n.out = n.out ~ '<assistant>' %}{% endif %}{{ n.out }}";
}

// The question that such a template repeats in front of an answer is not the assistant's.
TEST(Turns, BeginBehindWhatOthersSayInFrontOfThem) {
  const std::vector<Message> messages = {
      {"user", "q"}, {"assistant", "A"}, {"user", "r"}, {"assistant", "B"}};
  EXPECT_EQ(
      LearnedFrom(IntoVariable("'(to: ' ~ messages[i - 1].content ~ ') ' ~ m.content ~ '</s>'"), messages),
      (Pieces{"A</s>", "B</s>"}));
  EXPECT_EQ(LearnedFrom(IntoVariable("'(to you) ' ~ m.content ~ '</s>'"), messages),
            (Pieces{"(to you) A</s>", "(to you) B</s>"}));
}

// The number of renderings is bounded, not one or two an answer: behind the first turns text that differs
// from one to the next is not known to be the turn's; text that stays the same is.
TEST(Turns, OfLongConversationsAreFoundByFewRenderings) {
  constexpr size_t kCut = 16;
  std::vector<Message> messages;
  Pieces numbered, same, echoed;
  for (size_t i = 0; i < 3 * kCut; ++i) {
    messages.push_back({"user", "q" + std::to_string(i)});
    messages.push_back({"assistant", "A" + std::to_string(i)});
    const std::string& said = messages.back().content;
    numbered.push_back(i < kCut ? said + "</" + std::to_string(2 * i + 1) + ">" : said);
    same.push_back("<say>" + said + "</s>");
    echoed.push_back(said + "</s>");
  }
  EXPECT_EQ(LearnedFrom(IntoVariable("m.content ~ '</' ~ i ~ '>'"), messages), numbered);
  EXPECT_EQ(LearnedFrom(IntoVariable("'<say>' ~ m.content ~ '</s>'"), messages), same);
  EXPECT_EQ(
      LearnedFrom(IntoVariable("'(to: ' ~ messages[i - 1].content ~ ') ' ~ m.content ~ '</s>'"), messages),
      echoed);
}

// Nothing of the others is learned and nothing of the assistant's is left out, whatever the conversation.
TEST(Turns, OfEveryGoldenRenderingHoldTheAssistantsWordsOnly) {
  int checked = 0;
  for (const auto& entry : TemplateGolden().at("templates")) {
    if (entry.contains("error")) continue;
    std::string learned;
    for (const std::string& piece : Learned(RenderEntry(entry).OrThrow())) learned += piece + "\n";
    for (const char* foreign : {"Zürich?", "And there?", "21.5}", "{\\\"degrees", "Use tools."})
      EXPECT_EQ(learned.find(foreign), std::string::npos) << entry.at("template") << entry.at("conversation");
    if (entry.at("conversation") != "tools") continue;
    ++checked;
    EXPECT_NE(learned.find("It is 21.5 degrees."), std::string::npos) << entry.at("template");
  }
  EXPECT_GE(checked, 20);
}

struct Calls {
  const char* name;
  const char* begin;
  const char* end;
};

// The first turn is a call alone: all that generation must write after its prompt is learned.
TEST(Turns, OfToolCallsBeginBehindTheGenerationPrompt) {
  constexpr Calls kCalls[] = {
      {"qwen2.5", "<tool_call>{\"id\": ", "}}</tool_call><|im_end|>"},
      {"qwen3", "<tool_call>\n{\"name\": \"get_weather\"", "}\n</tool_call><|im_end|>"},
      {"hermes", "<tool_call>\n{\"name\": \"get_weather\"", "}\n</tool_call><|im_end|>"},
      {"llama3.1", "{\"name\": \"get_weather\"", "}}<|eot_id|>"},
      {"mistral_tools", "[TOOL_CALLS] [{\"name\": \"get_weather\"", "\"call00001\"}]</s>"},
      {"deepseek_r1", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function",
       "<｜tool▁calls▁end｜><｜end▁of▁sentence｜>"},
      {"command_r", "Action: ```json\n[", "]```<|END_OF_TURN_TOKEN|>"},
      {"granite", "<|tool_call|>[{\"name\"", "}}]<|end_of_text|>"},
      {"glm4", "\n<think></think>\n<tool_call>get_weather", "</tool_call>"},
      {"harmony", " to=functions.get_weather<|channel|>commentary", "}<|call|>"},
      {"lfm2", "<|tool_call_start|>[get_weather(", ")]<|tool_call_end|><|im_end|>"},
  };
  const auto& chat = TemplateGolden().at("conversations").at("tools");
  for (const Calls& calls : kCalls) {
    RenderOptions options = OptionsOf(chat);
    options.bos = "<s>";
    options.eos = "</s>";
    options.add_generation_prompt = true;
    const Pieces learned = Learned(LoadTemplate(calls.name).Render(MessagesOf(chat), options).OrThrow());
    ASSERT_EQ(learned.size(), 2u)
        << calls.name;  // no span of the turn of the result, which may name the call
    EXPECT_TRUE(learned[0].starts_with(calls.begin)) << calls.name << ": " << learned[0];
    EXPECT_TRUE(learned[0].ends_with(calls.end)) << calls.name << ": " << learned[0];
    EXPECT_NE(learned[1].find("It is 21.5 degrees."), std::string::npos) << calls.name;
  }
}

TEST(Turns, OfReasoningBeginBehindTheGenerationPrompt) {
  const auto learned = [](const std::string& name) {
    return Learned(LoadTemplate(name).Render(Conversation("reasoning"), false, "<s>", "</s>").OrThrow());
  };
  EXPECT_EQ(learned("qwen3"), (Pieces{"Because.<|im_end|>", "<think>\nhm\n</think>\n\nYes.<|im_end|>"}));
  EXPECT_EQ(learned("glm4"), (Pieces{"\n<think></think>\nBecause.", "\n<think>hm</think>\nYes."}));
  EXPECT_EQ(
      learned("harmony").back(),
      "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>");
}

// A turn that shows the result of its call, as Gemma 4's does: the result is the tool's, and so is the text
// that introduces it.
TEST(Turns, LeaveOutWhatOthersSayInThem) {
  const auto learned = [](const std::string& result) {
    return LearnedFrom(
        "{% for m in messages %}{% if m.role == 'assistant' %}<a>{% for c in m.tool_calls %}"
        "<call>{{ c }}</call>" +
            result + "{% endfor %}{{ m.content }}</a>\n{% endif %}{% endfor %}",
        {{"assistant", "done", R"({"tool_calls": ["f"]})"}, {"tool", "R"}});
  };
  // With nothing to say before its result.
  EXPECT_EQ(learned("{% if messages[loop.index] %}<cut>r:{{ messages[loop.index].content }}</r>{% endif %}"),
            (Pieces{"<call>f</call>", "done</a>"}));
  // The mark that the template writes in any case is the end that generation has to write.
  EXPECT_EQ(learned("<r>{% if messages[loop.index] %}r:{{ messages[loop.index].content }}</r>{% endif %}"),
            (Pieces{"<call>f</call><r>", "done</a>"}));
  // Without the result it fails: nothing says which of the text is the turn's.
  EXPECT_EQ(learned("<r>{{ messages[loop.index].content }}</r>"), (Pieces{"<call>f", "done</a>"}));
}

// A template may write the generation prompt in the iteration of the last message: it is no end of that turn.
TEST(Turns, EndBeforeTheGenerationPrompt) {
  int prompted = 0;
  for (const Rule& rule : kRules) {
    const ChatTemplate chat = LoadTemplate(rule.name);
    const std::vector<Message> messages = {{"user", "q"}, {"assistant", "one"}};
    const Rendered rendered = chat.Render(messages, true, "<s>", "</s>").OrThrow();
    const Pieces learned = Learned(rendered);
    const std::string said = rule.content("one", true);
    ASSERT_EQ(learned.size(), 1u) << rule.name;
    if (learned[0] != said + rule.marker) {
      EXPECT_EQ(learned[0], said + (rule.last_marker ? rule.last_marker : "")) << rule.name;
    }
    prompted += rendered.text != chat.Render(messages, false, "<s>", "</s>").OrThrow().text;
  }
  EXPECT_GE(prompted, 15);
}

TEST(Turns, SayWhoseTheyAre) {
  const auto owners = [](const std::string& source) {
    const Rendered rendered =
        ChatTemplate::Parse(source, "test")
            .OrThrow()
            .Render({{"user", "q"}, {"assistant", ""}, {"user", "r"}, {"assistant", "A"}, {"assistant", "B"}},
                    false, "", "")
            .OrThrow();
    std::vector<int32_t> messages;
    for (const Rendered::Span& span : rendered.assistant) messages.push_back(span.message);
    return messages;
  };
  using Owners = std::vector<int32_t>;
  EXPECT_EQ(owners("{% for m in messages %}{{ m.content }}</s>{% endfor %}"), (Owners{3, 4}));
  EXPECT_EQ(owners("{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}</s>"
                   "{% endgeneration %}{% endif %}{% endfor %}"),
            (Owners{1, 3, 4}));
  EXPECT_EQ(owners("{% for i in range(5) %}{% generation %}{{ messages[i].content }}</s>{% endgeneration %}"
                   "{% endfor %}"),
            (Owners{-1, -1, -1, -1, -1}));
}

TEST(ChatTemplate, SpansKeepSpacesOfTheContent) {
  const Rendered rendered = LoadTemplate("smollm2").Render(Conversation("spaces"), true, "", "").OrThrow();
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

}  // namespace
}  // namespace rung::text
