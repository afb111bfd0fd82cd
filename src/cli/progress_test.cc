#include "cli/progress.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

#include "cli/duration.h"

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

TEST(Progress, WhatIsNoNumberHasNoSign) {
  Progress progress(ProgressKind::kPlain);
  train::StepReport step;
  step.step = 1;
  step.total_steps = 2;
  train::EvalReport eval;
  eval.loss = step.loss = -std::nan("");
  testing::internal::CaptureStderr();
  progress.Step(step);
  progress.Eval(eval);
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("step 1/2  loss nan  lr"), std::string::npos) << said;
  EXPECT_NE(said.find("step 0: loss nan over"), std::string::npos) << said;
}

TEST(FormatDuration, TakesTheUnitsThatFit) {
  EXPECT_EQ(FormatDuration(-1.0), "0.0 s");
  EXPECT_EQ(FormatDuration(59.94), "59.9 s");
  EXPECT_EQ(FormatDuration(59.96), "1 min 00 s");
  EXPECT_EQ(FormatDuration(3599.4), "59 min 59 s");
  EXPECT_EQ(FormatDuration(3599.6), "1 h 00 min");
  EXPECT_EQ(FormatDuration(90061.0), "25 h 01 min");
  EXPECT_EQ(FormatDuration(std::nan("")), "-");
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
