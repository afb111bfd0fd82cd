// <out>/samples.jsonl: a few held-out prompts, and what the model answers before and after training
// (docs/formats/samples.md).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "infer/answers.h"

namespace rung::train {

inline constexpr const char* kSamplesFile = "samples.jsonl";
// Of one answer: enough to see what kind of answer it is.
inline constexpr int64_t kSampleTokens = 64;

struct SampleLine {
  std::string stage;  // "before", "after"
  int64_t step = 0;   // optimizer steps of the adapter that answered; 0: the frozen model alone
  std::string prompt, expected, answer;
};

// Lines that are none are passed over. Fails when the file cannot be read.
Result<std::vector<SampleLine>> ReadSamples(const Path& file);
// Replaces the lines of this stage, atomically, and keeps those of the other; "before" begins the file anew.
// One answer a question.
Status WriteSamples(const Path& file, const std::string& stage, int64_t step,
                    std::span<const infer::Question> questions, std::span<const std::string> answers);

}  // namespace rung::train
