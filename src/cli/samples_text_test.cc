#include "cli/samples_text.h"

#include <gtest/gtest.h>

namespace rung::cli {
namespace {

TEST(SamplesTextTest, CutsBetweenCharacters) {
  EXPECT_EQ(ShortText("a\nb\x1b[0m", true), "a b [0m");
  const std::string euro = "\xe2\x82\xac";
  std::string text;
  for (int i = 0; i < 100; ++i) text += euro;  // 300 bytes
  for (const bool keep_end : {true, false}) {
    for (const char* pad : {"", "a", "bb"}) {
      std::string cut = ShortText(keep_end ? text + pad : pad + text, keep_end);
      EXPECT_NE(cut.find("..."), std::string::npos);
      cut.erase(cut.find("..."), 3);
      EXPECT_LE(cut.size(), 160u);
      EXPECT_GE(cut.size(), 157u);
      EXPECT_EQ((cut.size() - std::string(pad).size()) % 3, 0u) << cut.size();
      EXPECT_EQ(cut.find(euro), keep_end ? 0u : std::string(pad).size());
    }
  }
}

TEST(SamplesTextTest, ShowsBothAnswers) {
  EXPECT_EQ(SamplesText({{"2 + 2", "4", "five", "4"}}),
            "answers to held-out prompts, before and after training:\n"
            "  prompt    2 + 2\n  expected  4\n  before    five\n  after     4");
}

}  // namespace
}  // namespace rung::cli
