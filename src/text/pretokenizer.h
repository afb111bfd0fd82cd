// Cuts text into the pieces within which tokens are merged.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/regex.h"

namespace rung::text {

// What becomes of the text that a pattern matches, named as in tokenizer.json.
enum class SplitBehavior { kIsolated, kRemoved, kContiguous, kMergedWithPrevious, kMergedWithNext };

struct PreStep {
  enum class Kind {
    kSplit,       // at `regex`
    kCharacters,  // at each character for which `is` holds
    kWords,       // runs of word characters and of others; white space is removed
    kLength,      // every `length` characters
    kSpace,       // a space before a piece that does not begin with one
    kMetaspace    // spaces become `mark`, one is put before the text, pieces begin at marks
  };
  enum class Prepend { kAlways, kFirst, kNever };

  Kind kind = Kind::kSplit;
  std::optional<Regex> regex;
  bool (*is)(uint32_t code_point) = nullptr;
  uint32_t delimiter = 0;  // kCharacters without `is`: the character to cut at
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  // the pattern describes what lies between
  size_t length = 0;
  std::string mark;
  Prepend prepend = Prepend::kAlways;
  bool split = true;
};

class PreTokenizer {
 public:
  struct Piece {
    std::string_view text;
    bool first;  // it begins where the text that is encoded begins
  };
  // Buffers kept from text to text; one per thread. Views in `pieces` live until the next Split, and no
  // longer than the text.
  struct Scratch {
    explicit Scratch(const PreTokenizer& pretokenizer);
    std::vector<Piece> pieces, next;
    std::deque<std::string> owned;
    std::vector<std::optional<Regex::Matcher>> matchers;  // one for each step
    std::vector<std::pair<Regex::Span, bool>> spans;
  };

  std::vector<PreStep> steps;

  // `text` is valid UTF-8; `first`: it stands at the beginning of what is encoded. No piece is empty.
  void Split(std::string_view text, bool first, Scratch* scratch) const;
};

// The step of one regular expression, or the reason why it cannot be.
Result<PreStep> SplitAt(std::string_view pattern, SplitBehavior behavior);
// The step that cuts at the characters of a class.
PreStep SplitAtCharacters(bool (*is)(uint32_t code_point), SplitBehavior behavior);

// Known patterns, by the name GGUF files give them. smollm differs from gpt-2 by splitting digits first.
struct KnownPattern {
  std::string_view name, pattern;
  bool digits_first;
};
extern const KnownPattern kGpt2Pattern, kLlama3Pattern, kQwen2Pattern, kSmolLmPattern;

}  // namespace rung::text
