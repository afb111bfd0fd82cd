// What is learned, over every committed template and many conversations: what the assistant says in them,
// each turn with its end, and nothing else.
#include <gtest/gtest.h>

#include <random>

#include "data/encode.h"
#include "text/chat_template_fixture.h"
#include "text/chat_template_rules.h"
#include "text/tokenizer.h"

namespace rung::data {
namespace {

// Texts of consecutive learned ids.
std::vector<std::string> LearnedTexts(const text::Tokenizer& tokenizer, const Example& example) {
  std::vector<std::string> texts;
  std::vector<int32_t> ids;
  for (size_t i = 0; i <= example.ids.size(); ++i) {
    if (i < example.ids.size() && example.learn[i]) {
      ids.push_back(example.ids[i]);
    } else if (!ids.empty()) {
      texts.push_back(tokenizer.Decode(ids, false));
      ids.clear();
    }
  }
  return texts;
}

struct Conversation {
  Record record;
  std::vector<std::string> turns;  // of the assistant's messages with a byte in the text: with their ends
  bool ends_empty = false;
};

// An answer with its mark, and the end of the tokenizer's where that is none.
std::string WithEnd(const std::string& said) { return said.find("</s>") == said.npos ? said + "</s>" : said; }

Conversation Make(const text::Rule& rule, std::mt19937& random) {
  Conversation made;
  made.record.shape = Shape::kMessages;
  std::vector<text::Message>& messages = made.record.messages;
  if (rule.system && random() % 2) messages.push_back({"system", text::RandomContent(random)});
  const size_t pairs = 1 + random() % 4;
  for (size_t i = 0; i < pairs; ++i) {
    const bool last = i + 1 == pairs;
    messages.push_back({"user", text::RandomContent(random)});
    messages.push_back({"assistant", text::RandomContent(random)});
    made.record.learned.resize(messages.size(), 1);
    const bool learned = random() % 4 != 0;
    made.record.learned.back() = learned;
    const std::string turn = rule.Turn(messages.back().content, last);
    if (last && learned && turn.empty()) made.ends_empty = true;
    if (turn.empty() || !learned) continue;
    made.turns.push_back(WithEnd(turn));
  }
  return made;
}

class LearnedOfTemplates : public testing::Test {
 protected:
  // Of a conversation whose last answer is learned: it begins behind the generation prompt.
  void ExpectLast(const Encoder& encoder, const Conversation& made, const Example& example,
                  const std::string& got, const std::string& expected) {
    ASSERT_EQ(got, expected);
    const PromptText prompt = encoder.Prompt(made.record).OrThrow();
    const std::string prompted = tokenizer_.Decode(prompt.ids, false);
    const std::string whole = tokenizer_.Decode(example.ids, false);
    if (whole.starts_with(prompted)) {
      EXPECT_EQ(prompted + got, whole);
      EXPECT_TRUE(std::equal(prompt.ids.begin(), prompt.ids.end(), example.ids.begin()));
    } else {
      // Learned from where the two part.
      const size_t begin = whole.size() - got.size();
      EXPECT_EQ(whole.substr(0, begin), prompted.substr(0, begin));
    }
  }

  const text::Tokenizer tokenizer_ = text::Tokenizer::FromFolder("tests/data/data/tokenizer").OrThrow();
};

TEST_F(LearnedOfTemplates, IsWhatTheAssistantSaysAndItsEnd) {
  std::mt19937 random(11);
  EncodeOptions options;
  options.max_length = 100000;
  for (const text::Rule& rule : text::kRules) {
    const text::ChatTemplate chat = text::LoadTemplate(rule.name);
    const Encoder encoder(VocabularyOf(tokenizer_, &chat, 0), options);
    int checked = 0;
    for (int round = 0; round < 40; ++round) {
      const Conversation made = Make(rule, random);
      const Result<Example> encoded = encoder.Encode(made.record);
      if (made.ends_empty || made.turns.empty()) {
        EXPECT_FALSE(encoded.ok()) << rule.name;
        continue;
      }
      ASSERT_TRUE(encoded.ok()) << rule.name << ": " << encoded.failure().message;
      const std::vector<std::string> got = LearnedTexts(tokenizer_, encoded.value());
      ASSERT_EQ(got.size(), made.turns.size()) << rule.name;
      const bool answered = made.record.learned.back();
      for (size_t i = 0; i + (answered ? 1 : 0) < got.size(); ++i) {
        ASSERT_EQ(got[i], made.turns[i]) << rule.name;
      }
      if (answered) ExpectLast(encoder, made, encoded.value(), got.back(), made.turns.back());
      if (HasFatalFailure() || HasNonfatalFailure()) FAIL() << rule.name;
      ++checked;
    }
    EXPECT_GE(checked, 15) << rule.name;
  }
}

// The learned texts of a conversation, less the end of each answer; of the last one what stands in front of
// its content as well.
struct Said {
  std::vector<std::string> answers;
  std::string before_last;
};

Said SaidIn(const Encoder& encoder, const text::Tokenizer& tokenizer, const text::Rule& rule,
            const std::vector<text::Message>& messages) {
  Record record;
  record.shape = Shape::kMessages;
  record.messages = messages;
  Said said;
  const Result<Example> encoded = encoder.Encode(record);
  if (!encoded.ok()) return {{encoded.failure().message}, ""};
  const std::vector<std::string> texts = LearnedTexts(tokenizer, encoded.value());
  for (size_t i = 0; i < texts.size(); ++i) {
    const bool last = i + 1 == texts.size();
    const std::string end = WithEnd(last && rule.last_marker ? rule.last_marker : rule.marker);
    const size_t size = texts[i].size() - std::min(texts[i].size(), end.size());
    said.answers.push_back(texts[i].substr(size) == end ? texts[i].substr(0, size) : "no end: " + texts[i]);
    const std::string lead = rule.lead("", false);
    if (!last && said.answers.back().starts_with(lead)) said.answers.back().erase(0, lead.size());
  }
  std::string& answer = said.answers.back();
  const size_t content = messages.back().content.size();
  if (answer.size() < content) return said;
  said.before_last = answer.substr(0, answer.size() - content);
  answer.erase(0, answer.size() - content);
  return said;
}

// An opening bracket that nothing closes is no mark of the template's.
TEST_F(LearnedOfTemplates, BeginsBehindTheGenerationPromptWhateverIsAsked) {
  for (const text::Rule& rule : text::kRules) {
    const text::ChatTemplate chat = text::LoadTemplate(rule.name);
    const Encoder encoder(VocabularyOf(tokenizer_, &chat, 0), {});
    const auto said = [&](const std::string& question, const std::string& earlier) {
      std::vector<text::Message> messages = {{"user", question}, {"assistant", "an index"}};
      if (!earlier.empty()) {
        messages.insert(messages.begin(), {{"user", question}, {"assistant", earlier}});
      }
      return SaidIn(encoder, tokenizer_, rule, messages);
    };
    for (const std::string earlier : {"", "plain", "a[0 :[", "I <3", "if a < b"}) {
      std::vector<std::string> answers = {"an index"};
      if (!earlier.empty()) answers.insert(answers.begin(), earlier);
      const Said plain = said("what?", earlier);
      ASSERT_EQ(plain.answers, answers) << rule.name;
      for (const char* question :
           {"what does a[i mean?", "a[", "I <3", "is a < b", "a[0 :[", "<", "a<b[c", "[x"}) {
        const Said open = said(question, earlier);
        EXPECT_EQ(open.answers, answers) << rule.name << ": " << question << " after " << earlier;
        EXPECT_EQ(open.before_last, plain.before_last) << rule.name << ": " << question;
      }
    }
  }
}

// What stands between two answers is the header of the second, not the end of the first.
TEST_F(LearnedOfTemplates, AreTwoAnswersInARowEachWithItsOwnEnd) {
  int checked = 0;
  for (const text::Rule& rule : text::kRules) {
    const text::ChatTemplate chat = text::LoadTemplate(rule.name);
    if (!chat.Render({{"user", "q"}, {"assistant", "one"}, {"assistant", "two"}}, false, "<s>", "</s>").ok())
      continue;
    const Encoder encoder(VocabularyOf(tokenizer_, &chat, 0), {});
    const std::vector<text::Message> twice = {
        {"user", "q"}, {"assistant", "one"}, {"assistant", "two"}, {"user", "r"}, {"assistant", "three"}};
    const std::vector<text::Message> last(twice.begin(), twice.begin() + 3);
    const Said said = SaidIn(encoder, tokenizer_, rule, last);
    if (said.before_last.starts_with("one")) {  // the template writes nothing between, and both are learned
      EXPECT_EQ(said.before_last, WithEnd(std::string("one") + rule.marker) + " ") << rule.name;
      EXPECT_EQ(said.answers, std::vector<std::string>{"two"}) << rule.name;
      EXPECT_EQ(SaidIn(encoder, tokenizer_, rule, twice).answers,
                (std::vector<std::string>{said.before_last + "two", "three"}))
          << rule.name;
    } else {
      EXPECT_EQ(said.answers, (std::vector<std::string>{"one", "two"})) << rule.name;
      EXPECT_EQ(SaidIn(encoder, tokenizer_, rule, twice).answers,
                (std::vector<std::string>{"one", "two", "three"}))
          << rule.name;
    }
    ++checked;
  }
  EXPECT_GE(checked, 15);
}

// The space that a call begins with is generated, in the last turn and in those before it.
TEST_F(LearnedOfTemplates, AreCallsAlikeInEveryTurn) {
  const text::ChatTemplate chat = text::LoadTemplate("harmony");
  const Encoder encoder(VocabularyOf(tokenizer_, &chat, 0), {});
  const text::Message user = {"user", "q"};
  const text::Message call = {"assistant", "",
                              R"({"tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}]})"};
  Record record;
  record.shape = Shape::kMessages;
  record.messages = {user, call, {"tool", "2"}, {"assistant", "x"}, user, call};
  const std::vector<std::string> texts = LearnedTexts(tokenizer_, encoder.Encode(record).OrThrow());
  ASSERT_EQ(texts.size(), 3u);
  EXPECT_TRUE(texts[0].starts_with(" to=functions.add")) << texts[0];
  EXPECT_TRUE(texts[2].starts_with(texts[0].substr(0, texts[0].find("<|call|>")))) << texts[2];
}

}  // namespace
}  // namespace rung::data
