#include "cli/progress.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace rung::cli {
namespace {

TEST(BarLine, GivesWayToItsTextAndIsNeverWiderThanTheTerminal) {
  const std::string text = "step 10/20  loss 1.2345";
  EXPECT_EQ(BarLine(0.5, text, 100, false), "[============            ] " + text);
  EXPECT_EQ(BarLine(0.5, text, 36, false), "[=====     ] " + text);
  EXPECT_EQ(BarLine(0.5, text, 30, false), text);
  EXPECT_EQ(BarLine(0.5, text, 7, false), "step 10");
  EXPECT_EQ(BarLine(0.5, text, 0, false), "");
  EXPECT_EQ(BarLine(0.5, text, -1, false), "");
  for (int width = 0; width < 120; ++width) {
    EXPECT_LE(BarLine(0.7, text, width, false).size(), static_cast<size_t>(width));
  }
}

TEST(Progress, ASkippedStepIsNotInTheAverageLoss) {
  Progress progress(ProgressKind::kPlain);
  train::StepReport step;
  step.total_steps = 3;
  testing::internal::CaptureStderr();
  for (const double loss : {2.0, std::nan(""), 2.0}) {
    ++step.step;
    step.loss = loss;
    progress.Step(step);
  }
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("step 3/3  loss 2.0000"), std::string::npos) << said;
}

TEST(BarLine, SharesBeyondTheEndsAreTheEnds) {
  EXPECT_EQ(BarLine(-1.0, "x", 12, false), "[        ] x");
  EXPECT_EQ(BarLine(7.0, "x", 12, false), "[========] x");
}

TEST(BarLine, ColourIsTheFilledPartAlone) {
  EXPECT_EQ(BarLine(0.5, "x", 12, true), "[\x1b[32m====\x1b[0m    ] x");
}

}  // namespace
}  // namespace rung::cli
