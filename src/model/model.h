// A model as a user has it on disk: weights, tokenizer, chat template.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "data/encode.h"
#include "model/backbone.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace rung::model {

struct ModelText {
  text::Tokenizer tokenizer;
  std::optional<text::ChatTemplate> chat;  // nullopt: the model has none, or raw text was asked for
  // What the template takes for the time, if it asks: text::RenderOptions::now. One for a run, so that its
  // tokens are the same from end to end.
  std::optional<int64_t> time = std::nullopt;

  // Not copied: the vocabulary refers to this object.
  data::Vocabulary vocabulary() const {
    return data::VocabularyOf(tokenizer, chat ? &*chat : nullptr, time.value_or(0));
  }
  // The template's source, "" for none.
  std::string chat_source() const { return chat ? chat->source() : ""; }
  // The template and what else decides its text: for the key of cached tokens.
  std::string chat_identity() const;
};

// The beginning of this day in UTC, seconds since 1970: runs of one day share their cached tokens.
int64_t Today();

// The tokenizer of a GGUF file or folder, and its chat template unless `raw`. `chat_template`, when not
// empty, is used instead of the model's own (an adapter brings the one it was trained with), and with it
// `time`; nullopt: Today. A tokenizer with ids beyond `vocabulary`, the model's V, is refused: it belongs to
// another model.
Result<ModelText> LoadText(const Path& path, bool raw, const std::string& chat_template, int64_t vocabulary,
                           std::optional<int64_t> time = std::nullopt);

}  // namespace rung::model
