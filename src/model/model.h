// A model as a user has it on disk: weights, tokenizer, chat template.
#pragma once

#include <optional>

#include "data/encode.h"
#include "model/backbone.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"

namespace rung::model {

struct ModelText {
  text::Tokenizer tokenizer;
  std::optional<text::ChatTemplate> chat;  // nullopt: the model has none, or raw text was asked for

  // Not copied: the vocabulary refers to this object.
  data::Vocabulary vocabulary() const { return data::VocabularyOf(tokenizer, chat ? &*chat : nullptr); }
};

// The tokenizer of a GGUF file or folder, and its chat template unless `raw`. `chat_template`, when not
// empty, is used instead of the model's own (an adapter brings the one it was trained with). A tokenizer with
// ids beyond `vocabulary`, the model's V, is refused: it belongs to another model.
Result<ModelText> LoadText(const Path& path, bool raw, const std::string& chat_template, int64_t vocabulary);

}  // namespace rung::model
