#include <algorithm>
#include <chrono>

#include "base/clock.h"
#include "eval/score.h"
#include "infer/answers.h"

namespace rung::eval {

Accuracy ScoreExactMatch(const Subject& subject, std::span<const data::Record> records,
                         const ExactMatchOptions& options, const OnProgress& on_progress) {
  const auto begin = std::chrono::steady_clock::now();
  Accuracy accuracy;
  const data::Encoder encoder(subject.text.vocabulary(), {});
  std::vector<infer::Question> questions;
  for (size_t i = 0; i < records.size(); ++i) {
    std::optional<infer::Question> question = infer::Ask(encoder, subject.text.tokenizer, records[i]);
    if (!question) continue;
    accuracy.answers.push_back({static_cast<int64_t>(i), question->expected, "", false});
    questions.push_back(std::move(*question));
  }
  if (questions.empty()) return accuracy;
  const infer::AnswerShape shape = infer::ShapeOf(
      questions, options.slots, std::min(options.max_new_tokens, infer::EnoughTokens(questions)),
      subject.backbone.positions());
  infer::Session session(subject.compute.context, subject.compute.compute, subject.backbone, subject.adapter,
                         shape.slots, shape.capacity);
  const std::optional<std::vector<std::string>> answers =
      infer::AnswerAll(session, subject.text.tokenizer, questions, shape, on_progress);
  if (!answers) throw Error(ExitCode::kInterrupted, "interrupted");
  for (size_t i = 0; i < answers->size(); ++i) {
    Answer& answer = accuracy.answers[i];
    answer.got = (*answers)[i];
    answer.right = answer.got == answer.expected;
  }
  accuracy.seconds = SecondsSince(begin);
  return accuracy;
}

}  // namespace rung::eval
