#include "data/encode.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

namespace rung::data {
namespace {

using testing::HasSubstr;

// A byte a token, but for three special tokens and two merges that would cross the border of a prompt and its
// completion if prompt and completion were encoded as one text.
constexpr std::array<std::string_view, 6> kTokens = {"<s>", "</s>", "<u>", "<a>", ":y", "\nx"};
constexpr int32_t kFirst = 256, kBos = kFirst, kEos = kFirst + 1;
constexpr size_t kSpecials = 4;  // of kTokens

std::vector<int32_t> EncodeBytes(std::string_view text, bool specials) {
  std::vector<int32_t> ids;
  while (!text.empty()) {
    size_t length = 1;
    auto id = static_cast<int32_t>(static_cast<unsigned char>(text[0]));
    for (size_t t = specials ? 0 : kSpecials; t < kTokens.size(); ++t) {
      if (!text.starts_with(kTokens[t])) continue;
      id = kFirst + static_cast<int32_t>(t);
      length = kTokens[t].size();
    }
    ids.push_back(id);
    text.remove_prefix(length);
  }
  return ids;
}

std::string Piece(int32_t id) {
  return id >= kFirst ? std::string(kTokens[static_cast<size_t>(id - kFirst)])
                      : std::string(1, static_cast<char>(id));
}

// "<s>|p|*c|*</s>": the tokens, learned ones with a star.
std::string Show(const Example& example) {
  std::string text;
  for (size_t i = 0; i < example.ids.size(); ++i) {
    text += std::string(i ? "|" : "") + (example.learn[i] ? "*" : "") + Piece(example.ids[i]);
  }
  return text;
}

std::string Show(const std::vector<int32_t>& ids) {
  return Show(Example{ids, std::vector<uint8_t>(ids.size()), 0});
}

struct TemplateStyle {
  bool writes_bos = false;
  bool writes_end = true;        // an end-of-turn behind each answer
  std::string before_answer{};   // written before the last answer, but not in the generation prompt
  bool rewrites_prompt = false;  // the prompt with its answer is no continuation of the generation prompt
  std::string opens{};           // written in the generation prompt, but not before an answer
  bool ends_line = false;        // what is learned of an answer has a line end behind its mark
  bool names_turns = false;      // the mark of an answer begins with its place, which only generation sees
};

Result<text::Rendered> Render(const TemplateStyle& style, const std::vector<text::Message>& messages,
                              const std::string& tools, bool generate) {
  text::Rendered out;
  const bool answered = messages.back().role == "assistant";
  if (style.writes_bos) out.text += "<s>";
  out.text += tools;
  for (size_t i = 0; i < messages.size(); ++i) {
    const std::string &role = messages[i].role, &content = messages[i].content;
    if (role == "tool") return Failure{"this template knows no tools"};
    if (role != "assistant") {
      out.text += "<u>" + content + (style.rewrites_prompt && answered ? "!" : "") + "\n";
      continue;
    }
    out.text += "<a>";
    if (i + 1 == messages.size()) out.text += style.before_answer;
    const size_t begin = out.text.size();
    out.text += content + (style.writes_end ? "</s>" : "");
    if (style.ends_line) out.text += "\n";
    // As the interpreter has it: a turn without a byte of the content has no span.
    if (!content.empty()) out.assistant.push_back({begin, out.text.size(), static_cast<int32_t>(i)});
    if (!style.ends_line) out.text += "\n";
  }
  if (generate) out.text += style.names_turns ? "<a>1" : "<a>" + style.opens;
  return out;
}

Vocabulary Plain(bool adds_bos) {
  Vocabulary vocabulary;
  vocabulary.encode = [](std::string_view text) { return EncodeBytes(text, false); };
  vocabulary.encode_rendered = [](std::string_view text, bool) { return EncodeBytes(text, true); };
  vocabulary.bos = kBos;
  vocabulary.eos = kEos;
  vocabulary.adds_bos = adds_bos;
  vocabulary.end_ids = {kEos};
  vocabulary.is_special = [](int32_t id) {
    return id >= kFirst && id < kFirst + static_cast<int32_t>(kSpecials);
  };
  vocabulary.special_in = [](std::string_view text) {
    for (size_t t = 0; t < kSpecials; ++t) {
      if (text.find(kTokens[t]) != text.npos) return std::string(kTokens[t]);
    }
    return std::string();
  };
  return vocabulary;
}

Vocabulary Chat(const TemplateStyle& style = {}, bool adds_bos = false) {
  Vocabulary vocabulary = Plain(adds_bos);
  vocabulary.render = [style](const std::vector<text::Message>& messages, const std::string& tools,
                              bool generate) { return Render(style, messages, tools, generate); };
  return vocabulary;
}

Record Pair(std::string prompt, std::string completion) {
  Record record;
  record.shape = Shape::kCompletion;
  record.prompt = std::move(prompt);
  record.completion = std::move(completion);
  return record;
}

Record Messages(std::vector<text::Message> messages) {
  Record record;
  record.shape = Shape::kMessages;
  record.messages = std::move(messages);
  return record;
}

Record Text(std::string text) {
  Record record;
  record.text = std::move(text);
  return record;
}

std::string Encoded(const Vocabulary& vocabulary, const Record& record, EncodeOptions options = {}) {
  Result<Example> example = Encoder(vocabulary, options).Encode(record);
  return example.ok() ? Show(example.value()) : example.failure().message;
}

std::string Cut(const Vocabulary& vocabulary, const Record& record, int64_t max_length) {
  bool truncated = false;
  EncodeOptions options;
  options.max_length = max_length;
  Result<Example> example = Encoder(vocabulary, options).Encode(record, &truncated);
  if (!example.ok()) return example.failure().message;
  return (truncated ? "cut " : "") + Show(example.value());
}

TEST(EncodePlain, LearnsCompletionAndEos) {
  EXPECT_EQ(Encoded(Plain(true), Pair("ab", "cd")), "<s>|a|b|*c|*d|*</s>");
  EXPECT_EQ(Encoded(Plain(false), Pair("ab", "cd")), "a|b|*c|*d|*</s>");
}

TEST(EncodePlain, DoesNotMergeAcrossTheBorder) {
  EXPECT_EQ(Show(EncodeBytes("x:y", false)), "x|:y");  // what must not happen below
  EXPECT_EQ(Encoded(Plain(true), Pair("x:", "y:y")), "<s>|x|:|*y|*:y|*</s>");
}

TEST(EncodePlain, ReadsNoSpecialTokensInRecords) {
  EXPECT_EQ(Encoded(Plain(true), Pair("<s>", "</s>")), "<s>|<|s|>|*<|*/|*s|*>|*</s>");
}

TEST(EncodePlain, HasNothingBeforeACompletionWithoutPrompt) {
  EXPECT_EQ(Encoded(Plain(true), Pair("", "cd")), "<s>|*c|*d|*</s>");
  EXPECT_EQ(Encoded(Plain(false), Pair("", "cd")), "c|*d|*</s>");
}

TEST(EncodePlain, GoesWithoutEosWhereThereIsNone) {
  Vocabulary vocabulary = Plain(true);
  vocabulary.eos = -1;
  EXPECT_EQ(Encoded(vocabulary, Pair("ab", "cd")), "<s>|a|b|*c|*d");
}

TEST(EncodePlain, LearnsTextButItsFirstId) {
  EXPECT_EQ(Encoded(Plain(true), Text("abc")), "<s>|*a|*b|*c|*</s>");
  EXPECT_EQ(Encoded(Plain(false), Text("abc")), "a|*b|*c|*</s>");
}

TEST(EncodePlain, RefusesMessages) {
  EXPECT_THAT(Encoded(Plain(true), Messages({{"user", "a"}, {"assistant", "b"}})),
              HasSubstr("no chat template"));
}

TEST(EncodeChat, LearnsTheAnswerAndItsEnd) {
  // The line end behind </s> teaches nothing and is left out.
  EXPECT_EQ(Encoded(Chat(), Pair("ab", "cd")), "<u>|a|b|\n|<a>|*c|*d|*</s>");
}

TEST(EncodeChat, LearnsEveryAnswer) {
  EXPECT_EQ(Encoded(Chat(), Messages({{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}})),
            "<u>|a|\n|<a>|*b|*</s>|\n|<u>|c|\n|<a>|*d|*</s>");
  EXPECT_EQ(Encoded(Chat(), Messages({{"user", "a"}, {"assistant", "b"}, {"user", "c"}})),
            "<u>|a|\n|<a>|*b|*</s>");
  EXPECT_EQ(Encoded(Chat(), Messages({{"assistant", "b"}})), "<a>|*b|*</s>");
}

TEST(EncodeChat, LearnsThePromptOnRequest) {
  EncodeOptions options;
  options.completion_only = false;
  EXPECT_EQ(Encoded(Chat(), Pair("ab", "cd"), options), "<u>|*a|*b|*\n|*<a>|*c|*d|*</s>");
  EXPECT_EQ(Encoded(Plain(true), Pair("ab", "cd"), options), "<s>|*a|*b|*c|*d|*</s>");
  EXPECT_EQ(Encoded(Chat(), Messages({{"user", "ab"}}), options), "<u>|*a|*b|*\n");
  // Nothing follows the end of the last answer; the user's words behind an answer are a prompt.
  EXPECT_EQ(Encoded(Chat(), Messages({{"assistant", "b"}, {"user", "c"}}), options),
            "<a>|*b|*</s>|*\n|*<u>|*c|*\n");
  Record context = Messages({{"user", "a"}, {"assistant", "b"}});
  context.learned = {1, 0};
  EXPECT_EQ(Encoded(Chat(), context, options), "<u>|*a|*\n|*<a>|*b|*</s>|*\n");
}

TEST(EncodeChat, HasOneBos) {
  const std::string with = "<s>|<u>|a|\n|<a>|*b|*</s>";
  for (const bool adds_bos : {false, true}) {
    TemplateStyle style;
    style.writes_bos = true;
    EXPECT_EQ(Encoded(Chat(style, adds_bos), Pair("a", "b")), with);
  }
  EXPECT_EQ(Encoded(Chat({}, true), Pair("a", "b")), with);
  EXPECT_EQ(Encoded(Chat({}, false), Pair("a", "b")), with.substr(4));
  // A conversation that is not answered takes another way through the code.
  EXPECT_EQ(Encoded(Chat({}, true), Messages({{"assistant", "b"}, {"user", "c"}})), "<s>|<a>|*b|*</s>");
}

TEST(EncodeChat, AddsAnEndWhereTheTemplateWritesNone) {
  TemplateStyle style;
  style.writes_end = false;
  EXPECT_EQ(Encoded(Chat(style), Pair("a", "b")), "<u>|a|\n|<a>|*b|*</s>");
}

TEST(EncodeChat, LearnsFromWhereTheGenerationPromptEnds) {
  TemplateStyle style;
  style.before_answer = "t:";
  EXPECT_EQ(Encoded(Chat(style), Pair("a", "b")), "<u>|a|\n|<a>|*t|*:|*b|*</s>");
}

TEST(EncodeChat, AddsAnEndToEveryAnswerAndToThoseThatAreContextToo) {
  TemplateStyle style;
  style.writes_end = false;
  Record record = Messages({{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}});
  EXPECT_EQ(Encoded(Chat(style), record), "<u>|a|\n|<a>|*b|*</s>|\n|<u>|c|\n|<a>|*d|*</s>");
  record.learned = {1, 0, 1, 1};
  EXPECT_EQ(Encoded(Chat(style), record), "<u>|a|\n|<a>|b|</s>|\n|<u>|c|\n|<a>|*d|*</s>");
  EXPECT_EQ(Show(Encoder(Chat(style), {}).Prompt(record).OrThrow().ids),
            "<u>|a|\n|<a>|b|</s>|\n|<u>|c|\n|<a>");
}

TEST(EncodeChat, LearnsTheMarkBehindAnAnswerThatEndsAGeneration) {
  TemplateStyle style;
  style.writes_end = false;
  Vocabulary vocabulary = Chat(style);
  vocabulary.end_ids = {kEos, '\n'};  // as GLM's next role
  EXPECT_EQ(
      Encoded(vocabulary, Messages({{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}})),
      "<u>|a|\n|<a>|*b|*\n|<u>|c|\n|<a>|*d|*\n");
}

TEST(EncodeChat, LeavesAnEarlierAnswerItsOwnMark) {
  Vocabulary vocabulary = Chat();
  vocabulary.eos = vocabulary.end_ids[0] = kFirst + 2;  // the template's </s> ends no generation
  EXPECT_EQ(
      Encoded(vocabulary, Messages({{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}})),
      "<u>|a|\n|<a>|*b|*</s>|\n|<u>|c|\n|<a>|*d|*</s>|*<u>");
}

TEST(EncodeChat, LeavesAnEarlierAnswerItsOwnMarkBeforeALineEnd) {
  TemplateStyle style;
  style.ends_line = true;
  Vocabulary vocabulary = Chat(style);
  vocabulary.eos = vocabulary.end_ids[0] = kFirst + 2;
  EXPECT_EQ(
      Encoded(vocabulary, Messages({{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}})),
      "<u>|a|\n|<a>|*b|*</s>|*\n|<u>|c|\n|<a>|*d|*</s>|*\n|*<u>");
}

TEST(EncodeChat, PutsTheAnswerBehindThePromptThatGenerationSees) {
  TemplateStyle style;
  style.rewrites_prompt = true;
  style.before_answer = "t:";
  EXPECT_EQ(Encoded(Chat(style), Pair("a", "b")), "<u>|a|\n|<a>|*t|*:|*b|*</s>");
  style.names_turns = true;  // the completed text has no such generation prompt
  EXPECT_THAT(Encoded(Chat(style), Pair("a", "b")), HasSubstr("in another way once it is there"));
}

TEST(EncodeChat, LearnsFromWhereTextAndGenerationPromptPart) {
  TemplateStyle style;
  style.opens = "<t>\n";  // an answer without reasoning has none of it
  EXPECT_EQ(Encoded(Chat(style), Pair("a", "b")), "<u>|a|\n|<a>|*b|*</s>");
  EXPECT_EQ(Encoded(Chat(style), Pair("a", "<te")), "<u>|a|\n|<a>|*<|*t|*e|*</s>");
  // White space alone is no difference: the prompt is generation's.
  style.before_answer = "<t>";
  EXPECT_EQ(Encoded(Chat(style), Pair("a", "b")), "<u>|a|\n|<a>|<|t|>|\n|*b|*</s>");
}

TEST(EncodeChat, TakesNoEarlierAnswerForAnEmptyLastOne) {
  const std::vector<text::Message> empty = {
      {"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", ""}};
  EXPECT_EQ(Encoded(Chat(), Messages(empty)), "the last answer is empty");
  EXPECT_EQ(Encoded(Chat(), Pair("a", "")), "the completion is empty");
  std::vector<text::Message> dropped = empty;
  dropped.back().extra = R"({"reasoning_content": "r"})";
  EXPECT_EQ(Encoded(Chat(), Messages(dropped)), "the chat template writes nothing of the last answer");
  // One that is not learned is no reason.
  Record context = Messages(empty);
  context.learned = {1, 1, 1, 0};
  EXPECT_EQ(Encoded(Chat(), context), "<u>|a|\n|<a>|*b|*</s>");
}

TEST(EncodeChat, KnowsWhichAnswersAreLearnedBesideAnEmptyOne) {
  Record record = Messages({{"user", "a"}, {"assistant", ""}, {"user", "c"}, {"assistant", "d"}});
  const std::string last = "<u>|a|\n|<a>|</s>|\n|<u>|c|\n|<a>|*d|*</s>";
  EXPECT_EQ(Encoded(Chat(), record), last);
  record.learned = {1, 0, 1, 1};
  EXPECT_EQ(Encoded(Chat(), record), last);
  EncodeOptions options;
  options.mask_history = true;
  record.learned.clear();
  EXPECT_EQ(Encoded(Chat(), record, options), last);
}

TEST(EncodeChat, SaysOfWhatTheTemplateLeavesSomethingOut) {
  Vocabulary vocabulary = Chat();
  vocabulary.render = [](const std::vector<text::Message>& messages, const std::string&, bool generate) {
    std::vector<text::Message> cut = messages;
    for (text::Message& message : cut)
      message.content = message.content.substr(message.content.rfind('>') + 1);
    return Render({}, cut, "", generate);
  };
  const Encoder encoder(vocabulary, {});
  Record record = Messages({{"user", "a"}, {"assistant", "<r>b"}, {"user", "<r>c"}, {"assistant", "d \n"}});
  EXPECT_EQ(encoder.Unwritten(record), (std::vector<std::string>{"a part of message 2"}));
  record.learned = {1, 0, 1, 1};
  EXPECT_TRUE(encoder.Unwritten(record).empty());
  EXPECT_EQ(encoder.Unwritten(Pair("a", "<r>b")), (std::vector<std::string>{"a part of message 2"}));
}

TEST(EncodeChat, SaysWhichCallsAndToolsTheTemplateLeavesOut) {
  const std::string calls =
      R"({"tool_calls": [{"function": {"name": "add", "arguments": {}}}, {"name": "sub", "arguments": {}}]})";
  Record record = Messages({{"user", "a"}, {"assistant", "b", calls}, {"user", "add"}, {"assistant", "d"}});
  record.tools = R"([{"name": "add"}])";
  const Encoder writes_tools(Chat(), {});
  const std::vector<std::string> both = {R"(the call of "add" in message 2)",
                                         R"(the call of "sub" in message 2)"};
  // The name stands in the list of tools and in a question, and the call is still not there.
  EXPECT_EQ(writes_tools.Unwritten(record), both);
  Vocabulary vocabulary = Chat();
  vocabulary.render = [](const std::vector<text::Message>& messages, const std::string&, bool generate) {
    std::vector<text::Message> whole = messages;
    for (text::Message& message : whole) message.content += message.extra;
    return Render({}, whole, "", generate);
  };
  EXPECT_EQ(Encoder(vocabulary, {}).Unwritten(record), std::vector<std::string>{"the tools"});
  record.tools.clear();
  EXPECT_TRUE(Encoder(vocabulary, {}).Unwritten(record).empty());
  EXPECT_EQ(Encoder(Chat(), {}).Unwritten(record), both);
}

TEST(EncodePlain, RefusesToolsThatNothingWrites) {
  Record record = Pair("a", "b");
  record.tools = "[T]";
  EXPECT_THAT(Encoded(Plain(true), record), HasSubstr("the record has tools"));
  EXPECT_EQ(Encoded(Chat(), record), "[|T|]|<u>|a|\n|<a>|*b|*</s>");
}

TEST(EncodePlain, ReadsSpecialTokensInTextsOnRequest) {
  EncodeOptions options;
  options.special_tokens = true;
  EXPECT_EQ(Encoded(Plain(true), Text("<u>a<a>b"), options), "<s>|*<u>|*a|*<a>|*b|*</s>");
  EXPECT_EQ(Encoded(Plain(true), Text("<s><u>a</s>"), options), "<s>|*<u>|*a|*</s>");
  EXPECT_EQ(Encoded(Plain(true), Pair("<u>", "b"), options), "<s>|<|u|>|*b|*</s>");
}

TEST(EncodePlain, SaysWhichSpecialTokenStandsInPlainText) {
  EncodeOptions options;
  const Encoder encoder(Plain(true), options);
  EXPECT_EQ(encoder.SpecialText(Text("<u>a")), "<u>");
  EXPECT_EQ(encoder.SpecialText(Pair("a", "b</s>")), "</s>");
  EXPECT_EQ(encoder.SpecialText(Text("<p>")), "");
  EXPECT_EQ(encoder.SpecialText(Messages({{"user", "<u>"}})), "");
  options.special_tokens = true;
  EXPECT_EQ(Encoder(Plain(true), options).SpecialText(Text("<u>a")), "");
}

TEST(EncodeChat, TellsWhichPieceBeginsTheText) {
  Vocabulary vocabulary = Chat();
  vocabulary.encode_rendered = [](std::string_view text, bool first) {
    std::vector<int32_t> ids = EncodeBytes(text, true);
    if (first) ids.insert(ids.begin(), ' ');
    return ids;
  };
  EXPECT_EQ(
      Encoded(vocabulary, Messages({{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}})),
      " |<u>|a|\n|<a>|*b|*</s>|\n|<u>|c|\n|<a>|*d|*</s>");
}

// The law of the room: what generation starts from is what training saw.
TEST(Prompt, IsAPrefixOfTheTrainingIds) {
  TemplateStyle bos, thinks, rewrites;
  bos.writes_bos = true;
  thinks.before_answer = "\nx";
  rewrites.rewrites_prompt = true;
  const Record records[] = {
      Pair("x:", "y"), Pair("", "y"), Pair("a\n", "x"),
      Messages({{"system", "s"}, {"user", "x:"}, {"assistant", "y"}, {"user", "\n"}, {"assistant", "x:y"}})};
  for (const Vocabulary& vocabulary :
       {Plain(true), Plain(false), Chat(), Chat(bos, true), Chat(thinks), Chat(rewrites, true)}) {
    const Encoder encoder(vocabulary, {});
    for (const Record& record : records) {
      if (!vocabulary.render && record.shape == Shape::kMessages) continue;
      const PromptText prompt = encoder.Prompt(record).OrThrow();
      const Example example = encoder.Encode(record).OrThrow();
      ASSERT_LT(prompt.ids.size(), example.ids.size());
      EXPECT_TRUE(std::equal(prompt.ids.begin(), prompt.ids.end(), example.ids.begin()))
          << Show(prompt.ids) << " and " << Show(example);
      const auto learned =
          example.learn.begin() + static_cast<int64_t>(std::max<size_t>(1, prompt.ids.size()));
      EXPECT_EQ(std::count(learned, example.learn.end(), 0), 0) << Show(example);
      EXPECT_EQ(prompt.completion, record.shape == Shape::kMessages ? "x:y" : record.completion);
    }
  }
}

TEST(Prompt, FailsWithoutACompletion) {
  const Encoder encoder(Chat(), {});
  EXPECT_FALSE(encoder.Prompt(Text("a")).ok());
  EXPECT_FALSE(encoder.Prompt(Messages({{"user", "a"}})).ok());
  EXPECT_FALSE(encoder.Prompt(Messages({{"assistant", "a"}})).ok());
  EXPECT_FALSE(Encoder(Plain(true), {}).Prompt(Messages({{"user", "a"}, {"assistant", "b"}})).ok());
}

TEST(Prompt, OfPlainTextAndOfMessages) {
  EXPECT_EQ(Show(Encoder(Plain(true), {}).PlainPrompt("ab")), "<s>|a|b");
  const text::Message messages[] = {{"user", "a"}, {"assistant", "b"}, {"user", "c"}};
  EXPECT_EQ(Show(Encoder(Chat(), {}).ChatPrompt(messages).OrThrow()), "<u>|a|\n|<a>|b|</s>|\n|<u>|c|\n|<a>");
}

TEST(Truncate, CutsThePromptFromTheLeft) {
  const Record record = Pair("abcd", "ef");  // <s> a b c d e f </s>
  EXPECT_EQ(Cut(Plain(true), record, 8), "<s>|a|b|c|d|*e|*f|*</s>");
  EXPECT_EQ(Cut(Plain(true), record, 7), "cut <s>|b|c|d|*e|*f|*</s>");
  EXPECT_EQ(Cut(Plain(true), record, 5), "cut <s>|d|*e|*f|*</s>");
  EXPECT_EQ(Cut(Plain(true), record, 4), "cut <s>|*e|*f|*</s>");
  EXPECT_EQ(Cut(Plain(false), record, 7), "a|b|c|d|*e|*f|*</s>");
  EXPECT_EQ(Cut(Plain(false), record, 6), "cut b|c|d|*e|*f|*</s>");
  EXPECT_EQ(Cut(Plain(false), record, 4), "cut d|*e|*f|*</s>");
}

TEST(Truncate, CutsTheEndOfACompletionThatDoesNotFit) {
  EXPECT_EQ(Cut(Plain(true), Pair("abcd", "ef"), 3), "cut <s>|*e|*f");
  EXPECT_EQ(Cut(Plain(true), Pair("abcd", "ef"), 2), "cut <s>|*e");
  EXPECT_EQ(Cut(Plain(false), Pair("abcd", "ef"), 3), "cut d|*e|*f");
  EXPECT_EQ(Cut(Plain(false), Pair("abcd", "ef"), 2), "cut d|*e");
  EXPECT_EQ(Cut(Plain(true), Pair("", "efgh"), 3), "cut <s>|*e|*f");
  EXPECT_EQ(Cut(Plain(false), Pair("", "efgh"), 3), "cut e|*f|*g");
}

TEST(Truncate, CutsTheEndOfAText) {
  EXPECT_EQ(Cut(Plain(true), Text("abcd"), 6), "<s>|*a|*b|*c|*d|*</s>");
  EXPECT_EQ(Cut(Plain(true), Text("abcd"), 4), "cut <s>|*a|*b|*c");
  EXPECT_EQ(Cut(Plain(false), Text("abcd"), 3), "cut a|*b|*c");
}

TEST(Truncate, KeepsTheLastAnswerOfAConversation) {
  const Record record = Messages({{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}});
  // <u> a \n <a> b </s> \n <u> c \n <a> d </s>
  EXPECT_EQ(Cut(Chat(), record, 12), "cut a|\n|<a>|*b|*</s>|\n|<u>|c|\n|<a>|*d|*</s>");
  EXPECT_EQ(Cut(Chat(), record, 9), "cut b|*</s>|\n|<u>|c|\n|<a>|*d|*</s>");
  EXPECT_EQ(Cut(Chat(), record, 8), "cut </s>|\n|<u>|c|\n|<a>|*d|*</s>");
  EXPECT_EQ(Cut(Chat(), record, 3), "cut <a>|*d|*</s>");
}

// What is learned follows what it followed in the record: the first id that a cut leaves does not.
TEST(Truncate, LearnsNothingBehindWhatWasCut) {
  const Record record = Messages({{"user", "a"}, {"assistant", "bc"}, {"user", "d"}, {"assistant", "e"}});
  TemplateStyle writes_bos;
  writes_bos.writes_bos = true;
  // <s> <u> a \n <a> b c </s> \n <u> d \n <a> e </s>
  for (const Vocabulary& vocabulary : {Chat({}, true), Chat(writes_bos)}) {
    EXPECT_EQ(Cut(vocabulary, record, 10), "cut <s>|c|*</s>|\n|<u>|d|\n|<a>|*e|*</s>");
  }
  EncodeOptions options;
  options.completion_only = false;
  options.max_length = 6;
  EXPECT_EQ(Encoded(Plain(true), Pair("abcd", "ef"), options), "<s>|c|*d|*e|*f|*</s>");
}

// SmolLM2 names the mark of a turn as its BOS: a turn cut in the middle must not begin with it.
TEST(Truncate, TakesTheMarkOfATurnForNoBos) {
  Vocabulary vocabulary = Chat();
  vocabulary.bos = kFirst + 2;
  const Record record = Messages({{"user", "ab"}, {"assistant", "c"}, {"user", "d"}, {"assistant", "e"}});
  // <u> a b \n <a> c </s> \n <u> d \n <a> e </s>
  EXPECT_EQ(Cut(vocabulary, record, 12), "cut b|\n|<a>|*c|*</s>|\n|<u>|d|\n|<a>|*e|*</s>");
  EncodeOptions options;
  options.max_length = 5;
  options.truncation = Truncation::kSplit;
  options.completion_only = false;
  bool truncated = false;
  const std::vector<Example> parts = Encoder(vocabulary, options).EncodeParts(record, &truncated).OrThrow();
  std::vector<int32_t> joined = parts[0].ids;  // each of the others begins with the last id of the one before
  for (size_t i = 1; i < parts.size(); ++i) {
    EXPECT_EQ(parts[i].ids[0], joined.back());
    joined.insert(joined.end(), parts[i].ids.begin() + 1, parts[i].ids.end());
  }
  options.max_length = 100;
  EXPECT_EQ(joined, Encoder(vocabulary, options).Encode(record).OrThrow().ids);
}

TEST(EncodeAll, CountsAndListsWhatIsLeftOut) {
  std::vector<Record> records = {Pair("a", "b"), Pair("abcdefgh", "b"),
                                 Pair("a", ""),  Messages({{"user", "a"}}),
                                 Text(""),       Messages({{"tool", "a"}, {"assistant", "b"}})};
  for (size_t i = 0; i < records.size(); ++i) records[i].row = static_cast<int64_t>(i) + 10;
  EncodeOptions options;
  options.max_length = 8;
  EncodeReport report;
  const std::vector<Example> examples =
      Encoder(Chat(), options).EncodeAll(records, "x.jsonl", &report).OrThrow();
  ASSERT_EQ(examples.size(), 2u);
  EXPECT_EQ(examples[0].record, 0);
  EXPECT_EQ(examples[1].record, 1);
  EXPECT_EQ(report.truncated, 1);
  EXPECT_EQ(report.targets, 4);   // b and </s>, twice
  EXPECT_EQ(report.rows, 5 + 7);  // <u> a \n <a> b </s>, and 8 ids
  ASSERT_EQ(report.dropped.size(), 4u);
  EXPECT_EQ(report.dropped[0].row, 12);
  EXPECT_EQ(report.dropped[0].reason, "the completion is empty");
  EXPECT_THAT(report.dropped[1].reason, HasSubstr("no message of the assistant's"));
  EXPECT_EQ(report.dropped[2].reason, "the text is empty");
  EXPECT_EQ(report.dropped[3].reason, "this template knows no tools");
  EXPECT_EQ(report.dropped[3].row, 15);
}

TEST(EncodeAll, CountsRecordsWithTheTextOfASpecialToken) {
  EncodeReport report;
  Encoder(Plain(true), {})
      .EncodeAll(std::vector<Record>{Text("a"), Text("<a>b"), Pair("<u>", "c"), Pair("<u>", "")}, "x",
                 &report)
      .OrThrow();
  EXPECT_EQ(report.dropped_count, 1);
  EXPECT_EQ(report.special_texts, 3);  // the dropped one's too
  EXPECT_EQ(report.special, "<a>");
}

TEST(EncodeAll, StopsWhenItIsToldTo) {
  const std::vector<Record> records(5, Pair("a", "b"));
  std::vector<size_t> seen;
  const auto until = [&](size_t last) {
    seen.clear();
    return Encoder(Plain(true), {}).EncodeAll(records, "x.jsonl", nullptr, [&](size_t done) {
      seen.push_back(done);
      return done < last;
    });
  };
  EXPECT_EQ(until(5).OrThrow().size(), 5u);
  EXPECT_EQ(seen, (std::vector<size_t>{1, 2, 3, 4}));
  EXPECT_EQ(until(2).failure().code, ExitCode::kInterrupted);
  EXPECT_EQ(seen, (std::vector<size_t>{1, 2}));
}

TEST(EncodeAll, FailsWithoutATarget) {
  std::vector<Record> records = {Pair("a", ""), Pair("b", "")};
  records[0].row = 1;
  EncodeReport report;
  Result<std::vector<Example>> examples = Encoder(Plain(true), {}).EncodeAll(records, "x.jsonl", &report);
  ASSERT_FALSE(examples.ok());
  EXPECT_EQ(examples.failure().message,
            "x.jsonl: no record has a target token: row 1: the completion is empty");
  EXPECT_EQ(report.dropped.size(), 2u);
  EXPECT_FALSE(Encoder(Plain(true), {}).EncodeAll({}, "x.jsonl", nullptr).ok());
}

}  // namespace
}  // namespace rung::data
