#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "text/unicode.h"
#include "text/utf8.h"

namespace rung::text {
namespace {

using Kind = NormalStep::Kind;

// Characters that are their own normal form and never change with what stands before them: ASCII; for NFC
// also the rest below U+0300, and blocks of CJK, Hangul syllables, full-width forms and emoji.
bool IsPlain(uint32_t c, Kind kind) {
  if (kind != Kind::kNfc) return c < 0x80;
  return c < 0x300 || (c >= 0x3400 && c <= 0x9FFF) || (c >= 0xAC00 && c <= 0xD7A3) ||
         (c >= 0x3001 && c <= 0x3020) || (c >= 0xFF01 && c <= 0xFF60) || (c >= 0x2010 && c <= 0x2027) ||
         (c >= 0x1F300 && c <= 0x1FAFF);
}

// Lead bytes below 0xCC are those below U+0300.
bool IsPlainText(std::string_view text, Kind kind) {
  const uint8_t end = kind == Kind::kNfc ? 0xCC : 0x80;
  return std::all_of(text.begin(), text.end(), [end](char c) { return static_cast<uint8_t>(c) < end; });
}

using Points = std::vector<utf8proc_int32_t>;

// Orders marks and composes. The library's own ordering is quadratic in the length of a run of marks, hence
// the stable sort here.
void AppendOrdered(Points* points, bool composed, std::string* out) {
  const auto order = [](utf8proc_int32_t c) { return utf8proc_get_property(c)->combining_class; };
  for (auto run = points->begin(); run != points->end();) {
    if (order(*run) == 0) {
      ++run;
      continue;
    }
    const auto end = std::find_if(run, points->end(), [&](utf8proc_int32_t c) { return order(c) == 0; });
    std::stable_sort(run, end, [&](utf8proc_int32_t a, utf8proc_int32_t b) { return order(a) < order(b); });
    run = end;
  }
  auto size = static_cast<utf8proc_ssize_t>(points->size());
  if (composed) {
    const auto both = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    size = std::max<utf8proc_ssize_t>(0, utf8proc_normalize_utf32(points->data(), size, both));
  }
  for (utf8proc_ssize_t i = 0; i < size; ++i)
    AppendUtf8(static_cast<uint32_t>((*points)[static_cast<size_t>(i)]), out);
  points->clear();
}

// Decomposes, orders, composes.
void AppendNormalForm(std::string_view text, Kind kind, Points* points, std::string* out) {
  const bool compatible = kind == Kind::kNfkc || kind == Kind::kNfkd;
  const bool composed = kind == Kind::kNfc || kind == Kind::kNfkc;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE |
                                                      (compatible ? UTF8PROC_COMPAT : 0));
  std::array<utf8proc_int32_t, 64> parts{};  // no character decomposes into more than 18
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = StepUtf8(text.substr(at));
    at += step.size;
    if (IsInert(step.code_point)) {
      AppendOrdered(points, composed, out);
      AppendUtf8(step.code_point, out);
      continue;
    }
    int boundary = 0;
    const auto count =
        utf8proc_decompose_char(static_cast<utf8proc_int32_t>(step.code_point), parts.data(),
                                static_cast<utf8proc_ssize_t>(parts.size()), options, &boundary);
    if (count < 0 || count > static_cast<utf8proc_ssize_t>(parts.size()))
      points->push_back(static_cast<utf8proc_int32_t>(step.code_point));
    else
      points->insert(points->end(), parts.begin(), parts.begin() + count);
  }
  AppendOrdered(points, composed, out);
}

// Only runs of characters that are not plain, with the plain one before them, are put through the library.
std::string NormalForm(std::string_view text, Kind kind) {
  std::string out;
  out.reserve(text.size());
  Points points;
  size_t done = 0, previous = 0;  // copied up to `done`; the last character begins at `previous`
  for (size_t at = 0; at < text.size();) {
    Utf8Step step = StepUtf8(text.substr(at));
    if (IsPlain(step.code_point, kind)) {
      previous = at;
      at += step.size;
      continue;
    }
    out.append(text.substr(done, previous - done));
    while (at < text.size() && !IsPlain(step.code_point, kind)) {
      at += step.size;
      if (at < text.size()) step = StepUtf8(text.substr(at));
    }
    AppendNormalForm(text.substr(previous, at - previous), kind, &points, &out);
    done = previous = at;
  }
  return out.append(text.substr(done));
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
      AppendUtf8(Lower(step.code_point), &out);
  }
  return out;
}

std::string StripAccents(std::string_view text, bool* keeps_start) {
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0; at < text.size();) {
    const Utf8Step step = StepUtf8(text.substr(at));
    if (!IsAccent(step.code_point))
      out.append(text.substr(at, step.size));
    else if (out.empty())
      *keeps_start = false;
    at += step.size;
  }
  return out;
}

std::string Strip(std::string_view text, const NormalStep& step, bool* keeps_start) {
  size_t begin = 0, end = text.size();
  while (step.left && begin < end) {
    const Utf8Step character = StepUtf8(text.substr(begin));
    if (!IsSpace(character.code_point)) break;
    begin += character.size;
  }
  while (step.right && end > begin) {
    size_t last = end - 1;
    while (last > begin && (static_cast<uint8_t>(text[last]) & 0xC0) == 0x80) --last;
    if (!IsSpace(StepUtf8(text.substr(last)).code_point)) break;
    end = last;
  }
  if (begin > 0) *keeps_start = false;
  return std::string(text.substr(begin, end - begin));
}

// What replaces the first character stands where that stood; what replaces more, or nothing, does not.
bool KeepsStart(std::string_view replaced, const NormalStep& step) {
  return replaced.empty() || (!step.to.empty() && StepUtf8(replaced).size == replaced.size());
}

// An empty match puts `to` in, except directly behind another match.
std::string ReplaceMatches(std::string_view text, const NormalStep& step, bool* keeps_start) {
  std::string out;
  Regex::Matcher matcher(*step.regex);
  Regex::Span match{};
  size_t done = 0, last = std::string_view::npos;
  for (size_t from = 0; from <= text.size() && matcher.Next(text, from, &match);) {
    if (match.begin == match.end && match.end == last) {
      from += from < text.size() ? StepUtf8(text.substr(from)).size : 1;
      continue;
    }
    out.append(text.substr(done, match.begin - done)).append(step.to);
    if (match.begin == 0) *keeps_start &= KeepsStart(text.substr(0, match.end), step);
    from = done = last = match.end;
  }
  return out.append(text.substr(done));
}

std::string Replace(std::string_view text, const NormalStep& step, bool* keeps_start) {
  if (text.empty()) return {};
  if (step.regex) return ReplaceMatches(text, step, keeps_start);
  std::string out;
  out.reserve(text.size() + text.size() / 2);
  size_t done = 0;
  for (size_t at = text.find(step.from); at != std::string_view::npos; at = text.find(step.from, done)) {
    out.append(text.substr(done, at - done)).append(step.to);
    if (at == 0) *keeps_start &= KeepsStart(step.from, step);
    done = at + step.from.size();
  }
  return out.append(text.substr(done));
}

}  // namespace

std::string Normalizer::Apply(std::string_view text, bool* keeps_start) const {
  std::string out(text);
  bool kept = true;
  for (const NormalStep& step : steps) {
    switch (step.kind) {
      case Kind::kNfc:
      case Kind::kNfd:
      case Kind::kNfkc:
      case Kind::kNfkd:
        if (!IsPlainText(out, step.kind)) out = NormalForm(out, step.kind);
        break;
      case Kind::kLowercase:
        out = Lowercase(out);
        break;
      case Kind::kStrip:
        out = Strip(out, step, &kept);
        break;
      case Kind::kStripAccents:
        out = StripAccents(out, &kept);
        break;
      case Kind::kPrepend:
        if (!out.empty()) out.insert(0, step.to);
        break;
      case Kind::kReplace:
        out = Replace(out, step, &kept);
        break;
      case Kind::kCharsmap:
        out = step.charsmap->Apply(out);
        break;
    }
  }
  if (keeps_start != nullptr) *keeps_start = kept;
  return out;
}

}  // namespace rung::text
