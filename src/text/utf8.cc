#include "text/utf8.h"

#include <array>

namespace rung::text {
namespace {

constexpr uint32_t kAlphabetEnd =
    0x144;  // 188 printable bytes stand for themselves, 68 others are U+0100 and up

std::array<int16_t, kAlphabetEnd> MakeAlphabet() {
  std::array<int16_t, kAlphabetEnd> byte_of;
  byte_of.fill(-1);
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    byte_of[printable ? byte : next++] = static_cast<int16_t>(byte);
  }
  return byte_of;
}

// The allowed range of the second byte, which is what excludes overlong forms, surrogates and > U+10FFFF.
struct Lead {
  uint32_t size;
  uint8_t low, high;
};

Lead LeadOf(uint8_t byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Step StepUtf8(std::string_view bytes) {
  const auto first = static_cast<uint8_t>(bytes[0]);
  if (first < 0x80) return {first, 1, true, false};
  const Lead lead = LeadOf(first);
  if (lead.size == 0) return {0, 1, false, false};
  uint32_t code_point = first & (0x7Fu >> lead.size);
  for (uint32_t i = 1; i < lead.size; ++i) {
    if (i == bytes.size()) return {0, i, false, true};
    const auto byte = static_cast<uint8_t>(bytes[i]);
    const uint8_t low = i == 1 ? lead.low : uint8_t{0x80}, high = i == 1 ? lead.high : uint8_t{0xBF};
    if (byte < low || byte > high) return {0, i, false, false};
    code_point = code_point << 6 | (byte & 0x3Fu);
  }
  return {code_point, lead.size, true, false};
}

void AppendUtf8(uint32_t c, std::string* text) {
  if (c < 0x80) {
    text->push_back(static_cast<char>(c));
  } else if (c < 0x800) {
    text->push_back(static_cast<char>(0xC0 | c >> 6));
    text->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else if (c < 0x10000) {
    text->push_back(static_cast<char>(0xE0 | c >> 12));
    text->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    text->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  } else {
    text->push_back(static_cast<char>(0xF0 | c >> 18));
    text->push_back(static_cast<char>(0x80 | (c >> 12 & 0x3F)));
    text->push_back(static_cast<char>(0x80 | (c >> 6 & 0x3F)));
    text->push_back(static_cast<char>(0x80 | (c & 0x3F)));
  }
}

size_t AppendRepaired(std::string_view bytes, bool keep_tail, std::string* text) {
  size_t at = 0;
  while (at < bytes.size()) {
    const Utf8Step step = StepUtf8(bytes.substr(at));
    if (step.incomplete && keep_tail) break;
    if (step.valid)
      text->append(bytes.substr(at, step.size));
    else
      text->append("\xEF\xBF\xBD");
    at += step.size;
  }
  return at;
}

bool IsSpace(uint32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool AppendAlphabetBytes(std::string_view token, std::string* bytes) {
  static const std::array<int16_t, kAlphabetEnd> kByteOf = MakeAlphabet();
  const size_t before = bytes->size();
  for (size_t at = 0; at < token.size();) {
    const Utf8Step step = StepUtf8(token.substr(at));
    if (!step.valid || step.code_point >= kAlphabetEnd || kByteOf[step.code_point] < 0) {
      bytes->resize(before);
      return false;
    }
    bytes->push_back(static_cast<char>(kByteOf[step.code_point]));
    at += step.size;
  }
  return true;
}

}  // namespace rung::text
