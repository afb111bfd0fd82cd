#include "infer/sampler.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "base/error.h"
#include "infer/stop_watch.h"

namespace rung::infer {
namespace {

// Probabilities 0.5, 0.3, 0.15, 0.05 at ids 2, 0, 3, 1.
const std::vector<float> kLogits = {std::log(0.3f), std::log(0.05f), std::log(0.5f), std::log(0.15f)};
constexpr uint64_t kDraws = 20000;

std::map<int32_t, double> Shares(const SampleOptions& options, const std::vector<float>& logits = kLogits) {
  Sampler sampler(options);
  std::map<int32_t, double> shares;
  for (uint64_t i = 0; i < kDraws; ++i) {
    shares[sampler.Pick(logits.data(), static_cast<int64_t>(logits.size()), i)] += 1.0 / kDraws;
  }
  return shares;
}

// Three standard deviations of a share near 1/2.
constexpr double kTolerance = 0.011;

TEST(SamplerTest, ZeroTemperatureIsTheLargest) {
  Sampler sampler({});
  EXPECT_EQ(sampler.Pick(kLogits.data(), 4, 0), 2);
  const std::vector<float> tie = {1.0f, 3.0f, 3.0f};
  EXPECT_EQ(sampler.Pick(tie.data(), 3, 0), 1);
}

TEST(SamplerTest, SharesAreTheProbabilities) {
  auto shares = Shares({1.0, 1.0, 0, 1});
  EXPECT_NEAR(shares[2], 0.5, kTolerance);
  EXPECT_NEAR(shares[0], 0.3, kTolerance);
  EXPECT_NEAR(shares[3], 0.15, kTolerance);
  EXPECT_NEAR(shares[1], 0.05, kTolerance);
}

TEST(SamplerTest, TemperatureSharpens) {
  // Squares of the probabilities, normalised: 0.25, 0.09, 0.0225, 0.0025 over 0.365.
  auto shares = Shares({0.5, 1.0, 0, 1});
  EXPECT_NEAR(shares[2], 0.25 / 0.365, kTolerance);
  EXPECT_NEAR(shares[0], 0.09 / 0.365, kTolerance);
}

TEST(SamplerTest, TopKKeepsTheLargest) {
  auto shares = Shares({1.0, 1.0, 2, 1});
  EXPECT_EQ(shares.size(), 2u);
  EXPECT_NEAR(shares[2], 0.5 / 0.8, kTolerance);
  EXPECT_EQ(Shares({1.0, 1.0, 1, 1}).size(), 1u);
  EXPECT_EQ(Shares({1.0, 1.0, 100, 1}).size(), 4u);
}

TEST(SamplerTest, TopPKeepsTheSmallestSet) {
  EXPECT_EQ(Shares({1.0, 0.4, 0, 1}).size(), 1u);  // the first alone has 0.5
  auto shares = Shares({1.0, 0.7, 0, 1});
  EXPECT_EQ(shares.size(), 2u);
  EXPECT_NEAR(shares[2], 0.5 / 0.8, kTolerance);
  EXPECT_EQ(Shares({1.0, 0.9, 0, 1}).size(), 3u);
  EXPECT_EQ(Shares({1.0, 0.0, 0, 1}).size(), 1u);
  // Of the top 2, the first has 0.5 / 0.8 = 0.625.
  EXPECT_EQ(Shares({1.0, 0.6, 2, 1}).size(), 1u);
  EXPECT_EQ(Shares({1.0, 0.65, 2, 1}).size(), 2u);
}

TEST(SamplerTest, SameSeedSameChoices) {
  Sampler a({1.0, 1.0, 0, 3}), b({1.0, 1.0, 0, 3}), c({1.0, 1.0, 0, 4});
  int same = 0;
  for (uint64_t i = 0; i < 100; ++i) {
    const int32_t first = a.Pick(kLogits.data(), 4, i);
    EXPECT_EQ(first, b.Pick(kLogits.data(), 4, i));
    same += first == c.Pick(kLogits.data(), 4, i);
  }
  EXPECT_LT(same, 100);
}

TEST(SamplerTest, ImpossibleTokensAreNeverChosen) {
  std::vector<float> logits = kLogits;
  logits[2] = -std::numeric_limits<float>::infinity();
  EXPECT_FALSE(Shares({2.0, 1.0, 0, 1}, logits).contains(2));
}

TEST(SamplerTest, RefusesWhatIsNotANumber) {
  Sampler greedy({});
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    for (size_t at = 0; at < 4; ++at) {
      std::vector<float> logits = kLogits;
      logits[at] = bad;
      EXPECT_THROW(greedy.Pick(logits.data(), 4, 0), Error) << at;
    }
  }
}

TEST(StopWatchTest, HoldsBackWhatMayBecomeAStop) {
  const std::vector<std::string> stops = {"END", "", "\n\n"};
  StopWatch watch(stops);
  bool stopped = false;
  EXPECT_EQ(watch.Push("abcE", &stopped), "abc");
  EXPECT_EQ(watch.Push("N", &stopped), "");
  EXPECT_EQ(watch.Push("x\n", &stopped), "ENx");
  EXPECT_FALSE(stopped);
  EXPECT_EQ(watch.Push("yEND\n\nz", &stopped), "\ny");
  EXPECT_TRUE(stopped);
}

TEST(StopWatchTest, TheFirstStopWins) {
  const std::vector<std::string> stops = {"later", "la"};
  StopWatch watch(stops);
  bool stopped = false;
  EXPECT_EQ(watch.Push("see you la", &stopped), "see you ");
  EXPECT_TRUE(stopped);
}

TEST(StopWatchTest, TheRestIsGivenAtTheEnd) {
  const std::vector<std::string> stops = {"END"};
  StopWatch watch(stops);
  bool stopped = false;
  EXPECT_EQ(watch.Push("EN", &stopped), "");
  EXPECT_EQ(watch.Rest(), "EN");
}

}  // namespace
}  // namespace rung::infer
