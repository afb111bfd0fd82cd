// A tokenizer and a chat template as encoding sees them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/chat_template.h"

namespace rung::text {
class Tokenizer;
}

namespace rung::data {

// What encoding needs of a tokenizer and a chat template.
struct Vocabulary {
  std::function<std::vector<int32_t>(std::string_view)> encode;  // plain text
  // A piece of rendered text; `first`: nothing comes before it. Tokenizers that put a space before a text
  // must do so before the first piece only.
  std::function<std::vector<int32_t>(std::string_view, bool first)> encode_rendered;
  // Empty: no chat template.
  std::function<Result<text::Rendered>(const std::vector<text::Message>&, const std::string& tools,
                                       bool add_generation_prompt)>
      render;
  // Of plain text: the text of the first special token in it; "": there is none. Empty: not known.
  std::function<std::string(std::string_view)> special_in;
  std::function<bool(int32_t)> is_special;  // empty: none is
  int32_t bos = -1, eos = -1;               // -1: none
  bool adds_bos = false;
  std::vector<int32_t> end_ids;  // ids that end a generation
};

// `chat` may be null: records are then encoded without a template. Both must outlive the vocabulary. Messages
// are given to the template in the form that it takes (text/message_forms.h). `time`: RenderOptions::now.
Vocabulary VocabularyOf(const text::Tokenizer& tokenizer, const text::ChatTemplate* chat,
                        std::optional<int64_t> time = std::nullopt);

}  // namespace rung::data
