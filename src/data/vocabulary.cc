#include "data/vocabulary.h"

#include <algorithm>
#include <optional>

#include "text/message_forms.h"
#include "text/tokenizer.h"

namespace rung::data {
namespace {

// A text that goes on from another: without the space that some tokenizers put before every text they are
// given. Such a tokenizer is given a line end in front, whose ids are taken away again; a vocabulary that
// merges the line end with what follows keeps the space, which is its own way of reading that text.
std::vector<int32_t> EncodeGoingOn(const text::Tokenizer& tokenizer, std::string_view text) {
  if (tokenizer.leading_spaces() == 0) return tokenizer.EncodeWithSpecials(text);
  const std::vector<int32_t> before = tokenizer.EncodeWithSpecials("\n");
  std::vector<int32_t> ids = tokenizer.EncodeWithSpecials("\n" + std::string(text));
  if (ids.size() < before.size() || !std::equal(before.begin(), before.end(), ids.begin())) {
    return tokenizer.EncodeWithSpecials(text);
  }
  ids.erase(ids.begin(), ids.begin() + static_cast<int64_t>(before.size()));
  return ids;
}

}  // namespace

Vocabulary VocabularyOf(const text::Tokenizer& tokenizer, const text::ChatTemplate* chat,
                        std::optional<int64_t> time) {
  Vocabulary vocabulary;
  vocabulary.encode = [&tokenizer](std::string_view text) { return tokenizer.Encode(text); };
  vocabulary.encode_rendered = [&tokenizer](std::string_view text, bool first) {
    return first ? tokenizer.EncodeWithSpecials(text) : EncodeGoingOn(tokenizer, text);
  };
  vocabulary.special_in = [&tokenizer](std::string_view text) {
    const int32_t id = tokenizer.FindSpecial(text);
    return id >= 0 ? tokenizer.Piece(id) : "";
  };
  vocabulary.is_special = [&tokenizer](int32_t id) { return tokenizer.IsSpecial(id); };
  vocabulary.bos = tokenizer.bos();
  vocabulary.eos = tokenizer.eos();
  vocabulary.adds_bos = tokenizer.adds_bos();
  vocabulary.end_ids = tokenizer.end_ids();
  if (chat) {
    const std::string bos = tokenizer.bos() >= 0 ? tokenizer.Piece(tokenizer.bos()) : "";
    const std::string eos = tokenizer.eos() >= 0 ? tokenizer.Piece(tokenizer.eos()) : "";
    const text::MessageForms forms = text::FormsOf(*chat);
    vocabulary.render = [chat, bos, eos, time, forms](const std::vector<text::Message>& messages,
                                                      const std::string& tools,
                                                      bool add_generation_prompt) -> Result<text::Rendered> {
      Result<std::vector<text::Message>> given = text::InForms(messages, forms);
      if (!given.ok()) return given.failure();
      text::RenderOptions options;
      options.add_generation_prompt = add_generation_prompt;
      options.bos = bos;
      options.eos = eos;
      options.tools = tools;
      options.now = time;
      return chat->Render(given.value(), options);
    };
  }
  return vocabulary;
}

}  // namespace rung::data
