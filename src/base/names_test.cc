#include "base/names.h"

#include <gtest/gtest.h>

namespace rung {
namespace {

enum class Colour { kRed, kBlue, kNone };
constexpr Named<Colour> kColours[] = {{"red", Colour::kRed}, {"blue", Colour::kBlue}};
static_assert(NamesAll(kColours, Colour::kBlue));
static_assert(!NamesAll(kColours, Colour::kNone));
constexpr Named<Colour> kTwice[] = {{"red", Colour::kRed}, {"red", Colour::kBlue}};
static_assert(!NamesAll(kTwice, Colour::kBlue));

TEST(Names, GoBothWays) {
  EXPECT_STREQ(NameIn(kColours, Colour::kBlue), "blue");
  EXPECT_STREQ(NameIn(kColours, Colour::kNone), "");
  EXPECT_EQ(ValueIn(kColours, "red"), Colour::kRed);
  EXPECT_EQ(ValueIn(kColours, "re"), std::nullopt);
  EXPECT_EQ(ValueIn(kColours, ""), std::nullopt);
  EXPECT_EQ(NamesIn(kColours), (std::vector<std::string>{"red", "blue"}));
}

}  // namespace
}  // namespace rung
