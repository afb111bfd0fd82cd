// What a tokenizer does to text before looking for tokens.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/charsmap.h"
#include "text/regex.h"

namespace rung::text {

struct NormalStep {
  enum class Kind {
    kNfc,
    kNfd,
    kNfkc,
    kNfkd,
    kLowercase,
    kStrip,
    kStripAccents,
    kPrepend,
    kReplace,
    kCharsmap
  };
  Kind kind = Kind::kNfc;
  std::string from, to;        // kReplace: every `from` (or match of `regex`) becomes `to`; kPrepend: `to`
  std::optional<Regex> regex;  // kReplace
  bool left = true, right = true;  // kStrip
  std::shared_ptr<const Charsmap> charsmap;
};

class Normalizer {
 public:
  std::vector<NormalStep> steps;

  // `text` is valid UTF-8. Linear in its size, whatever marks it is made of. *keeps_start, where it is not
  // null, becomes false when the beginning of the text was taken away.
  std::string Apply(std::string_view text, bool* keeps_start = nullptr) const;
};

}  // namespace rung::text
