#include "infer/answers.h"

#include <algorithm>

#include "infer/generate.h"

namespace rung::infer {
namespace {

// Tokens beyond the longest expected answer: enough to see that a generation does not end where it should.
constexpr int64_t kTokensBeyond = 8;

// The end of a prompt decides the answer: what does not fit goes from its left, BOS stays.
void CutLeft(std::vector<int32_t>* ids, int64_t limit, int32_t bos) {
  const auto size = static_cast<int64_t>(ids->size());
  if (size <= limit) return;
  const int64_t kept = ids->front() == bos ? 1 : 0;
  ids->erase(ids->begin() + kept, ids->begin() + kept + size - limit);
}

}  // namespace

std::string Trimmed(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\f\v";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == text.npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kSpace) - begin + 1));
}

std::optional<Question> Ask(const data::Encoder& encoder, const text::Tokenizer& tokenizer,
                            const data::Record& record) {
  Result<data::PromptText> prompt = encoder.Prompt(record);
  if (!prompt.ok() || prompt.value().ids.empty()) return std::nullopt;
  Question question;
  question.asked = data::AskedIn(record);
  question.expected = Trimmed(prompt.value().completion);
  question.expected_tokens = static_cast<int64_t>(tokenizer.Encode(prompt.value().completion).size());
  question.prompt = std::move(prompt).value().ids;
  return question;
}

AnswerShape ShapeOf(std::span<const Question> questions, int64_t slots, int64_t max_tokens,
                    int64_t positions) {
  RUNG_CHECK(!questions.empty() && slots > 0 && max_tokens > 0, "answers: nothing to answer");
  size_t longest = 0;
  for (const Question& question : questions) longest = std::max(longest, question.prompt.size());
  AnswerShape shape;
  shape.slots = std::min(slots, static_cast<int64_t>(questions.size()));
  shape.max_tokens = std::min(max_tokens, std::max<int64_t>(1, positions / 2));
  shape.capacity = std::min(positions, static_cast<int64_t>(longest) + shape.max_tokens);
  return shape;
}

int64_t EnoughTokens(std::span<const Question> questions) {
  int64_t longest = 0;
  for (const Question& question : questions) longest = std::max(longest, question.expected_tokens);
  return longest + kTokensBeyond;
}

std::optional<std::vector<std::string>> AnswerAll(Session& session, const text::Tokenizer& tokenizer,
                                                  std::span<const Question> questions,
                                                  const AnswerShape& shape,
                                                  const std::function<bool(size_t done)>& go_on) {
  std::vector<std::vector<int32_t>> prompts;
  for (const Question& question : questions) {
    prompts.push_back(question.prompt);
    CutLeft(&prompts.back(), shape.capacity - shape.max_tokens, tokenizer.bos());
  }
  GenerateOptions options;
  options.max_tokens = shape.max_tokens;
  std::atomic<bool> stop{false};
  const auto report = [&](size_t done) {
    if (go_on && !go_on(done)) stop = true;
  };
  const std::vector<Generation> generations =
      GenerateMany(session, tokenizer, prompts, options, report, &stop);
  if (stop) return std::nullopt;
  std::vector<std::string> answers;
  for (const Generation& generation : generations) answers.push_back(Trimmed(generation.text));
  return answers;
}

}  // namespace rung::infer
