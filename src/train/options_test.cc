#include "train/options.h"

#include <gtest/gtest.h>

namespace rung::train {
namespace {

model::Config SmallConfig() {
  model::Config config;
  config.family = "strange";
  config.L = 4, config.C = 64, config.F = 96, config.Hq = 4, config.Hkv = 2, config.D = 16, config.V = 100;
  return config;
}

std::string RefusalOf(const TrainOptions& options, const model::Config& config) {
  const Result<model::AdapterSpec> spec = ResolveAdapter(options, config);
  EXPECT_FALSE(spec.ok());
  if (spec.ok()) return "";
  EXPECT_EQ(spec.failure().code, ExitCode::kUsage);
  return spec.failure().message;
}

TEST(OptionsTest, RungsTakeTheBackbonesManner) {
  model::Config config = SmallConfig();
  model::LadderSpec spec = *ResolveAdapter({}, config).OrThrow().ladder;
  EXPECT_EQ(spec.norm, nn::NormKind::kRms);
  EXPECT_TRUE(spec.rotary);
  config.norm = nn::NormKind::kLayer;
  config.no_rope = true;
  spec = *ResolveAdapter({}, config).OrThrow().ladder;
  EXPECT_EQ(spec.norm, nn::NormKind::kLayer);
  EXPECT_FALSE(spec.rotary);
}

// docs/results/methods.md; the last tapped layer is the one below the joining point.
TEST(OptionsTest, ALadderRejoinsUnlessToldOtherwise) {
  model::Config config = SmallConfig();
  config.L = 30;
  TrainOptions options;
  const auto ladder = [&] { return *ResolveAdapter(options, config).OrThrow().ladder; };
  EXPECT_EQ(ladder().rejoin, 8);
  EXPECT_EQ(ladder().taps.size(), 5u);
  EXPECT_EQ(ladder().taps.back(), 21);
  options.ladder.rejoin = 0;
  EXPECT_EQ(ladder().rejoin, 0);
  EXPECT_EQ(ladder().taps.back(), 29);
  options.ladder.rejoin.reset();
  options.ladder.taps = "5,25";
  EXPECT_NE(RefusalOf(options, config).find("--rejoin 0"), std::string::npos);
  options.ladder.taps = "";
  options.ladder.kind = model::RungKind::kPlain;
  EXPECT_EQ(ladder().rejoin, 0);
  options.ladder.kind = model::RungKind::kDecoder;
  options.method = Method::kXladder;
  EXPECT_EQ(ladder().rejoin, 0);
  options.ladder.rejoin = 12;
  EXPECT_EQ(ladder().rejoin, 12);
}

TEST(OptionsTest, RungsTakeAnotherMannerWhenToldTo) {
  TrainOptions options;
  options.ladder.norm = nn::NormKind::kLayer;
  options.ladder.rotary = false;
  const model::LadderSpec spec = *ResolveAdapter(options, SmallConfig()).OrThrow().ladder;
  EXPECT_EQ(spec.norm, nn::NormKind::kLayer);
  EXPECT_FALSE(spec.rotary);
}

TEST(OptionsTest, AMannerThatRungsCannotHaveIsRefused) {
  TrainOptions options;
  options.ladder.rotary = true;
  options.ladder.kind = model::RungKind::kPlain;
  EXPECT_NE(RefusalOf(options, SmallConfig()).find("--rung-positions"), std::string::npos);
  options.ladder.kind = model::RungKind::kDecoder;
  options.ladder.rotary = false;
  options.ladder.init = LadderInit::kPruned;
  EXPECT_NE(RefusalOf(options, SmallConfig()).find("--rung-positions"), std::string::npos);
}

TEST(OptionsTest, RungsAreNotMadeOfBlocksThatAreUnlikeThem) {
  TrainOptions options;
  options.ladder.init = LadderInit::kPruned;
  ASSERT_TRUE(ResolveAdapter(options, SmallConfig()).ok());
  model::Config config = SmallConfig();
  config.norm = nn::NormKind::kLayer;
  const std::string message = RefusalOf(options, config);
  EXPECT_NE(message.find("strange"), std::string::npos) << message;
  EXPECT_NE(message.find("LayerNorm"), std::string::npos) << message;
  EXPECT_NE(message.find("--ladder-init random"), std::string::npos) << message;
}

}  // namespace
}  // namespace rung::train
