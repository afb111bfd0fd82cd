// Classes of characters as the `tokenizers` package has them. Its parts carry different Unicode versions, and
// ids depend on them: regular expressions know Unicode 16, normal forms 9, punctuation 8, numbers 17.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace rung::text {

bool IsNumber(uint32_t code_point);         // what the pre-tokenizer Digits cuts out
bool IsPunctuation(uint32_t code_point);    // what the pre-tokenizer Punctuation cuts out
bool IsWordCharacter(uint32_t code_point);  // \w of the pre-tokenizer Whitespace and of single_word
bool IsAccent(uint32_t code_point);         // what the normalizer StripAccents takes away

// Lower case of one character that is not U+0130, whose lower case is two.
uint32_t Lower(uint32_t code_point);

// Newer than the normal forms: neither decomposes, nor is reordered, nor composes.
bool IsInert(uint32_t code_point);

// A mark newer than Unicode 14, which belongs to the grapheme cluster before it.
bool IsNewMark(uint32_t code_point);

// The code points that \p{property} (a letter such as L, or two such as Lu) means beyond Unicode 14, as
// \x{..}-\x{..} for use inside [...]. Empty for other properties.
std::string NewerCodePoints(std::string_view property);

}  // namespace rung::text
