// Text from a prompt: one sequence as a stream, or many at once.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <vector>

#include "infer/sampler.h"
#include "infer/session.h"
#include "text/tokenizer.h"

namespace rung::infer {

struct GenerateOptions {
  int64_t max_tokens = 256;
  SampleOptions sample;
  std::vector<std::string> stop;  // texts that end the generation; not part of the result
  bool continues = false;         // the prompt is a text that goes on: a space at the beginning is meant
};

struct Generation {
  std::vector<int32_t> ids;  // without the token that ended it
  std::string text;
  std::string finish_reason;  // "stop": the model or a stop text ended it; "length"; "interrupted"
  int64_t prompt_tokens = 0;
  double prefill_seconds = 0.0, decode_seconds = 0.0;
  double tokens_per_second() const;          // of decoding
  double prefill_tokens_per_second() const;  // of the prompt
};

// Rows of one prefill call: enough for full-speed products, little scratch.
inline constexpr int64_t kPrefillChunk = 512;

// Generates in slot 0 of the session. on_text gets text as soon as it is certain not to be part of a stop
// text; what it got, joined, is the result's text. The prompt has at least one id and fits the session.
Generation Generate(Session& session, const text::Tokenizer& tokenizer, std::span<const int32_t> prompt,
                    const GenerateOptions& options, const std::function<void(const std::string&)>& on_text,
                    const std::atomic<bool>* interrupt);

// Generations of many prompts, as many together as the session has slots, in the prompts' order. A prompt
// starts as soon as a slot is free: its rows share calls with the next tokens of the others. After an
// interrupt the finish_reason of those that were not done is "interrupted".
std::vector<Generation> GenerateMany(Session& session, const text::Tokenizer& tokenizer,
                                     const std::vector<std::vector<int32_t>>& prompts,
                                     const GenerateOptions& options,
                                     const std::function<void(size_t done)>& on_progress,
                                     const std::atomic<bool>* interrupt);

}  // namespace rung::infer
