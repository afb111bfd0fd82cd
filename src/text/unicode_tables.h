// Differences between the Unicode versions of our libraries and those of the reference tokenizers, as sorted
// ranges of code points, both ends included.
#pragma once

#include <utf8proc.h>

#include <cstddef>
#include <cstdint>

namespace rung::text {

struct CodeRange {
  uint32_t first, last;
};
struct CategoryRange {
  uint32_t first, last;
  utf8proc_category_t category;
};
struct CaseRange {
  uint32_t first, last;
  int32_t distance;
};

extern const CategoryRange kNewCategories[];
extern const CodeRange kInert[], kKeptMarks[], kOtherMarks[], kNotPunctuation[], kOtherPunctuation[],
    kNewNumbers[];
extern const CaseRange kNewCapitals[];
extern const size_t kNewCategoriesSize, kInertSize, kKeptMarksSize, kOtherMarksSize, kNotPunctuationSize,
    kOtherPunctuationSize, kNewNumbersSize, kNewCapitalsSize;

}  // namespace rung::text
