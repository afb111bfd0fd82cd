// Greedy answers to the prompts of records, many at once.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "data/encode.h"
#include "infer/session.h"
#include "text/tokenizer.h"

namespace rung::infer {

// Without the ASCII whitespace at both ends.
std::string Trimmed(std::string_view text);

// What a record asks and expects.
struct Question {
  std::vector<int32_t> prompt;  // ids that generation starts from
  std::string asked;            // for people: the prompt, or of a chat the message before the answer
  std::string expected;         // trimmed
  int64_t expected_tokens = 0;  // of the answer as it is in the record
};
// Nothing where a record expects no answer.
std::optional<Question> Ask(const data::Encoder& encoder, const text::Tokenizer& tokenizer,
                            const data::Record& record);

// Of a session that answers questions together.
struct AnswerShape {
  int64_t slots = 1, capacity = 1, max_tokens = 1;
};
// Answers have up to max_tokens tokens, and half of the positions at most: prompts are cut from the left
// where they and an answer have no room. At least one question.
AnswerShape ShapeOf(std::span<const Question> questions, int64_t slots, int64_t max_tokens,
                    int64_t positions);
// Tokens that are enough to see whether an answer is the expected one: the longest of those and a few more.
int64_t EnoughTokens(std::span<const Question> questions);

// Greedy answers in the questions' order, trimmed. The session has this shape. Nothing when `go_on`, called
// now and then with the number of answers done, returned false.
std::optional<std::vector<std::string>> AnswerAll(Session& session, const text::Tokenizer& tokenizer,
                                                  std::span<const Question> questions,
                                                  const AnswerShape& shape,
                                                  const std::function<bool(size_t done)>& go_on);

}  // namespace rung::infer
