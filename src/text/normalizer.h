// What a tokenizer does to text before looking for tokens.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/regex.h"

namespace rung::text {

struct NormalStep {
  enum class Kind { kNfc, kNfd, kNfkc, kNfkd, kLowercase, kPrepend, kReplace };
  Kind kind = Kind::kNfc;
  std::string from, to;        // kReplace: every `from` (or match of `regex`) becomes `to`; kPrepend: `to`
  std::optional<Regex> regex;  // kReplace
};

class Normalizer {
 public:
  std::vector<NormalStep> steps;

  // `text` is valid UTF-8. Linear in its size, whatever marks it is made of.
  std::string Apply(std::string_view text) const;
};

}  // namespace rung::text
