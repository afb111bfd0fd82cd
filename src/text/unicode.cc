#include "text/unicode.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <cstddef>

#include "text/unicode_tables.h"

namespace rung::text {
namespace {

// The range that holds the code point, or nullptr.
template <class Range>
const Range* Find(const Range* ranges, size_t size, uint32_t c) {
  const Range* end = ranges + size;
  const Range* found =
      std::lower_bound(ranges, end, c, [](const Range& range, uint32_t point) { return range.last < point; });
  return found != end && found->first <= c ? found : nullptr;
}

utf8proc_category_t Category(uint32_t c) {
  const CategoryRange* newer =
      c < kNewCategories[0].first ? nullptr : Find(kNewCategories, kNewCategoriesSize, c);
  return newer != nullptr ? newer->category : utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

bool Between(utf8proc_category_t c, utf8proc_category_t first, utf8proc_category_t last) {
  return c >= first && c <= last;
}

constexpr std::string_view kNames[] = {"Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd",
                                       "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "Sm",
                                       "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co"};

}  // namespace

bool IsNumber(uint32_t c) {
  if (c < 0x80) return c >= '0' && c <= '9';
  return Between(Category(c), UTF8PROC_CATEGORY_ND, UTF8PROC_CATEGORY_NO) ||
         Find(kNewNumbers, kNewNumbersSize, c) != nullptr;
}

bool IsPunctuation(uint32_t c) {
  if (c < 0x80)
    return (c > 0x20 && c < '0') || (c > '9' && c < 'A') || (c > 'Z' && c < 'a') || (c > 'z' && c < 0x7F);
  if (Between(Category(c), UTF8PROC_CATEGORY_PC, UTF8PROC_CATEGORY_PO))
    return Find(kNotPunctuation, kNotPunctuationSize, c) == nullptr;
  return Find(kOtherPunctuation, kOtherPunctuationSize, c) != nullptr;
}

bool IsWordCharacter(uint32_t c) {
  const utf8proc_category_t category = Category(c);
  return Between(category, UTF8PROC_CATEGORY_LU, UTF8PROC_CATEGORY_NL) || category == UTF8PROC_CATEGORY_PC ||
         c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
         (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);  // circled and squared letters
}

bool IsAccent(uint32_t c) {
  if (c < 0x300) return false;
  if (Between(Category(c), UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_ME))
    return Find(kKeptMarks, kKeptMarksSize, c) == nullptr;
  return Find(kOtherMarks, kOtherMarksSize, c) != nullptr;
}

uint32_t Lower(uint32_t c) {
  if (c < 0x80) return c >= 'A' && c <= 'Z' ? c + 0x20 : c;
  if (const CaseRange* range = Find(kNewCapitals, kNewCapitalsSize, c))
    return static_cast<uint32_t>(static_cast<int64_t>(c) + range->distance);
  return static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

bool IsInert(uint32_t c) {
  return c >= kInert[0].first &&
         (Find(kInert, kInertSize, c) != nullptr || Find(kNewCategories, kNewCategoriesSize, c) != nullptr);
}

bool IsNewMark(uint32_t c) {
  const CategoryRange* range = Find(kNewCategories, kNewCategoriesSize, c);
  return range != nullptr && Between(range->category, UTF8PROC_CATEGORY_MN, UTF8PROC_CATEGORY_ME);
}

std::string NewerCodePoints(std::string_view property) {
  std::string out;
  for (size_t i = 0; i < kNewCategoriesSize; ++i) {
    const CategoryRange& range = kNewCategories[i];
    if (!property.empty() && kNames[range.category].starts_with(property))
      out += fmt::format("\\x{{{:X}}}-\\x{{{:X}}}", range.first, range.last);
  }
  return out;
}

}  // namespace rung::text
