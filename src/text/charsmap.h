// The compiled normalisation of a SentencePiece model: a trie from texts to their replacements.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace rung::text {

class Charsmap {
 public:
  // `bytes`: the size of the trie in bytes (u32), the trie (u32 each, a Darts double array), then
  // replacements, each ended by a NUL. Fails when the sizes do not fit, or a replacement is no UTF-8.
  static Result<Charsmap> Parse(std::string_view bytes);
  // The same, as tokenizer.json has it.
  static Result<Charsmap> FromBase64(std::string_view text);

  // Grapheme clusters of less than 6 bytes are looked up whole, then characters. `text` is valid UTF-8.
  std::string Apply(std::string_view text) const;

 private:
  // The replacement of the shortest prefix of `text` that the trie holds; false: none.
  bool Find(std::string_view text, std::string_view* replacement) const;

  std::vector<uint32_t> trie_;
  std::string replacements_;
};

}  // namespace rung::text
