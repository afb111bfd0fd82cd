#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "text/unicode.h"

namespace rung::text {
namespace {

constexpr size_t kLongestPattern = 16384;  // bytes; the longest published one is below 1 kB
// Backtracking steps of one match. Published patterns need a few for each byte of a run of blanks.
constexpr uint32_t kMatchLimit = 50'000'000;
constexpr uint32_t kHeapLimitKiB = 64 * 1024;
constexpr size_t kJitStackBytes = 8 << 20;

// White_Space for use inside [...]. PCRE2's own \s takes U+180E too.
constexpr std::string_view kSpaces = "\\x09-\\x0D\\x20\\x85\\p{Z}";

Failure Refused(std::string_view pattern, std::string_view what) {
  return Failure{fmt::format("regular expression: {}: {:.200}", what, pattern)};
}

bool IsHex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

// The characters of \p{name} for use inside [...], empty when the name is not supported. Scripts other than
// Han are not: what they hold depends on the version of Unicode.
std::string Property(std::string_view name) {
  if (name == "Han") return "\\p{sc:Han}\\x{2B739}\\x{2EBF0}-\\x{2EE5D}\\x{31350}-\\x{323AF}";
  static constexpr std::string_view kNames[] = {
      "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M", "Mn", "Mc", "Me", "N",  "Nd", "Nl", "No", "P",  "Pc",
      "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S", "Sm", "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "Cc"};
  if (std::find(std::begin(kNames), std::end(kNames), name) == std::end(kNames)) return {};
  return fmt::format("\\p{{{}}}{}", name, NewerCodePoints(name));
}

// \w of Oniguruma: letters, marks, digits, connectors, what Unicode calls Other_Alphabetic beside them, and,
// outside of [...] only, the superscripts and fractions of Latin-1.
std::string WordCharacters(bool in_class) {
  std::string out = in_class ? "" : "\\xB2\\xB3\\xB9\\xBC-\\xBE";
  out += "\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}";
  for (const std::string_view name : {"L", "M", "Nd", "Nl", "Pc"}) out += Property(name);
  return out;
}

// From the dialect of Oniguruma into PCRE2's: classes become explicit sets, since what they hold differs;
// what means something else is refused.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  Result<std::string> Run() {
    while (at_ < pattern_.size() && wrong_.empty()) {
      const char c = pattern_[at_];
      if (c == '\\')
        Escape();
      else if (in_class_)
        InClass(c);
      else
        Outside(c);
    }
    if (!wrong_.empty()) return Refused(pattern_, wrong_);
    return std::move(out_);
  }

 private:
  std::string_view Rest() const { return pattern_.substr(at_); }
  void Fail(std::string what) {
    if (wrong_.empty()) wrong_ = std::move(what);
  }

  void PushSet(const std::string& set, bool negated) {
    if (in_class_ && negated) return Fail("a negated class inside [...] is not supported");
    if (!in_class_) out_ += negated ? "[^" : "[";
    out_ += set;
    if (!in_class_) out_ += ']';
  }

  void Escape() {
    if (at_ + 1 == pattern_.size()) return Fail("ends in a backslash");
    const char kind = pattern_[at_ + 1];
    static constexpr std::string_view kRefused = "hHRXKCQEGNoyYkg";
    if (kRefused.find(kind) != std::string_view::npos || ((kind == 'b' || kind == 'B') && !in_class_))
      return Fail(fmt::format("\\{} is not supported", kind));
    if (kind == 'p' || kind == 'P') return EscapeProperty(kind == 'P');
    if (kind == 'u' || kind == 'x') return EscapeCode(kind == 'u');
    at_ += 2;
    if (kind == 's' || kind == 'S')
      PushSet(std::string(kSpaces), kind == 'S');
    else if (kind == 'd' || kind == 'D')
      PushSet(Property("Nd"), kind == 'D');
    else if (kind == 'w' || kind == 'W')
      PushSet(WordCharacters(in_class_), kind == 'W');
    else if (kind == 'v')
      out_ += "\\x0B";
    else
      out_.append({'\\', kind});
  }

  // \p{name}, \P{name}, \p{^name}
  void EscapeProperty(bool negated) {
    const size_t end = Rest().find('}');
    if (end == std::string_view::npos || pattern_.substr(at_ + 2, 1) != "{") return Fail("\\p without {...}");
    std::string_view name = pattern_.substr(at_ + 3, end - 3);
    if (name.starts_with('^')) {
      negated = !negated;
      name.remove_prefix(1);
    }
    const std::string set = Property(name);
    if (set.empty()) return Fail(fmt::format("\\p{{{}}} is not supported", name));
    at_ += end + 1;
    PushSet(set, negated);
  }

  // \uHHHH, \x{H...}, \xHH
  void EscapeCode(bool four) {
    const std::string_view rest = pattern_.substr(at_ + 2);
    const auto hex = [&](size_t count) {
      return rest.size() >= count &&
             std::all_of(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(count), IsHex);
    };
    if (four) {
      if (!hex(4)) return Fail("\\u without four hexadecimal digits");
      out_ += fmt::format("\\x{{{}}}", rest.substr(0, 4));
      at_ += 6;
    } else if (rest.starts_with('{')) {
      out_ += "\\x";
      at_ += 2;
    } else {
      // There a byte, here a character: the same below 0x80 only.
      if (!hex(2) || rest[0] > '7') return Fail("\\x is supported as \\x{...} and up to \\x7F");
      out_ += pattern_.substr(at_, 4);
      at_ += 4;
    }
  }

  void InClass(char c) {
    if (c == '[') return Fail("[ inside [...] is not supported");
    if (Rest().starts_with("&&")) return Fail("&& inside [...] is not supported");
    in_class_ = c != ']';
    out_ += c;
    ++at_;
  }

  void Outside(char c) {
    if (Rest().starts_with("(*")) return Fail("(* is not supported");
    if (Rest().starts_with("(?")) CheckGroup();
    if (c == '{') return Repeat();
    out_ += c;
    ++at_;
    if (c != '[') return;
    in_class_ = true;
    for (const char first : {'^', ']'}) {  // a ] that comes first is a literal
      if (!Rest().starts_with(first)) continue;
      out_ += first;
      ++at_;
    }
  }

  // Of the inline options only i means the same.
  void CheckGroup() {
    for (size_t i = at_ + 2; i < pattern_.size(); ++i) {
      const char c = pattern_[i];
      if (c == 'P' || c == 'R' || (c >= '0' && c <= '9'))
        return Fail(fmt::format("(?{} is not supported", c));
      if (c == '-' || c == 'i') continue;
      if (c >= 'a' && c <= 'z') return Fail(fmt::format("(?{} is not supported", c));
      return;
    }
  }

  // There {n,m}+ repeats {n,m}, here it would not give back; {,m} is a repeat there and text here.
  void Repeat() {
    const size_t end = Rest().find('}');
    if (end == std::string_view::npos || end < 2 || Rest()[1] < '0' || Rest()[1] > '9')
      return Fail("{ is supported as {n}, {n,} and {n,m}");
    out_ += Rest().substr(0, end + 1);
    at_ += end + 1;
    if (Rest().starts_with('+')) Fail("{n,m}+ is not supported");
  }

  std::string_view pattern_;
  std::string out_, wrong_;
  size_t at_ = 0;
  bool in_class_ = false;
};

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  bool machine = false;  // compiled to machine code
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

Result<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kLongestPattern) return Refused(pattern, "too long");
  const Result<std::string> translated = Translator(pattern).Run();
  if (!translated.ok()) return translated.failure();
  // ^ and $ stand at lines, as in Ruby.
  return CompileWith(translated.value(), pattern,
                     PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C | PCRE2_MULTILINE);
}

Result<Regex> Regex::Literal(std::string_view text) {
  if (text.empty()) return Refused(text, "the text to split at is empty");
  if (text.size() > kLongestPattern) return Refused(text, "too long");
  return CompileWith(std::string(text), text, PCRE2_UTF | PCRE2_LITERAL);
}

Result<Regex> Regex::CompileWith(const std::string& pattern, std::string_view shown, uint32_t options) {
  int error = 0;
  PCRE2_SIZE where = 0;
  auto code = std::make_shared<Code>();
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  if (context == nullptr) throw std::bad_alloc();
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error,
                             &where, context);
  pcre2_compile_context_free(context);
  if (code->code == nullptr) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    return Refused(shown, reinterpret_cast<const char*>(message.data()));
  }
  // Where machine code is forbidden or a construct has none, the interpreter serves.
  code->machine = pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE) == 0;
  return Regex(std::move(code));
}

struct Regex::Matcher::Buffers {
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_jit_stack* stack = nullptr;
  Buffers() : data(pcre2_match_data_create(1, nullptr)), context(pcre2_match_context_create(nullptr)) {
    if (data == nullptr || context == nullptr) throw std::bad_alloc();
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKiB);
  }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_jit_stack_free(stack);
  }
};

Regex::Matcher::Matcher(const Regex& regex) : code_(regex.code_), buffers_(std::make_shared<Buffers>()) {}

bool Regex::Matcher::Next(std::string_view text, size_t from, Span* match) {
  Buffers& b = *buffers_;
  const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const auto run = [&] {
    // Without the checks that pcre2_match makes each time: pieces are short.
    if (code_->machine) return pcre2_jit_match(code_->code, subject, text.size(), from, 0, b.data, b.context);
    return pcre2_match(code_->code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, b.data, b.context);
  };
  int found = run();
  if (found == PCRE2_ERROR_JIT_STACKLIMIT && b.stack == nullptr) {
    // The default stack, 32 KiB, serves every published pattern.
    b.stack = pcre2_jit_stack_create(64 * 1024, kJitStackBytes, nullptr);
    pcre2_jit_stack_assign(b.context, nullptr, b.stack);
    found = run();
  }
  if (found < 0) return false;
  const PCRE2_SIZE* span = pcre2_get_ovector_pointer(b.data);
  if (span[1] < span[0] || span[1] < from) return false;
  *match = {span[0], span[1]};
  return true;
}

}  // namespace rung::text
