// Strings as Python sees them: indexed by code point, with their provenance kept. A byte that is not part of
// well-formed UTF-8 counts as one character.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_value.h"

namespace rung::text::jinja {

size_t CharLength(std::string_view text, size_t at);     // bytes of the character at `at`
int32_t CodePoint(std::string_view text, size_t at);     // -1: a broken byte
void AppendUtf8(std::string& out, uint32_t code_point);  // at most U+10FFFF, no surrogate
bool IsSpace(int32_t code_point);                        // str.isspace of Python
int64_t CountChars(std::string_view text);
std::vector<size_t> CharStarts(std::string_view text);  // and the size at the end

// Offset of the next `needle` at or after `from`, or npos. Linear in the haystack.
size_t FindText(std::string_view text, std::string_view needle, size_t from);

enum class Side { kLeft, kRight, kBoth };
Text Strip(const Text& text, Side side, const std::string* chars);  // chars null: whitespace
Text Slice(const Text& text, size_t begin, size_t end);             // bytes
// limit < 0: all occurrences. A new text without an origin of its own takes that of the bytes it replaces.
Text Replace(const Text& text, std::string_view from, const Text& to, int64_t limit);
// separator null: runs of whitespace. from_right: the limit counts from the end.
std::vector<Text> Split(const Text& text, const std::string* separator, int64_t limit, bool from_right);
std::vector<Text> SplitLines(const Text& text, bool keep_ends);

enum class Case { kUpper, kLower, kCapitalize, kTitle, kJinjaTitle };
Text ChangeCase(const Text& text, Case to);

}  // namespace rung::text::jinja
