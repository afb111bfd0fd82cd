// Template source to tokens, with whitespace control as transformers sets it (trim_blocks, lstrip_blocks).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace rung::text::jinja {

enum class TokenKind {
  kData,
  kPrintBegin,
  kPrintEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInt,
  kFloat,
  kOperator,
  kEnd
};

struct Token {
  TokenKind kind;
  uint32_t at;       // byte of the source
  std::string text;  // data, name, operator, or the value of a string literal
  int64_t integer = 0;
  double real = 0;
};

// Thrown by Lex and Parse.
struct SyntaxError {
  std::string message;
  uint32_t at;
};

// "\r\n" and "\r" become "\n"; one newline at the very end is dropped.
std::string NormalizeNewlines(std::string_view source);
std::vector<Token> Lex(std::string_view source);  // of a normalized source; ends with kEnd

}  // namespace rung::text::jinja
