#include "model/base_formats.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <string_view>
#include <vector>

#include "base/text.h"

namespace rung::model {
namespace {

constexpr std::string_view kSingle = "-single";
constexpr const char* kFloat = "float";

std::string WithoutLevels(const std::string& format) {
  return format.ends_with(kSingle) ? format.substr(0, format.size() - kSingle.size()) : format;
}

// What is compared.
std::string Kind(const std::string& format) {
  return format == "f32" || format == "f16" || format == "bf16" ? kFloat : format;
}

std::map<std::string, int64_t> Kinds(const std::map<std::string, int64_t>& formats) {
  std::map<std::string, int64_t> kinds;
  for (const auto& [format, count] : formats) kinds[Kind(format)] += count;
  return kinds;
}

// "nf4", or "nf4 (203 matrices), bf16 (7 matrices)".
std::string Text(const std::map<std::string, int64_t>& formats) {
  if (formats.size() == 1) return Printable(formats.begin()->first);
  std::vector<std::string> parts;
  for (const auto& [format, count] : formats) {
    parts.push_back(fmt::format("{} ({} matri{})", Printable(format), count, count == 1 ? "x" : "ces"));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

std::string FormatName(const format::Matrix& matrix) {
  std::string name(format::Of(matrix.format).name);
  if (matrix.scales.absmax && !matrix.scales.codes) name += kSingle;
  return name;
}

std::string DigestName(const std::string& format) { return Kind(WithoutLevels(format)); }

BaseFormats WithoutScaleLevels(const BaseFormats& formats) {
  BaseFormats without = formats;
  without.blocks.clear();
  for (const auto& [format, count] : formats.blocks) without.blocks[WithoutLevels(format)] += count;
  without.embedding = WithoutLevels(formats.embedding);
  without.head = WithoutLevels(formats.head);
  return without;
}

std::string Describe(const BaseFormats& formats) {
  std::string text =
      fmt::format("blocks in {}, embedding in {}", Text(formats.blocks), Printable(formats.embedding));
  if (!formats.head.empty()) text += ", head in " + Printable(formats.head);
  return text;
}

std::string Difference(const BaseFormats& trained, const BaseFormats& here) {
  if (trained.empty() || here.empty()) return "";
  std::vector<std::string> parts;
  if (Kinds(trained.blocks) != Kinds(here.blocks)) {
    parts.push_back(
        fmt::format("the blocks were in {}, here they are in {}", Text(trained.blocks), Text(here.blocks)));
  }
  const auto compare = [&](const char* what, const std::string& then, const std::string& now) {
    if (Kind(then) == Kind(now)) return;
    const auto named = [](const std::string& format) {
      return format.empty() ? std::string("the embedding") : "in " + Printable(format);
    };
    parts.push_back(fmt::format("the {} was {}, here it is {}", what, named(then), named(now)));
  };
  compare("embedding", trained.embedding, here.embedding);
  compare("head", trained.head, here.head);
  if (parts.empty() && trained.digest != here.digest) {
    parts.push_back(
        fmt::format("the formats of the blocks, {}, were those of other matrices", Text(trained.blocks)));
  }
  return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace rung::model
