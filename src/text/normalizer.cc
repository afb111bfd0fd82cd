#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>

#include "text/utf8.h"

namespace rung::text {
namespace {

using Kind = NormalStep::Kind;

// Below U+0300 every character is its own NFC form and no mark; their lead bytes are below 0xCC.
bool IsPlainNfc(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<uint8_t>(c);
    return byte < 0xC0 ? true : byte < 0xCC;
  });
}

bool IsAscii(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return static_cast<uint8_t>(c) < 0x80; });
}

// Decompose, order marks, compose. The library's own ordering is quadratic in the length of a run of marks,
// hence the stable sort here.
std::string NormalForm(std::string_view text, Kind kind) {
  const bool compatible = kind == Kind::kNfkc || kind == Kind::kNfkd;
  const bool composed = kind == Kind::kNfc || kind == Kind::kNfkc;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatible ? UTF8PROC_COMPAT : 0));
  std::vector<utf8proc_int32_t> points;
  points.reserve(text.size());
  std::array<utf8proc_int32_t, 64> parts{};  // no character decomposes into more than 18
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = StepUtf8(text.substr(at));
    at += step.size;
    int boundary = 0;
    const auto count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(step.code_point), parts.data(),
                                static_cast<utf8proc_ssize_t>(parts.size()), options, &boundary);
    if (count < 0 || count > static_cast<utf8proc_ssize_t>(parts.size()))
      points.push_back(static_cast<utf8proc_int32_t>(step.code_point));
    else
      points.insert(points.end(), parts.begin(), parts.begin() + count);
  }
  const auto order = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto run = points.begin(); run != points.end();) {
    if (order(*run) == 0) {
      ++run;
      continue;
    }
    const auto end = std::find_if(run, points.end(), [&](utf8proc_int32_t c) { return order(c) == 0; });
    std::stable_sort(run, end, [&](utf8proc_int32_t a, utf8proc_int32_t b) { return order(a) < order(b); });
    run = end;
  }
  auto size = static_cast<utf8proc_ssize_t>(points.size());
  if (composed) {
    const auto both = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    size = std::max<utf8proc_ssize_t>(0, utf8proc_normalize_utf32(points.data(), size, both));
  }
  std::string out;
  out.reserve(text.size());
  for (utf8proc_ssize_t i = 0; i < size; ++i)
    AppendUtf8(static_cast<uint32_t>(points[static_cast<size_t>(i)]), &out);
  return out;
}

std::string Lowercase(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = StepUtf8(text.substr(at));
    at += step.size;
    if (step.code_point == 0x130)
      out += "i\xCC\x87";  // the one character whose lower case is two
    else
      AppendUtf8(static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(step.code_point))),
                 &out);
  }
  return out;
}

std::string Replace(std::string_view text, const NormalStep& step) {
  std::string out;
  if (step.regex) {
    Regex::Matcher matcher(*step.regex);
    Regex::Span match{};
    size_t done = 0;
    for (size_t from = 0; from < text.size() && matcher.Next(text, from, &match);) {
      if (match.begin == match.end) {
        if (match.end >= text.size()) break;
        from = match.end + StepUtf8(text.substr(match.end)).size;
        continue;
      }
      out.append(text.substr(done, match.begin - done)).append(step.to);
      from = done = match.end;
    }
    out.append(text.substr(done));
    return out;
  }
  size_t done = 0;
  for (size_t at = text.find(step.from); at != std::string_view::npos; at = text.find(step.from, done)) {
    out.append(text.substr(done, at - done)).append(step.to);
    done = at + step.from.size();
  }
  out.append(text.substr(done));
  return out;
}

}  // namespace

std::string Normalizer::Apply(std::string_view text) const {
  std::string out(text);
  for (const NormalStep& step : steps) {
    switch (step.kind) {
      case Kind::kNfc:
        if (!IsPlainNfc(out)) out = NormalForm(out, step.kind);
        break;
      case Kind::kNfd:
      case Kind::kNfkc:
      case Kind::kNfkd:
        if (!IsAscii(out)) out = NormalForm(out, step.kind);
        break;
      case Kind::kLowercase:
        out = Lowercase(out);
        break;
      case Kind::kPrepend:
        if (!out.empty()) out.insert(0, step.to);
        break;
      case Kind::kReplace:
        out = Replace(out, step);
        break;
    }
  }
  return out;
}

}  // namespace rung::text
