// Tokens that are found in text before the model sees it: special ones and those added after training.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace rung::text {

struct AddedToken {
  std::string text;
  int32_t id = -1;
  bool special = false;
  bool lstrip = false, rstrip = false;  // white space before or after belongs to the token
  bool single_word = false;             // not inside a longer word
  bool normalized = false;              // looked for in normalised text
};

class AddedTokens {
 public:
  struct Segment {
    std::string_view text;
    int32_t id;  // -1: ordinary text
  };

  // Of two tokens with one text the first counts. Empty texts are left out.
  void Add(AddedToken token);
  bool empty() const { return tokens_.empty(); }
  const AddedToken* Find(std::string_view text) const;  // nullptr: none

  const AddedToken* FirstSpecial(std::string_view text) const;  // that stands anywhere in it; nullptr: none

  // Cuts `text` at the leftmost, then longest tokens; special ones stay ordinary text unless `specials`.
  // Appends segments, none empty.
  void Split(std::string_view text, bool specials, std::vector<Segment>* segments) const;

 private:
  const AddedToken* Match(std::string_view text, size_t at) const;

  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>{}(text); }
  };

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t, Hash, std::equal_to<>> index_;
  std::array<std::vector<size_t>, 256> sizes_;  // by first byte: the sizes of tokens, longest first
  bool has_plain_ = false;
};

}  // namespace rung::text
