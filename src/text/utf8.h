// UTF-8 that may be broken, and the byte alphabet of byte-level BPE.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace rung::text {

struct Utf8Step {
  uint32_t code_point = 0;  // of a valid character
  uint32_t size = 0;  // bytes of the character, or of the longest prefix that could have begun one (>= 1)
  bool valid = false;
  bool incomplete = false;  // not valid, but more bytes might make it so
};

// What stands at the beginning of `bytes`, which is not empty.
Utf8Step StepUtf8(std::string_view bytes);

void AppendUtf8(uint32_t code_point, std::string* text);

// Appends `bytes`, each broken part as one U+FFFD. With `keep_tail` an incomplete character at the end is
// left out. Returns the number of bytes consumed.
size_t AppendRepaired(std::string_view bytes, bool keep_tail, std::string* text);

// Unicode White_Space: what \s means to the tokenizers that models are published with.
bool IsSpace(uint32_t code_point);

// Byte-level vocabularies write each byte as one printable character (GPT-2's table). True and the bytes
// appended when every character of `token` is in that alphabet; otherwise false and `bytes` is unchanged.
bool AppendAlphabetBytes(std::string_view token, std::string* bytes);

}  // namespace rung::text
