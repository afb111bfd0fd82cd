#include "data/lengths.h"

#include <gtest/gtest.h>

namespace rung::data {
namespace {

TEST(Lengths, BinsHoldEachLengthOnce) {
  for (const int64_t longest : {3, 4, 14, 15, 16, 1000}) {
    Lengths lengths;
    for (int64_t length = 3; length <= longest; ++length) lengths.sorted.push_back(length);
    const std::vector<LengthBin> bins = lengths.Bins(12);
    EXPECT_LE(bins.size(), 12u) << longest;
    EXPECT_EQ(bins.front().low, 3);
    EXPECT_GE(bins.back().high, longest);
    int64_t counted = 0;
    for (size_t i = 0; i < bins.size(); ++i) {
      counted += bins[i].count;
      if (i > 0) {
        EXPECT_EQ(bins[i].low, bins[i - 1].high + 1);
      }
      EXPECT_EQ(bins[i].high - bins[i].low, bins[0].high - bins[0].low);
    }
    EXPECT_EQ(counted, longest - 2);
  }
}

TEST(Lengths, AShareIsOfTheExamples) {
  const Lengths lengths{{2, 3, 3, 8, 90}, 106, 0};
  EXPECT_EQ(lengths.At(0.0), 2);
  EXPECT_EQ(lengths.At(0.5), 3);
  EXPECT_EQ(lengths.At(1.0), 90);
}

}  // namespace
}  // namespace rung::data
