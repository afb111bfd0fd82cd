// Formats of records that become messages or segments.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/record.h"

namespace rung::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string FailureOf(std::string_view line, Format format = Format::kAuto) {
  Result<Record> record = ParseRecord(line, {format, {}});
  return record.ok() ? "no failure" : record.failure().message;
}

// "role: content | ..." with a star at learned answers.
std::string Show(const Record& record) {
  std::string text;
  for (size_t i = 0; i < record.messages.size(); ++i) {
    const text::Message& m = record.messages[i];
    const bool learned = m.role == "assistant" && (record.learned.empty() || record.learned[i]);
    text += (i ? " | " : "") + std::string(learned ? "*" : "") + m.role + ": " + m.content + m.extra;
  }
  return text;
}
std::string Shown(std::string_view line) { return Show(ParseRecord(line).OrThrow()); }

TEST(Formats, AreKnownByTheirKeys) {
  const std::pair<Format, const char*> records[] = {
      {Format::kCompletion, R"({"prompt": "a", "completion": "b"})"},
      {Format::kMessages, R"({"messages": [{"role": "user", "content": "a"}]})"},
      {Format::kText, R"({"text": "a"})"},
      {Format::kAlpaca, R"({"instruction": "a", "output": "b"})"},
      {Format::kShareGpt, R"({"conversations": [{"from": "human", "value": "a"}]})"},
      {Format::kSegments, R"({"segments": [{"label": true, "text": "a"}]})"}};
  for (const auto& [format, line] : records) {
    EXPECT_EQ(ParseRecord(line).OrThrow().format, format) << line;
    EXPECT_EQ(ParseFormat(NameOf(format)).OrThrow(), format);
  }
  EXPECT_THAT(ParseFormat("chatml").failure().message, HasSubstr("sharegpt"));
}

TEST(Formats, CanBeForced) {
  const char* both = R"({"instruction": "a", "output": "b", "text": "t"})";
  EXPECT_THAT(FailureOf(both), HasSubstr("text and instruction and output at once"));
  EXPECT_THAT(FailureOf(both), HasSubstr("say which with --format text"));
  EXPECT_EQ(ParseRecord(both, {Format::kAlpaca, {}}).OrThrow().completion, "b");
  EXPECT_EQ(ParseRecord(both, {Format::kText, {}}).OrThrow().text, "t");
  EXPECT_THAT(FailureOf(both, Format::kMessages), HasSubstr("\"messages\" must be a list"));
}

TEST(Alpaca, IsACompletionUnlessItHasHistory) {
  const Record plain = ParseRecord(R"({"instruction": "Add.", "input": "2, 3", "output": "5"})").OrThrow();
  EXPECT_EQ(plain.shape, Shape::kCompletion);
  EXPECT_EQ(plain.prompt, "Add.\n2, 3");
  EXPECT_EQ(ParseRecord(R"({"instruction": "Add.", "input": "", "output": "5"})").OrThrow().prompt, "Add.");
  EXPECT_EQ(ParseRecord(R"({"instruction": "Add.", "input": null, "output": "5"})").OrThrow().prompt, "Add.");
  EXPECT_EQ(Shown(R"({"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]})"),
            "system: s | user: a | *assistant: b | user: c | *assistant: d");
  EXPECT_THAT(FailureOf(R"({"instruction": "c", "output": "d", "history": [["a"]]})"),
              HasSubstr("list of pairs"));
  EXPECT_THAT(FailureOf(R"({"instruction": "c"})"), HasSubstr("there is no \"output\""));
  EXPECT_THAT(FailureOf(R"({"instruction": 1, "output": "d"})"),
              HasSubstr("\"instruction\" must be a string"));
}

TEST(ShareGpt, NamesRolesAndCalls) {
  EXPECT_EQ(Shown(R"({"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "a"},
                     {"from": "gpt", "value": "b"}]})"),
            "system: s | user: a | *assistant: b");
  EXPECT_EQ(
      Shown(R"({"conversations": [{"from": "human", "value": "a"},
                     {"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"z\": 1, \"b\": 2}}"},
                     {"from": "observation", "value": "3"}], "tools": "[{\"name\": \"f\"}]"})"),
      "user: a | *assistant: "
      R"({"tool_calls":[{"type":"function","function":{"name":"f","arguments":{"z":1,"b":2}}}]} | tool: 3)");
  EXPECT_THAT(FailureOf(R"({"conversations": [{"from": "alien", "value": "a"}]})"),
              HasSubstr("conversations[0] is from \"alien\"; it must be one of system, human"));
  EXPECT_THAT(FailureOf(R"({"conversations": [{"from": "function_call", "value": "f"
}]
})"),
              HasSubstr("must be JSON with a name"));
  EXPECT_THAT(FailureOf(R"({"conversations": [{"from": "gpt", "text": "a"}]})"),
              HasSubstr("must have \"value\" as a string; found keys \"from\", \"text\""));
  EXPECT_THAT(FailureOf(R"({"conversations": [], "tools": "f"})"), HasSubstr("\"tools\" must be a list"));
}

TEST(MessageLists, LearnTheCompletionOnly) {
  EXPECT_EQ(Shown(R"({"prompt": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
                     {"role": "user", "content": "c"}], "completion": [{"role": "assistant", "content": "d"}]})"),
            "user: a | assistant: b | user: c | *assistant: d");
  EXPECT_EQ(Shown(R"({"prompt": [{"role": "user", "content": "a"}], "completion": "b"})"),
            "user: a | *assistant: b");
  EXPECT_EQ(Shown(R"({"messages": [{"role": "assistant", "content": "a", "weight": 0},
                     {"role": "assistant", "content": "b", "train": true}]})"),
            "assistant: a | *assistant: b");
  EXPECT_THAT(FailureOf(R"({"messages": [{"role": "assistant", "content": "a", "weight": 0.5}]})"),
              HasSubstr("\"weight\" must be 0, 1, true or false"));
}

TEST(MessageLists, KeepOtherKeysInOrder) {
  const Record record = ParseRecord(R"({"messages": [{"role": "assistant", "content": null,
      "tool_calls": [{"function": {"name": "f", "arguments": {"z": 1, "a": 2}}}]}], "tools": [{"z": 1, "a": 2}]})")
                            .OrThrow();
  EXPECT_EQ(record.messages[0].extra,
            R"({"content":null,"tool_calls":[{"function":{"name":"f","arguments":{"z":1,"a":2}}}]})");
  EXPECT_EQ(record.tools, R"([{"z":1,"a":2}])");
}

TEST(Segments, HaveALabelEach) {
  const Record record =
      ParseRecord(R"({"segments": [{"label": false, "text": "a"}, {"label": "train", "text": "b"},
                                       {"label": "ignore", "text": "c"}, {"label": true, "text": "d"}]})")
          .OrThrow();
  std::vector<std::string> shown;
  for (const Segment& segment : record.segments) shown.push_back((segment.learned ? "*" : "") + segment.text);
  EXPECT_THAT(shown, ElementsAre("a", "*b", "c", "*d"));
  EXPECT_THAT(FailureOf(R"({"segments": [{"label": 1, "text": "a"}]})"), HasSubstr("segments[0] must have"));
  EXPECT_THAT(FailureOf(R"({"segments": [{"txt": "a", "label": true}]})"),
              HasSubstr("did you mean \"text\" by \"txt\"?"));
  EXPECT_THAT(FailureOf(R"({"segments": []})"), HasSubstr("a right record: {\"segments\""));
}

TEST(Hashes, AreOfTheContent) {
  const auto parse = [](const char* line) { return ParseRecord(line).OrThrow(); };
  const Record a = parse(R"({"prompt": "p", "completion": "c"})");
  Record same = parse(R"({"completion": "c", "label": "x", "prompt": "p"})");
  same.row = 7;
  EXPECT_EQ(ContentHash(a), ContentHash(same));
  const Record other = parse(R"({"prompt": "p", "completion": "d"})");
  EXPECT_NE(ContentHash(a), ContentHash(other));
  EXPECT_EQ(PromptHash(a), PromptHash(other));
  // Where one field ends matters.
  EXPECT_NE(ContentHash(parse(R"({"prompt": "pc", "completion": ""})")), ContentHash(a));
  // On disk and on every machine: a change moves records between parts.
  EXPECT_EQ(ContentHash(parse(R"({"text": "a"})")), 0x5c3f3ac55ba1553cull);
  // A question is one in every shape.
  const Record pair = parse(R"({"prompt": "q", "completion": "a"})"),
               chat = parse(R"({"messages": [{"role": "user", "content": "q"},
                                             {"role": "assistant", "content": "b"}]})");
  EXPECT_EQ(PromptHash(pair), PromptHash(chat));
  EXPECT_NE(PromptHash(pair), PromptHash(parse(R"({"prompt": "r", "completion": "a"})")));
  // Without a question, other answers are other records.
  const auto segment = [&](const std::string& text) {
    return ParseRecord("{\"segments\": [{\"label\": true, \"text\": \"" + text + "\"}]}").OrThrow();
  };
  EXPECT_NE(PromptHash(segment("a")), PromptHash(segment("b")));
  EXPECT_NE(PromptHash(parse(R"({"prompt": "", "completion": "a"})")),
            PromptHash(parse(R"({"prompt": "", "completion": "b"})")));
  // What has no answer is no other answer.
  EXPECT_NE(PromptHash(pair), PromptHash(parse(R"({"messages": [{"role": "user", "content": "q"}]})")));
  EXPECT_NE(PromptHash(pair), PromptHash(parse(R"({"prompt": "q", "completion": ""})")));
}

TEST(ShareGpt, MayHoldMessages) {
  EXPECT_EQ(
      Shown(R"({"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
                      "system": "s"})"),
      "system: s | user: q | *assistant: a");
  EXPECT_THAT(FailureOf(R"({"conversations": [{"role": "user", "content": 5}]})"),
              HasSubstr("conversations[0] must have \"content\" as a string"));
}

}  // namespace
}  // namespace rung::data
