// Regular expressions of tokenizers: PCRE2 compiled to machine code, Unicode classes, bounded work.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

namespace rung::text {

// Immutable after Compile; one may serve several threads, each with its own Matcher.
class Regex {
  struct Code;

 public:
  // `pattern` is in the dialect tokenizers are published in (Oniguruma, Rust regex). Constructs that mean
  // something else in PCRE2 are refused.
  static Result<Regex> Compile(std::string_view pattern);
  static Result<Regex> Literal(std::string_view text);

  struct Span {
    size_t begin, end;
  };
  class Matcher {
   public:
    explicit Matcher(const Regex& regex);
    // The first match at or after `from` in `text`, which is valid UTF-8; an empty match is possible. False
    // when there is none, or when the work allowed for one match is used up: then the rest of the text counts
    // as one piece, which keeps hostile text from hanging a run and loses no byte.
    bool Next(std::string_view text, size_t from, Span* match);

   private:
    struct Buffers;
    std::shared_ptr<const Code> code_;
    std::shared_ptr<Buffers> buffers_;
  };

 private:
  explicit Regex(std::shared_ptr<const Code> code) : code_(std::move(code)) {}
  static Result<Regex> CompileWith(const std::string& pattern, std::string_view shown, uint32_t options);
  std::shared_ptr<const Code> code_;
};

}  // namespace rung::text
