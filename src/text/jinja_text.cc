#include "text/jinja_text.h"

#include <string.h>
#include <utf8proc.h>

#include <algorithm>

namespace rung::text::jinja {
namespace {

utf8proc_ssize_t Decode(std::string_view text, size_t at, utf8proc_int32_t* code) {
  const size_t left = std::min<size_t>(text.size() - at, 4);
  return utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                          static_cast<utf8proc_ssize_t>(left), code);
}

bool IsLetter(int32_t code) {
  if (code < 0) return false;
  const utf8proc_category_t category = utf8proc_category(code);
  return category == UTF8PROC_CATEGORY_LU || category == UTF8PROC_CATEGORY_LL ||
         category == UTF8PROC_CATEGORY_LT;
}

// A separator of Jinja's title filter.
bool IsTitleBreak(int32_t code) {
  return code == '-' || code == '(' || code == '{' || code == '[' || code == '<' || IsSpace(code);
}

bool IsLineBreak(int32_t code) {
  return (code >= 0x0a && code <= 0x0d) || (code >= 0x1c && code <= 0x1e) || code == 0x85 || code == 0x2028 ||
         code == 0x2029;
}

// Before a list of parts grows: a megabyte of separators would otherwise cost 50 times its size.
void CheckParts(const std::vector<Text>& parts) {
  if (parts.size() >= 1'000'000) Fail("a string split into more than 1000000 parts");
}

// From the byte at `at` on: bytes of the separating whitespace.
size_t SpaceLength(std::string_view text, size_t at) {
  const size_t begin = at;
  while (at < text.size() && IsSpace(CodePoint(text, at))) at += CharLength(text, at);
  return at - begin;
}

size_t PreviousChar(std::string_view text, size_t at) {
  size_t start = at - 1;
  while (start > 0 && at - start < 4 && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
  return start + CharLength(text, start) == at ? start : at - 1;
}

std::vector<Text> SplitSpace(const Text& text, int64_t limit) {
  const std::string_view bytes = text.bytes;
  std::vector<Text> parts;
  size_t at = SpaceLength(bytes, 0);
  while (at < bytes.size()) {
    CheckParts(parts);
    if (limit >= 0 && static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(Slice(text, at, bytes.size()));
      break;
    }
    size_t end = at;
    while (end < bytes.size() && !IsSpace(CodePoint(bytes, end))) end += CharLength(bytes, end);
    parts.push_back(Slice(text, at, end));
    at = end + SpaceLength(bytes, end);
  }
  return parts;
}

std::vector<Text> SplitSpaceFromRight(const Text& text, int64_t limit) {
  const std::string_view bytes = text.bytes;
  std::vector<Text> parts;
  size_t end = Strip(text, Side::kRight, nullptr).bytes.size();
  while (end > 0) {
    CheckParts(parts);
    if (static_cast<int64_t>(parts.size()) == limit) {
      parts.push_back(Slice(text, 0, end));
      break;
    }
    size_t begin = end;
    while (begin > 0 && !IsSpace(CodePoint(bytes, PreviousChar(bytes, begin))))
      begin = PreviousChar(bytes, begin);
    parts.push_back(Slice(text, begin, end));
    end = begin;
    while (end > 0 && IsSpace(CodePoint(bytes, PreviousChar(bytes, end)))) end = PreviousChar(bytes, end);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

size_t CharLength(std::string_view text, size_t at) {
  if (static_cast<unsigned char>(text[at]) < 0x80) return 1;
  utf8proc_int32_t code = 0;
  const utf8proc_ssize_t length = Decode(text, at, &code);
  return length > 0 ? static_cast<size_t>(length) : 1;
}

int32_t CodePoint(std::string_view text, size_t at) {
  const unsigned char byte = static_cast<unsigned char>(text[at]);
  if (byte < 0x80) return byte;
  utf8proc_int32_t code = 0;
  return Decode(text, at, &code) > 0 ? code : -1;
}

void AppendUtf8(std::string& out, uint32_t code_point) {
  utf8proc_uint8_t buffer[4];
  const utf8proc_ssize_t size = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), buffer);
  out.append(reinterpret_cast<const char*>(buffer), static_cast<size_t>(size));
}

bool IsSpace(int32_t code) {
  return (code >= 0x09 && code <= 0x0d) || (code >= 0x1c && code <= 0x20) || code == 0x85 || code == 0xa0 ||
         code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 || code == 0x2029 ||
         code == 0x202f || code == 0x205f || code == 0x3000;
}

int64_t CountChars(std::string_view text) {
  int64_t count = 0;
  for (size_t at = 0; at < text.size(); at += CharLength(text, at)) ++count;
  return count;
}

std::vector<size_t> CharStarts(std::string_view text) {
  std::vector<size_t> starts;
  starts.reserve(text.size() + 1);
  for (size_t at = 0; at < text.size(); at += CharLength(text, at)) starts.push_back(at);
  starts.push_back(text.size());
  return starts;
}

size_t FindText(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size() || needle.size() > text.size() - from) return std::string_view::npos;
  if (needle.empty()) return from;
  // std::string_view::find may compare the whole needle at every byte: a bounded factor for a short one.
  // memmem is linear in glibc, but sanitizers make each call as dear as the rest of the text, so not for each
  // of many finds.
  if (needle.size() <= 32) return text.find(needle, from);
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  return found ? static_cast<size_t>(static_cast<const char*>(found) - text.data()) : std::string_view::npos;
}

Text Slice(const Text& text, size_t begin, size_t end) {
  Text out;
  out.AppendSlice(text, begin, end);
  return out;
}

Text Strip(const Text& text, Side side, const std::string* chars) {
  const std::string_view bytes = text.bytes;
  std::vector<int32_t> set;
  if (chars)
    for (size_t at = 0; at < chars->size() && set.size() < 256; at += CharLength(*chars, at))
      set.push_back(CodePoint(*chars, at));
  const auto strips = [&](size_t at) {
    const int32_t code = CodePoint(bytes, at);
    return chars ? std::find(set.begin(), set.end(), code) != set.end() : IsSpace(code);
  };
  size_t begin = 0, end = bytes.size();
  if (side != Side::kRight)
    while (begin < end && strips(begin)) begin += CharLength(bytes, begin);
  if (side != Side::kLeft)
    while (end > begin && strips(PreviousChar(bytes, end))) end = PreviousChar(bytes, end);
  return Slice(text, begin, end);
}

Text Replace(const Text& text, std::string_view from, const Text& to, int64_t limit) {
  Text out;
  const std::string_view bytes = text.bytes;
  size_t done = 0;
  for (int64_t count = 0; limit < 0 || count < limit; ++count) {
    size_t at = std::string_view::npos;
    if (!from.empty()) {
      at = FindText(bytes, from, done);
    } else if (count == 0) {
      at = 0;
    } else if (done < bytes.size()) {  // between all characters, and at both ends
      at = done + CharLength(bytes, done);
    }
    if (at == std::string_view::npos) break;
    out.AppendSlice(text, done, at);
    if (to.runs.empty() && !from.empty()) {
      out.AppendAs(to.bytes, text, at);
    } else {
      out.Append(to);
    }
    done = at + from.size();
    if (out.bytes.size() > kMaxOutput) Fail("a string of more than 16 MiB");
  }
  out.AppendSlice(text, done, bytes.size());
  return out;
}

std::vector<Text> Split(const Text& text, const std::string* separator, int64_t limit, bool from_right) {
  if (!separator)
    return from_right && limit >= 0 ? SplitSpaceFromRight(text, limit) : SplitSpace(text, limit);
  if (separator->empty()) Fail("split: an empty separator");
  std::vector<size_t> cuts;
  const std::string_view bytes = text.bytes;
  if (from_right && limit >= 0) {
    for (size_t end = bytes.size(); static_cast<int64_t>(cuts.size()) < limit;) {
      const size_t at = bytes.substr(0, end).rfind(*separator);
      if (at == std::string_view::npos) break;
      cuts.push_back(at);
      end = at;
    }
    std::reverse(cuts.begin(), cuts.end());
  } else {
    for (size_t at = 0; limit < 0 || static_cast<int64_t>(cuts.size()) < limit; at += separator->size()) {
      at = FindText(bytes, *separator, at);
      if (at == std::string_view::npos) break;
      cuts.push_back(at);
    }
  }
  std::vector<Text> parts;
  size_t begin = 0;
  for (size_t cut : cuts) {
    CheckParts(parts);
    parts.push_back(Slice(text, begin, cut));
    begin = cut + separator->size();
  }
  parts.push_back(Slice(text, begin, bytes.size()));
  return parts;
}

std::vector<Text> SplitLines(const Text& text, bool keep_ends) {
  const std::string_view bytes = text.bytes;
  std::vector<Text> lines;
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    const int32_t code = CodePoint(bytes, at);
    size_t next = at + CharLength(bytes, at);
    if (IsLineBreak(code)) {
      CheckParts(lines);
      if (code == '\r' && next < bytes.size() && bytes[next] == '\n') ++next;
      lines.push_back(Slice(text, begin, keep_ends ? next : at));
      begin = next;
    }
    at = next;
  }
  if (begin < bytes.size()) lines.push_back(Slice(text, begin, bytes.size()));
  return lines;
}

Text ChangeCase(const Text& text, Case to) {
  const std::string_view bytes = text.bytes;
  Text out;
  bool start = true;  // of a word, for the cases that have words
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = CharLength(bytes, at);
    const int32_t code = CodePoint(bytes, at);
    const bool upper = to == Case::kUpper || (to != Case::kLower && start);
    std::string piece(bytes.substr(at, length));
    if (code >= 0) {
      piece.clear();
      if (code == 0xdf && upper) {
        piece = to == Case::kUpper || to == Case::kJinjaTitle ? "SS" : "Ss";
      } else {
        const bool title = upper && (to == Case::kTitle || to == Case::kCapitalize);
        AppendUtf8(piece, static_cast<uint32_t>(title   ? utf8proc_totitle(code)
                                                : upper ? utf8proc_toupper(code)
                                                        : utf8proc_tolower(code)));
      }
    }
    out.AppendAs(piece, text, at);
    if (to == Case::kTitle) {
      start = !IsLetter(code);
    } else {
      start = to == Case::kJinjaTitle && IsTitleBreak(code);
    }
    at += length;
  }
  return out;
}

}  // namespace rung::text::jinja
