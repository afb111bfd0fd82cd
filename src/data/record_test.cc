#include "data/record.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "data/rows.h"

namespace rung::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::string FailureOf(std::string_view line) {
  Result<Record> record = ParseRecord(line);
  return record.ok() ? "no failure" : record.failure().message;
}

TEST(Record, ReadsPromptAndCompletion) {
  const Record record =
      ParseRecord(R"({"completion": "5", "prompt": "2 + 3 =\n", "id": {"a": [1]}})").OrThrow();
  EXPECT_EQ(record.shape, Shape::kCompletion);
  EXPECT_EQ(record.prompt, "2 + 3 =\n");
  EXPECT_EQ(record.completion, "5");
  EXPECT_TRUE(record.choices.empty());
  EXPECT_TRUE(record.label.empty());
}

TEST(Record, ReadsToolsBesidePromptAndCompletion) {
  EXPECT_EQ(ParseRecord(R"({"prompt": "p", "completion": "c", "tools": [{"z": 1, "a": 2}]})").OrThrow().tools,
            R"([{"z":1,"a":2}])");
  EXPECT_EQ(ParseRecord(R"({"prompt": "p", "completion": "c", "tools": []})").OrThrow().tools, "");
  EXPECT_THAT(FailureOf(R"({"prompt": "p", "completion": "c", "tools": "garbage"})"),
              HasSubstr("\"tools\" must be a list of function schemas"));
}

TEST(Record, ReadsTheDeveloper) {
  const Record record =
      ParseRecord(
          R"({"messages": [{"role": "developer", "content": "d"}, {"role": "user", "content": "q"}]})")
          .OrThrow();
  EXPECT_EQ(record.messages[0].role, "developer");
}

TEST(Record, ReadsMessages) {
  const Record record = ParseRecord(R"({"messages": [{"role": "system", "content": "be brief"},
      {"role": "user", "content": "2 + 3?"}, {"role": "assistant", "content": "5", "weight": 1}]})")
                            .OrThrow();
  EXPECT_EQ(record.shape, Shape::kMessages);
  ASSERT_EQ(record.messages.size(), 3u);
  EXPECT_EQ(record.messages[0].role, "system");
  EXPECT_EQ(record.messages[2].content, "5");
}

TEST(Record, ReadsTextWithEscapes) {
  const Record record = ParseRecord(R"({"text": "\ud83d\ude00 \u00e9 \u0000."})").OrThrow();
  EXPECT_EQ(record.shape, Shape::kText);
  EXPECT_EQ(record.text, std::string("\xF0\x9F\x98\x80 \xC3\xA9 \0.", 10));
}

TEST(Record, KeepsChoicesAndLabel) {
  const Record record =
      ParseRecord(R"({"prompt": "p", "completion": "a", "choices": ["a", "b"], "label": 1})").OrThrow();
  EXPECT_THAT(record.choices, ElementsAre("a", "b"));
  EXPECT_EQ(record.label, "1");
  EXPECT_EQ(ParseRecord(R"({"text": "t", "label": "yes"})").OrThrow().label, "yes");
  EXPECT_EQ(ParseRecord(R"({"text": "t", "label": true})").OrThrow().label, "true");
  EXPECT_EQ(ParseRecord(R"({"text": "t", "label": null, "choices": null})").OrThrow().label, "");
  EXPECT_THAT(FailureOf(R"({"text": "t", "choices": "a"})"),
              HasSubstr("\"choices\" must be a list of strings"));
  EXPECT_THAT(FailureOf(R"({"text": "t", "choices": ["a", 1]})"), HasSubstr("list of strings"));
  EXPECT_THAT(FailureOf(R"({"text": "t", "choices": []})"), HasSubstr("list of strings"));
  EXPECT_THAT(FailureOf(R"({"text": "t", "label": [1]})"), HasSubstr("\"label\" must be"));
}

TEST(Record, NamesExpectedAndFoundKeys) {
  const std::string message = FailureOf(R"({"question": "add", "answer": "5"})");
  EXPECT_THAT(message,
              HasSubstr("expected the keys \"prompt\" and \"completion\", or \"messages\", or \"text\""));
  EXPECT_THAT(message, HasSubstr("found keys \"answer\", \"question\""));
  EXPECT_THAT(message, HasSubstr(R"({"prompt": "2 + 3 =", "completion": "5"})"));
  EXPECT_THAT(FailureOf("{}"), HasSubstr("found no keys"));
}

TEST(Record, SuggestsTheNearestKey) {
  const std::string message = FailureOf(R"({"prompt": "p", "compeltion": "c"})");
  EXPECT_THAT(message, HasSubstr("there is no \"completion\""));
  EXPECT_THAT(message, HasSubstr("did you mean \"completion\" by \"compeltion\"?"));
}

TEST(Record, RefusesTwoShapesAtOnce) {
  EXPECT_THAT(FailureOf(R"({"prompt": "p", "completion": "c", "text": "t"})"),
              HasSubstr("prompt and completion and text at once"));
  EXPECT_THAT(FailureOf(R"({"messages": [], "text": "t"})"), HasSubstr("messages and text at once"));
}

TEST(Record, RefusesWrongTypes) {
  EXPECT_THAT(FailureOf(R"({"prompt": {"a": 1}, "completion": "c"})"),
              HasSubstr("\"prompt\" must be a string, it is object"));
  EXPECT_THAT(FailureOf(R"({"prompt": ["p"], "completion": "c"})"),
              HasSubstr("prompt[0] must have \"role\" as a string"));
  EXPECT_THAT(FailureOf(R"({"prompt": "p", "completion": null})"),
              HasSubstr("\"completion\" must be a string, it is null"));
  EXPECT_THAT(FailureOf(R"({"text": 1})"), HasSubstr("\"text\" must be a string, it is number"));
}

TEST(Record, RefusesWrongMessages) {
  EXPECT_THAT(FailureOf(R"({"messages": "hi"})"), HasSubstr("a list of at least one message"));
  EXPECT_THAT(FailureOf(R"({"messages": []})"), HasSubstr("a list of at least one message"));
  EXPECT_THAT(FailureOf(R"({"messages": ["hi"]})"), HasSubstr("messages[0] must have \"role\""));
  EXPECT_THAT(
      FailureOf(R"({"messages": [{"role": "user", "content": "a"}, {"role": "user", "contents": "b"}]})"),
      HasSubstr("messages[1] must have \"content\" as a string; found keys \"contents\", \"role\"; did you "
                "mean \"content\" by \"contents\"?"));
  EXPECT_THAT(FailureOf(R"({"messages": [{"role": "human", "content": "a"}]})"),
              HasSubstr("the role \"human\"; roles are system, developer, user, assistant, tool"));
}

TEST(Record, RefusesWhatIsNoObject) {
  EXPECT_THAT(FailureOf(R"("text")"), HasSubstr("is a JSON string, not an object"));
  EXPECT_THAT(FailureOf("[1]"), HasSubstr("is a JSON array, not an object"));
  EXPECT_THAT(FailureOf("3"), HasSubstr("is a JSON number, not an object"));
}

TEST(Record, RefusesBrokenJson) {
  EXPECT_THAT(FailureOf(R"({"text": "a)"), HasSubstr("not valid JSON: column "));
  EXPECT_THAT(FailureOf("prompt,completion"), HasSubstr("not valid JSON: column "));
  EXPECT_THAT(FailureOf(R"({"text": "a"} {"text": "b"})"), HasSubstr("not valid JSON: column 15"));
  EXPECT_THAT(FailureOf(R"({"text": "a", "text": "b"})"), HasSubstr("twice"));
}

TEST(Record, RefusesBytesThatAreNoText) {
  using namespace std::string_view_literals;
  EXPECT_THAT(FailureOf("{\"text\": \"a\0b\"}"sv), HasSubstr("NUL byte at byte 12"));
  EXPECT_THAT(FailureOf("{\"text\": \"\xC3(\"}"), HasSubstr("not valid UTF-8"));
  EXPECT_THAT(FailureOf("{\"text\": \"\xED\xA0\x80\"}"), HasSubstr("not valid UTF-8"));  // U+D800 as bytes
  EXPECT_THAT(FailureOf(R"({"text": "\ud800"})"), HasSubstr("surrogate"));
  EXPECT_THAT(FailureOf(R"({"text": "\ud800\u0041"})"), HasSubstr("surrogate"));
  EXPECT_THAT(FailureOf(R"({"text": "\udc00"})"), HasSubstr("surrogate"));
}

TEST(Record, BoundsDepthAndSize) {
  const auto nested = [](size_t depth) {
    return R"({"text": "a", "more": )" + std::string(depth, '[') + std::string(depth, ']') + "}";
  };
  EXPECT_TRUE(ParseRecord(nested(20)).ok());
  EXPECT_THAT(FailureOf(nested(70)), HasSubstr("deeper than"));
  EXPECT_THAT(FailureOf(nested(1000000)), HasSubstr("deeper than"));

  const auto sized = [](size_t bytes) { return R"({"text": ")" + std::string(bytes - 12, 'a') + "\"}"; };
  EXPECT_TRUE(ParseRecord(sized(kMaxRowBytes)).ok());
  EXPECT_THAT(FailureOf(sized(kMaxRowBytes + 1)),
              HasSubstr("the line has 16777217 bytes, the limit is 16777216"));
}

TEST(Record, MessagesStayShortAndWhole) {
  std::string line = "{";
  for (int i = 0; i < 1000; ++i) {
    if (i > 0) line += ", ";
    line += "\"é" + std::to_string(i) + std::string(1000, 'x') + "\": 1";
  }
  EXPECT_LT(FailureOf(line + "}").size(), 1500u);
  EXPECT_LT(FailureOf(std::string(100000, 'x')).size(), 400u);
}

TEST(WithCompletion, ReplacesTheAnswerOnly) {
  const Record pair = ParseRecord(R"({"prompt": "p", "completion": "a"})").OrThrow();
  EXPECT_EQ(WithCompletion(pair, "b").OrThrow().completion, "b");
  EXPECT_EQ(WithCompletion(pair, "b").OrThrow().prompt, "p");
  const Record chat =
      ParseRecord(
          R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})")
          .OrThrow();
  EXPECT_EQ(WithCompletion(chat, "b").OrThrow().messages[1].content, "b");
  EXPECT_EQ(WithCompletion(chat, "b").OrThrow().messages[0].content, "q");
  EXPECT_FALSE(WithCompletion(ParseRecord(R"({"text": "t"})").OrThrow(), "b").ok());
  EXPECT_FALSE(
      WithCompletion(ParseRecord(R"({"messages": [{"role": "user", "content": "q"}]})").OrThrow(), "b").ok());
}

}  // namespace
}  // namespace rung::data
