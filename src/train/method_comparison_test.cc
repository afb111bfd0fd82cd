#include "train/method_comparison.h"

#include <gtest/gtest.h>

namespace rung::train {
namespace {

constexpr const char* kConfig = "tests/data/plan/config.json";

TrainOptions Ranked(Method method, std::optional<int64_t> rejoin) {
  TrainOptions options;
  options.method = method;
  options.lora.r = 4;
  options.ladder.rejoin = rejoin;
  options.compute.context = {cpu::Isa::kBaseline, 1};
  return options;
}

// Of ladder and xladder, by what the options ask for.
TEST(MethodComparisonTest, ARankIsOfALadderThatIsAskedForAndRejoins) {
  const model::Config config = model::ReadConfig(kConfig).OrThrow();
  const auto ranks = [&](const TrainOptions& options) {
    const std::vector<MethodVariant> variants = MethodVariants(options, config);
    EXPECT_EQ(variants[2].options.lora.r, 4);
    EXPECT_EQ(variants[3].options.lora.r, 4);
    return std::pair(variants[0].options.lora.r, variants[1].options.lora.r);
  };
  using Pair = std::pair<int64_t, int64_t>;
  EXPECT_EQ(ranks(Ranked(Method::kLadder, std::nullopt)), Pair(4, 0));
  EXPECT_EQ(ranks(Ranked(Method::kLadder, 0)), Pair(0, 0));
  EXPECT_EQ(ranks(Ranked(Method::kLadder, 2)), Pair(4, 4));
  EXPECT_EQ(ranks(Ranked(Method::kXladder, std::nullopt)), Pair(0, 0));
  EXPECT_EQ(ranks(Ranked(Method::kLora, std::nullopt)), Pair(0, 0));
  EXPECT_EQ(ranks(Ranked(Method::kLora, 2)), Pair(4, 4));
  TrainOptions plain = Ranked(Method::kLadder, std::nullopt);
  plain.ladder.kind = model::RungKind::kPlain;
  EXPECT_EQ(ranks(plain), Pair(0, 0));
}

TEST(MethodComparisonTest, ShallowModelsDoNotRejoinByDefault) {
  TrainOptions options;
  EXPECT_EQ(RejoinOf(options, 3), 0);
  EXPECT_EQ(RejoinOf(options, 4), 1);
  EXPECT_EQ(RejoinOf(options, 30), 8);
  options.method = Method::kXladder;
  EXPECT_EQ(RejoinOf(options, 30), 0);
  options.ladder.rejoin = 5;
  EXPECT_EQ(RejoinOf(options, 30), 5);
}

// Each row of a plan that its formula does not give has a reason, and only those.
TEST(MethodComparisonTest, DifferencesAreOfTheRowsThatDiffer) {
  const PlanModel model = PlanModel::Open(kConfig).OrThrow();
  TrainOptions options = Ranked(Method::kLadder, 0);
  options.tokens = options.max_length = 256;
  const Comparison comparison = Compare(model, options, 256);
  ASSERT_EQ(comparison.methods.size(), 4u);
  ASSERT_EQ(comparison.columns.size(), 6u);
  EXPECT_EQ(&comparison.Of(options), &comparison.methods[0]);
  for (const auto& [method, formula] : {std::pair<size_t, size_t>(0, 5), {2, 4}}) {
    for (const auto& [item, bytes] : comparison.columns[method].items) {
      int64_t reasons = 0;
      for (const Difference& d : comparison.differences) {
        if (d.method != comparison.columns[method].name || d.item != item) continue;
        ++reasons;
        EXPECT_EQ(d.plan, bytes) << item;
        EXPECT_FALSE(d.reason.empty()) << item;
      }
      EXPECT_EQ(reasons, comparison.columns[formula].Bytes(item) == bytes ? 0 : 1) << item;
    }
  }
}

}  // namespace
}  // namespace rung::train
