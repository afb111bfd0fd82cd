#include "text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <fmt/format.h>
#include <pcre2.h>

#include <array>

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

// Into PCRE2's dialect: \s and \S become explicit sets.
Result<std::string> Translate(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c == '\\') {
      if (++i == pattern.size()) return Refused(pattern, "ends in a backslash");
      const char kind = pattern[i];
      if (kind == 'h' || kind == 'H' || kind == 'R' || kind == 'X' || kind == 'K' || kind == 'C' ||
          kind == 'Q')
        return Refused(pattern, fmt::format("\\{} is not supported", kind));
      if (kind == 's')
        out += in_class ? std::string(kSpaces) : fmt::format("[{}]", kSpaces);
      else if (kind == 'S' && in_class)
        return Refused(pattern, "\\S inside [...] is not supported");
      else if (kind == 'S')
        out += fmt::format("[^{}]", kSpaces);
      else
        out.append({c, kind});
    } else if (in_class) {
      if (c == '[' && !pattern.substr(i).starts_with("[:"))
        return Refused(pattern, "nested [...] is not supported");
      if (pattern.substr(i).starts_with("&&")) return Refused(pattern, "&& inside [...] is not supported");
      in_class = c != ']';
      out += c;
    } else {
      out += c;
      if (c != '[') continue;
      in_class = true;
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') out += pattern[++i];
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') out += pattern[++i];  // a literal ]
    }
  }
  return out;
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

Result<Regex> Regex::Compile(std::string_view pattern) {
  if (pattern.size() > kLongestPattern) return Refused(pattern, "too long");
  Result<std::string> translated = Translate(pattern);
  if (!translated.ok()) return translated.failure();
  return CompileWith(translated.value(), pattern, PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C);
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
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(), options, &error,
                             &where, nullptr);
  if (code->code == nullptr) {
    std::array<PCRE2_UCHAR, 256> message{};
    pcre2_get_error_message(error, message.data(), message.size());
    return Refused(shown, reinterpret_cast<const char*>(message.data()));
  }
  // Where machine code is forbidden or a construct has none, the interpreter serves.
  pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
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

Regex::Matcher::Matcher(const Regex& regex) : regex_(regex), buffers_(std::make_shared<Buffers>()) {}

bool Regex::Matcher::Next(std::string_view text, size_t from, Span* match) {
  Buffers& b = *buffers_;
  const auto run = [&] {
    return pcre2_match(regex_.code_->code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                       PCRE2_NO_UTF_CHECK, b.data, b.context);
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
