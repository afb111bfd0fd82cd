#include "text/jinja_lexer.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <cstdlib>

#include "text/jinja_text.h"

namespace rung::text::jinja {
namespace {

bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsNameStart(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}
bool IsNameChar(char c) { return IsNameStart(c) || IsDigit(c); }

int HexDigit(char c) {
  if (IsDigit(c)) return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> Run() {
    while (position_ < source_.size()) {
      const size_t tag = FindTag();
      if (tag == std::string_view::npos) {
        AddData(position_, source_.size());
        position_ = source_.size();
        break;
      }
      LexTag(tag);
    }
    Add(TokenKind::kEnd, source_.size());
    return std::move(tokens_);
  }

 private:
  size_t FindTag() const {
    for (size_t at = position_; at + 1 < source_.size(); ++at) {
      at = source_.find('{', at);
      if (at == std::string_view::npos || at + 1 >= source_.size()) break;
      const char next = source_[at + 1];
      if (next == '%' || next == '{' || next == '#') return at;
    }
    return std::string_view::npos;
  }

  void LexTag(size_t tag) {
    const char kind = source_[tag + 1];
    const size_t text_begin = position_;
    position_ = tag + 2;
    const char sign = TakeSign();
    AddDataBefore(text_begin, tag, sign, kind == '{');
    if (kind == '#') {
      LexComment(tag);
    } else if (kind == '%' && LexRaw(tag)) {
      return;
    } else {
      LexInside(tag, kind == '{');
    }
  }

  char TakeSign() {
    if (position_ < source_.size() && (source_[position_] == '-' || source_[position_] == '+'))
      return source_[position_++];
    return 0;
  }

  // The data before a tag, less the whitespace that the tag's sign or lstrip_blocks takes away.
  void AddDataBefore(size_t begin, size_t end, char sign, bool variable) {
    if (sign == '-') {
      while (end > begin) {
        size_t start = end - 1;
        while (start > begin && (static_cast<unsigned char>(source_[start]) & 0xc0) == 0x80) --start;
        if (!IsSpace(CodePoint(source_, start))) break;
        end = start;
      }
    } else if (sign != '+' && !variable) {
      const size_t newline = source_.substr(begin, end - begin).rfind('\n');
      const size_t line = newline == std::string_view::npos ? begin : begin + newline + 1;
      if (line > begin || line_starting_) {
        size_t at = line;
        while (at < end && IsSpace(CodePoint(source_, at))) at += CharLength(source_, at);
        if (at >= end) end = line;
      }
    }
    AddData(begin, end);
  }

  void AddData(size_t begin, size_t end) {
    if (begin < end) Add(TokenKind::kData, begin).text = source_.substr(begin, end - begin);
  }

  Token& Add(TokenKind kind, size_t at) {
    tokens_.push_back({kind, static_cast<uint32_t>(at), {}});
    return tokens_.back();
  }

  bool StartsWith(std::string_view text) const { return source_.substr(position_).starts_with(text); }

  void SkipSpace() {
    while (position_ < source_.size() && IsSpace(CodePoint(source_, position_)))
      position_ += CharLength(source_, position_);
  }

  // After a tag's end: "-" takes all whitespace, nothing takes one newline where trim_blocks applies.
  void EndTag(char sign, bool trim) {
    if (sign == '-') {
      SkipSpace();
    } else if (sign == 0 && trim && position_ < source_.size() && source_[position_] == '\n') {
      ++position_;
    }
    line_starting_ = source_[position_ - 1] == '\n';
  }

  void LexComment(size_t tag) {
    const size_t end = source_.find("#}", position_);
    if (end == std::string_view::npos) Refuse("a comment that never ends: '#}' is missing", tag);
    const char before = end > position_ ? source_[end - 1] : '\0';
    position_ = end + 2;
    EndTag(before == '-' || before == '+' ? before : '\0', true);
  }

  // {% raw %} ... {% endraw %}: data whatever is in it. False, and nothing consumed, when this is another
  // block.
  bool LexRaw(size_t tag) {
    const size_t start = position_;
    char sign = 0;
    if (!TakeRawTag("raw", &sign)) {
      position_ = start;
      return false;
    }
    EndTag(sign, false);
    const size_t begin = position_;
    for (size_t end = source_.find("{%", begin); end != std::string_view::npos;
         end = source_.find("{%", end + 1)) {
      position_ = end + 2;
      const char open_sign = TakeSign();
      if (!TakeRawTag("endraw", &sign)) continue;
      AddDataBefore(begin, end, open_sign, false);
      EndTag(sign, true);
      return true;
    }
    Refuse("'{% raw %}' that never ends: '{% endraw %}' is missing", tag);
  }

  bool TakeRawTag(std::string_view word, char* sign) {
    SkipSpace();
    if (!StartsWith(word)) return false;
    position_ += word.size();
    SkipSpace();
    *sign = 0;
    if (StartsWith("-%}") || (word == "endraw" && StartsWith("+%}"))) *sign = source_[position_++];
    if (!StartsWith("%}")) return false;
    position_ += 2;
    return true;
  }

  void LexInside(size_t tag, bool variable) {
    Add(variable ? TokenKind::kPrintBegin : TokenKind::kBlockBegin, tag);
    std::string open;  // brackets that wait for their partner
    while (true) {
      SkipSpace();
      if (position_ >= source_.size()) Refuse(variable ? "'{{' without '}}'" : "'{%' without '%}'", tag);
      if (open.empty() && TakeTagEnd(variable)) return;
      LexToken(open);
    }
  }

  bool TakeTagEnd(bool variable) {
    const size_t start = position_;
    const std::string_view end = variable ? "}}" : "%}";
    char sign = 0;
    if (source_[position_] == '-' || (!variable && source_[position_] == '+')) sign = source_[position_++];
    if (!StartsWith(end)) {
      position_ = start;
      return false;
    }
    position_ += 2;
    Add(variable ? TokenKind::kPrintEnd : TokenKind::kBlockEnd, start);
    EndTag(sign, !variable);
    return true;
  }

  void LexToken(std::string& open) {
    const char c = source_[position_];
    if (IsDigit(c)) return LexNumber();
    if (c == '\'' || c == '"') return LexString(c);
    if (IsNameStart(c)) {
      const size_t begin = position_;
      while (position_ < source_.size() && IsNameChar(source_[position_])) ++position_;
      Add(TokenKind::kName, begin).text = source_.substr(begin, position_ - begin);
      return;
    }
    LexOperator(open);
  }

  void LexOperator(std::string& open) {
    static constexpr std::array<std::string_view, 7> kDouble = {"//", "**", "==", "!=", ">=", "<=", "=="};
    const char c = source_[position_];
    size_t size = 1;
    for (std::string_view two : kDouble)
      if (StartsWith(two)) size = 2;
    if (size == 1 && std::string_view("+-/*%~[](){}<>=.:|,;").find(c) == std::string_view::npos)
      Refuse("unexpected character '" +
                 std::string(source_.substr(position_, CharLength(source_, position_))) + "'",
             position_);
    if (c == '(') open += ')';
    if (c == '[') open += ']';
    if (c == '{') open += '}';
    if (c == ')' || c == ']' || c == '}') {
      if (open.empty()) Refuse(std::string("unexpected '") + c + "'", position_);
      if (open.back() != c)
        Refuse(std::string("unexpected '") + c + "', expected '" + open.back() + "'", position_);
      open.pop_back();
    }
    Add(TokenKind::kOperator, position_).text = source_.substr(position_, size);
    position_ += size;
  }

  // Digits, single underscores between them allowed.
  std::string TakeDigits(int base) {
    std::string digits;
    while (position_ < source_.size()) {
      const char c = source_[position_];
      const bool separator = c == '_' && position_ + 1 < source_.size();
      const int value = HexDigit(separator ? source_[position_ + 1] : c);
      if (value < 0 || value >= base) break;
      if (!separator) digits += c;
      ++position_;
    }
    return digits;
  }

  void LexNumber() {
    const size_t begin = position_;
    const bool after_dot = begin > 0 && source_[begin - 1] == '.';
    int base = 10;
    if (source_[begin] == '0' && begin + 2 < source_.size()) {
      const char prefix = static_cast<char>(source_[begin + 1] | 0x20);
      base = prefix == 'x' ? 16 : prefix == 'o' ? 8 : prefix == 'b' ? 2 : 10;
      if (base != 10) position_ += 2;
    }
    std::string digits = TakeDigits(base);
    const bool real = base == 10 && !after_dot && TakeFraction(digits);
    if (real) {
      Add(TokenKind::kFloat, begin).real = std::strtod(digits.c_str(), nullptr);
      return;
    }
    if (digits.empty() || (base == 10 && digits.size() > 1 && digits[0] == '0' &&
                           digits.find_first_not_of('0') != std::string::npos))
      Refuse("a malformed number", begin);
    int64_t value = 0;
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (parsed.ec != std::errc()) Refuse("an integer of more than 64 bits", begin);
    Add(TokenKind::kInt, begin).integer = value;
  }

  // The part of a floating-point literal after its first digits; false when it is an integer.
  bool TakeFraction(std::string& digits) {
    bool real = false;
    if (position_ + 1 < source_.size() && source_[position_] == '.' && IsDigit(source_[position_ + 1])) {
      ++position_;
      digits += '.' + TakeDigits(10);
      real = true;
    }
    if (position_ < source_.size() && (source_[position_] | 0x20) == 'e') {
      const size_t start = position_++;
      std::string exponent = "e";
      if (position_ < source_.size() && (source_[position_] == '+' || source_[position_] == '-'))
        exponent += source_[position_++];
      if (position_ < source_.size() && IsDigit(source_[position_])) {
        digits += exponent + TakeDigits(10);
        real = true;
      } else {
        position_ = start;
      }
    }
    return real;
  }

  void LexString(char quote) {
    const size_t begin = position_++;
    std::string value;
    while (true) {
      if (position_ >= source_.size()) Refuse("a string that never ends", begin);
      const char c = source_[position_++];
      if (c == quote) break;
      if (c == '\\') {
        if (position_ >= source_.size()) Refuse("a string that never ends", begin);
        AppendEscape(value);
      } else {
        value += c;
      }
    }
    Add(TokenKind::kString, begin).text = std::move(value);
  }

  // Python's escapes; an unknown one stays as it is written.
  void AppendEscape(std::string& value) {
    static constexpr std::string_view kLetters = "abfnrtv\\'\"", kValues = "\a\b\f\n\r\t\v\\'\"";
    const size_t start = position_ - 1;
    const char c = source_[position_++];
    if (c == '\n') return;
    if (const size_t letter = kLetters.find(c); letter != std::string_view::npos) {
      value += kValues[letter];
    } else if (c >= '0' && c <= '7') {
      uint32_t code = static_cast<uint32_t>(c - '0');
      for (int i = 0;
           i < 2 && position_ < source_.size() && source_[position_] >= '0' && source_[position_] <= '7'; ++i)
        code = code * 8 + static_cast<uint32_t>(source_[position_++] - '0');
      AppendUtf8(value, code);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      uint32_t code = 0;
      for (int i = 0; i < (c == 'x' ? 2 : c == 'u' ? 4 : 8); ++i) {
        const int digit = position_ < source_.size() ? HexDigit(source_[position_]) : -1;
        if (digit < 0) Refuse(std::string("a malformed escape '\\") + c + "'", start);
        code = code * 16 + static_cast<uint32_t>(digit);
        ++position_;
      }
      if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
        Refuse("an escape that is no character", start);
      AppendUtf8(value, code);
    } else if (c == 'N') {
      Refuse("the escape '\\N{...}' is not supported: write the character itself", start);
    } else {
      value += '\\';
      value += c;
    }
  }

  [[noreturn]] void Refuse(std::string message, size_t at) const {
    throw SyntaxError{std::move(message), static_cast<uint32_t>(at)};
  }

  std::string_view source_;
  size_t position_ = 0;
  bool line_starting_ = true;  // only tags, no data, since the last newline
  std::vector<Token> tokens_;
};

}  // namespace

std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

std::vector<Token> Lex(std::string_view source) { return Lexer(source).Run(); }

}  // namespace rung::text::jinja
