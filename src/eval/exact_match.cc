#include <algorithm>
#include <atomic>
#include <chrono>

#include "eval/answer_text.h"
#include "eval/score.h"
#include "infer/generate.h"

namespace rung::eval {
namespace {

// Tokens beyond the longest expected answer: enough to see that a generation does not end where it should.
constexpr int64_t kTokensBeyond = 8;

struct Questions {
  std::vector<std::vector<int32_t>> prompts;
  int64_t longest_prompt = 0, longest_answer = 0;  // tokens
};

Questions Ask(const Subject& subject, std::span<const data::Record> records, Accuracy* accuracy) {
  const data::Encoder encoder(subject.text.vocabulary(), {});
  Questions questions;
  for (size_t i = 0; i < records.size(); ++i) {
    Result<data::PromptText> prompt = encoder.Prompt(records[i]);
    if (!prompt.ok() || prompt.value().ids.empty()) continue;
    const std::string expected = Trimmed(prompt.value().completion);
    accuracy->answers.push_back({static_cast<int64_t>(i), expected, "", false});
    const auto answer = static_cast<int64_t>(subject.text.tokenizer.Encode(prompt.value().completion).size());
    questions.longest_answer = std::max(questions.longest_answer, answer);
    questions.longest_prompt =
        std::max(questions.longest_prompt, static_cast<int64_t>(prompt.value().ids.size()));
    questions.prompts.push_back(std::move(prompt).value().ids);
  }
  return questions;
}

// The end of a prompt decides the answer: what does not fit goes from its left, BOS stays.
void CutLeft(std::vector<int32_t>* ids, int64_t limit, int32_t bos) {
  const auto size = static_cast<int64_t>(ids->size());
  if (size <= limit) return;
  const int64_t kept = ids->front() == bos ? 1 : 0;
  ids->erase(ids->begin() + kept, ids->begin() + kept + size - limit);
}

}  // namespace

Accuracy ScoreExactMatch(const Subject& subject, std::span<const data::Record> records,
                         const ExactMatchOptions& options, const OnProgress& on_progress) {
  const auto begin = std::chrono::steady_clock::now();
  Accuracy accuracy;
  Questions questions = Ask(subject, records, &accuracy);
  if (questions.prompts.empty()) return accuracy;

  const int64_t positions = subject.backbone.positions();
  infer::GenerateOptions generate;
  generate.max_tokens = std::min({options.max_new_tokens, questions.longest_answer + kTokensBeyond,
                                  std::max<int64_t>(1, positions / 2)});
  const int64_t capacity = std::min(positions, questions.longest_prompt + generate.max_tokens);
  for (std::vector<int32_t>& prompt : questions.prompts) {
    CutLeft(&prompt, capacity - generate.max_tokens, subject.text.tokenizer.bos());
  }
  const auto slots = std::min<int64_t>(options.slots, static_cast<int64_t>(questions.prompts.size()));
  infer::Session session(subject.compute.context, subject.compute.compute, subject.backbone, subject.adapter,
                         slots, capacity);
  std::atomic<bool> stop{false};
  const auto report = [&](size_t done) {
    if (on_progress && !on_progress(done)) stop = true;
  };
  const std::vector<infer::Generation> generations =
      infer::GenerateMany(session, subject.text.tokenizer, questions.prompts, generate, report, &stop);
  if (stop) throw Error(ExitCode::kInterrupted, "interrupted");
  for (size_t i = 0; i < generations.size(); ++i) {
    Answer& answer = accuracy.answers[i];
    answer.got = Trimmed(generations[i].text);
    answer.right = answer.got == answer.expected;
  }
  accuracy.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return accuracy;
}

}  // namespace rung::eval
