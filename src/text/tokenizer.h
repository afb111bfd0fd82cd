// Text to token ids and back, with exactly the ids of the model's own tokenizer.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "io/gguf.h"

namespace rung::text {

class TokenizerImpl;

// Immutable after loading; shared by copies; safe to use from several threads.
class Tokenizer {
 public:
  // tokenizer.json, or vocab.json and merges.txt, with tokenizer_config.json, special_tokens_map.json,
  // generation_config.json, config.json and chat_template.jinja beside it where they exist (special ids,
  // end-of-turn ids, template).
  static Result<Tokenizer> FromFolder(const Path& folder);
  // The names of all files that FromFolder may read.
  static std::span<const char* const> FolderFiles();
  // From the text of a tokenizer.json alone.
  static Result<Tokenizer> FromJson(std::string_view json, const std::string& name);
  static Result<Tokenizer> FromGguf(const io::Gguf& gguf);

  // Plain text: nothing in it is read as a special token. No BOS or EOS is added.
  std::vector<int32_t> Encode(std::string_view text) const;
  // The output of a chat template: special tokens written out are recognised, as the tokenizer's file says
  // (`normalized`: only where the normalised text has the normalised token). No BOS or EOS is added.
  std::vector<int32_t> EncodeWithSpecials(std::string_view text) const;

  // Valid UTF-8: broken bytes become U+FFFD. Where encoding puts a space before a text, that space is dropped
  // again. Ids without a token (a model's table may be larger than the vocabulary) are nothing.
  std::string Decode(std::span<const int32_t> ids, bool skip_specials) const;
  // The bytes of one token as they appear in text; may be part of a UTF-8 character.
  std::string Piece(int32_t id) const;
  bool IsSpecial(int32_t id) const;
  // The first special token whose text stands in `text`, which Encode reads as plain text; -1: none does.
  int32_t FindSpecial(std::string_view text) const;

  int64_t vocab_size() const;                   // the largest id + 1: no id it gives is beyond
  int32_t bos() const;                          // -1: the model has none
  int32_t eos() const;                          // -1: the model has none
  bool adds_bos() const;                        // the model's own tokenizer puts BOS before a text
  const std::vector<int32_t>& end_ids() const;  // ids that end a generation: eos, end of turn
  int32_t Find(std::string_view token) const;   // id of a token's exact text, -1 when there is none
  const std::string& chat_template() const;     // empty: none
  const std::string& kind() const;              // "byte-level bpe (smollm)": for `rung inspect`
  int leading_spaces() const;                   // Decode drops at most so many spaces from the beginning

 private:
  explicit Tokenizer(std::shared_ptr<const TokenizerImpl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<const TokenizerImpl> impl_;
};

// Decodes a stream of ids without ever splitting a UTF-8 character. All it returns, joined, is Decode of all
// ids.
class StreamDecoder {
 public:
  // `continues`: the ids go on from a text, so that a space at the beginning is meant.
  explicit StreamDecoder(const Tokenizer& tokenizer, bool continues = false);
  std::string Push(int32_t id);  // the text that is complete now
  std::string Finish();          // what is left, broken bytes as U+FFFD

 private:
  const Tokenizer& tokenizer_;
  int leading_spaces_;
  std::string pending_;
};

}  // namespace rung::text
