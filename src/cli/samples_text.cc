#include "cli/samples_text.h"

#include <fmt/format.h>

namespace rung::cli {
namespace {

constexpr size_t kBytes = 160;

bool Continues(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }

}  // namespace

std::string ShortText(const std::string& text, bool keep_end) {
  std::string line = text;
  for (char& byte : line) {
    if (static_cast<unsigned char>(byte) < 0x20 || byte == 0x7f) byte = ' ';
  }
  if (line.size() <= kBytes) return line;
  // No character is cut in two.
  size_t cut = keep_end ? line.size() - kBytes : kBytes;
  while (cut < line.size() && cut > 0 && Continues(line[cut])) keep_end ? ++cut : --cut;
  return keep_end ? "..." + line.substr(cut) : line.substr(0, cut) + "...";
}

std::string SamplesText(const std::vector<train::Sample>& samples) {
  std::string text = "answers to held-out prompts, before and after training:";
  for (const train::Sample& sample : samples) {
    text += fmt::format("\n  prompt    {}\n  expected  {}\n  before    {}\n  after     {}",
                        ShortText(sample.prompt, true), ShortText(sample.expected, false),
                        ShortText(sample.before, false), ShortText(sample.after, false));
  }
  return text;
}

}  // namespace rung::cli
