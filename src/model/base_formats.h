// How the numbers of a frozen model are stored. An adapter learns beside weights as they were rounded; beside
// other ones its answers are others.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "format/format.h"

namespace rung::model {

struct BaseFormats {
  // How many matrices of the blocks have which format, by FormatName.
  std::map<std::string, int64_t> blocks;
  std::string embedding;
  std::string head;    // empty: the embedding's
  std::string digest;  // HashText of the formats of all matrices in their places

  bool empty() const { return blocks.empty(); }  // nobody knows
  bool operator==(const BaseFormats&) const = default;
};

// As format::Info names it; "nf4-single" and "fp4-single" have one level of scales. Of a view without data
// nobody can tell: it is named as if it had two.
std::string FormatName(const format::Matrix& matrix);
// What `digest` takes for it: f32, f16 and bf16 are one, and so are levels of scales.
std::string DigestName(const std::string& format);
// As of views without data.
BaseFormats WithoutScaleLevels(const BaseFormats& formats);

// "blocks in nf4, embedding in bf16, head in bf16".
std::string Describe(const BaseFormats& formats);
// What `here` has otherwise than what an adapter was trained beside, as "the blocks were in nf4, here they
// are in bf16". Empty: nothing, or it is not known of one of them. f32, f16 and bf16 are alike.
std::string Difference(const BaseFormats& trained, const BaseFormats& here);

}  // namespace rung::model
