#include "text/charsmap.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <cstddef>
#include <cstring>

#include "base/text.h"
#include "text/unicode.h"
#include "text/utf8.h"

namespace rung::text {
namespace {

// A unit of a Darts double array: bit 8 says that a value follows, bits 0 to 7 and 31 are the label, bits 10
// to 30 the offset, shifted by 8 when bit 9 is set.
bool HasLeaf(uint32_t unit) { return (unit >> 8 & 1) == 1; }
uint32_t Label(uint32_t unit) { return unit & (1u << 31 | 0xFFu); }
uint32_t Offset(uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }
uint32_t Value(uint32_t unit) { return unit & ((1u << 31) - 1); }

constexpr size_t kLongestCluster = 5;  // bytes

// The bits of one character, -1 for others.
int Base64(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

}  // namespace

Result<Charsmap> Charsmap::Parse(std::string_view bytes) {
  uint32_t size = 0;
  if (bytes.size() < sizeof size) return Failure{"precompiled_charsmap: shorter than its header"};
  std::memcpy(&size, bytes.data(), sizeof size);
  bytes.remove_prefix(sizeof size);
  if (size % sizeof(uint32_t) != 0 || size > bytes.size() || size == 0)
    return Failure{fmt::format("precompiled_charsmap: a trie of {} bytes in {}", size, bytes.size())};
  Charsmap map;
  map.trie_.resize(size / sizeof(uint32_t));
  std::memcpy(map.trie_.data(), bytes.data(), size);
  map.replacements_ = bytes.substr(size);
  if (!IsUtf8(map.replacements_)) return Failure{"precompiled_charsmap: a replacement is not UTF-8"};
  return map;
}

Result<Charsmap> Charsmap::FromBase64(std::string_view text) {
  while (text.ends_with('=')) text.remove_suffix(1);
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3 + 2);
  uint32_t bits = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const int value = Base64(text[i]);
    if (value < 0) return Failure{fmt::format("precompiled_charsmap: byte {} is no base64", i)};
    bits = bits << 6 | static_cast<uint32_t>(value);
    if (i % 4 != 0) bytes.push_back(static_cast<char>(bits >> (6 - 2 * (i % 4)) & 0xFF));
  }
  return Parse(bytes);
}

bool Charsmap::Find(std::string_view text, std::string_view* replacement) const {
  uint32_t node = Offset(trie_[0]);
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte == 0) return false;
    node ^= byte;
    if (node >= trie_.size() || Label(trie_[node]) != byte) return false;
    const uint32_t unit = trie_[node];
    node ^= Offset(unit);
    if (!HasLeaf(unit)) continue;
    const uint32_t at = node < trie_.size() ? Value(trie_[node]) : 0;
    const size_t begin = at < replacements_.size() ? at : replacements_.size();
    *replacement = std::string_view(replacements_).substr(begin);
    *replacement = replacement->substr(0, replacement->find('\0'));
    return true;
  }
  return false;
}

std::string Charsmap::Apply(std::string_view text) const {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  std::string_view replacement;
  while (!text.empty()) {
    // One grapheme cluster, by pairs of neighbours.
    Utf8Step step = StepUtf8(text);
    size_t size = step.size;
    utf8proc_int32_t state = 0;
    while (size < text.size()) {
      const Utf8Step next = StepUtf8(text.substr(size));
      if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(step.code_point),
                                           static_cast<utf8proc_int32_t>(next.code_point), &state) &&
          !IsNewMark(next.code_point))
        break;
      size += next.size;
      step = next;
    }
    const std::string_view cluster = text.substr(0, size);
    text.remove_prefix(size);
    if (size <= kLongestCluster && Find(cluster, &replacement)) {
      out += replacement;
      continue;
    }
    for (size_t at = 0; at < cluster.size();) {
      const std::string_view character = cluster.substr(at, StepUtf8(cluster.substr(at)).size);
      out += Find(character, &replacement) ? replacement : character;
      at += character.size();
    }
  }
  return out;
}

}  // namespace rung::text
