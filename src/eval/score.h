// How well a model does on held-out records: loss, exact answers, or the choice it finds most probable.
#pragma once

#include <atomic>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/encode.h"
#include "data/record.h"
#include "model/model.h"
#include "train/options.h"
#include "train/run.h"

namespace rung::eval {

// What is evaluated. adapter: nullptr for the frozen model alone. All of it outlives the calls.
struct Subject {
  const model::Backbone& backbone;
  const model::Adapter* adapter;
  const model::ModelText& text;
  train::ComputeOptions compute;
};

// Called now and then with the number of records done. Returns false to stop: Error(kInterrupted) is then
// thrown.
using OnProgress = std::function<bool(size_t done)>;

struct LossScore {
  double loss = 0.0;            // nats per target token
  double token_accuracy = 0.0;  // share of target tokens that are the most probable one
  int64_t records = 0, targets = 0, rows = 0;
  double seconds = 0.0;
  double tokens_per_second() const { return seconds > 0 ? static_cast<double>(rows) / seconds : 0.0; }
};
// Examples as Encoder::EncodeAll gives them; none has more than tokens + 1 ids.
LossScore ScoreLoss(const Subject& subject, std::vector<data::Example> examples, int64_t tokens,
                    const OnProgress& on_progress);

// One record's expected answer and what the model said.
struct Answer {
  int64_t record = 0;  // index
  std::string expected, got;
  bool right = false;
};

struct Accuracy {
  std::vector<Answer> answers;  // of the records that have an expected answer, in order
  double seconds = 0.0;
  int64_t right() const;
  double share() const;  // 0 when there are none
};

struct ExactMatchOptions {
  int64_t slots = 16;            // generations at once
  int64_t max_new_tokens = 256;  // of one answer; less when every expected answer is shorter
};
// Greedy generations from each record's prompt, right when they equal the completion, whitespace at both ends
// aside. Prompts are cut from the left where they and the answer would not fit the model's positions.
Accuracy ScoreExactMatch(const Subject& subject, std::span<const data::Record> records,
                         const ExactMatchOptions& options, const OnProgress& on_progress);

struct RankOptions {
  int64_t tokens = 2048;      // rows of a batch
  int64_t max_length = 2048;  // ids of one record with one choice
  bool per_token = false;     // the mean instead of the sum: does not favour short choices
};
// The choice with the largest log-probability given the prompt (its end token included) is the answer; right
// when it is the record's completion or, where that is none of the choices, its label (the text or the index
// of a choice). choices: for every record; empty: each record has its own.
Accuracy ScoreRanking(const Subject& subject, std::span<const data::Record> records,
                      std::span<const std::string> choices, const RankOptions& options,
                      const OnProgress& on_progress);

}  // namespace rung::eval
