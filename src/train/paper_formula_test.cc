#include "train/paper_formula.h"

#include <gtest/gtest.h>

#include "model/shapes.h"

namespace rung::train {
namespace {

constexpr double kGb = 1e9;

// By hand from h, L and a of the models: 34 s h L and 5 a s^2 L at s = 2048, b = 1.
TEST(PaperFormulaTest, LayersAsCountedByHand) {
  struct Row {
    const char* shape;
    double linear, attention;
  };
  for (const Row& row : {Row{"qwen2.5-0.5b", 1.50, 7.05}, Row{"qwen2.5-1.5b", 2.99, 7.05},
                         Row{"qwen2.5-3b", 5.13, 12.08}, Row{"qwen2.5-7b", 6.99, 16.44}}) {
    const FormulaMemory memory = QloraFormula(model::ShapeOf(row.shape).OrThrow(), 0, 2048, 2048);
    EXPECT_NEAR(memory.linear / kGb, row.linear, 0.005) << row.shape;
    EXPECT_NEAR(memory.attention / kGb, row.attention, 0.005) << row.shape;
  }
}

TEST(PaperFormulaTest, StatesAreTenBytesAParameter) {
  const model::Config config = model::ShapeOf("qwen2.5-7b").OrThrow();
  constexpr int64_t kTrained = 161480704;
  const FormulaMemory memory = QloraFormula(config, kTrained, 4096, 2048);
  // 7,615,616,512 parameters as the model's card has them.
  EXPECT_DOUBLE_EQ(memory.weights, 7615616512.0 / 2);
  EXPECT_DOUBLE_EQ(memory.parameters + memory.gradients + memory.optimizer, 10.0 * kTrained);
  EXPECT_DOUBLE_EQ(memory.low_rank, 4096.0 * kTrained / 3584);
  EXPECT_DOUBLE_EQ(memory.total(),
                   memory.weights + 10.0 * kTrained + memory.linear + memory.attention + memory.low_rank);
}

TEST(PaperFormulaTest, SequencesAddUpAndMatricesGrowWithTheirSquare) {
  const model::Config config = model::ShapeOf("llama-3.2-1b").OrThrow();
  const FormulaMemory one = QloraFormula(config, 1000, 512, 512),
                      four = QloraFormula(config, 1000, 2048, 512),
                      longer = QloraFormula(config, 1000, 2048, 2048);
  EXPECT_DOUBLE_EQ(four.linear, 4 * one.linear);
  EXPECT_DOUBLE_EQ(four.attention, 4 * one.attention);
  EXPECT_DOUBLE_EQ(longer.linear, four.linear);
  EXPECT_DOUBLE_EQ(longer.attention, 16 * one.attention);
  // A sequence that the batch cuts short is not longer than the batch.
  EXPECT_DOUBLE_EQ(QloraFormula(config, 1000, 512, 4096).total(), one.total());
}

TEST(PaperFormulaTest, LadderCountsRungsTapsAndOneLayer) {
  const model::Config config = model::ShapeOf("qwen2.5-7b").OrThrow();
  model::LadderSpec spec;
  spec.taps = {6, 13, 20, 27};
  spec.rungs = 6;
  spec.S = 224;
  spec.F = 608;
  spec.head_dim = 32;
  const FormulaMemory memory = LadderFormula(config, spec, 1000, 2048, 2048);
  EXPECT_DOUBLE_EQ(memory.linear, 34.0 * 2048 * 224 * 6);
  EXPECT_DOUBLE_EQ(memory.attention, 5.0 * 7 * 2048 * 2048 * 6);
  EXPECT_DOUBLE_EQ(memory.taps, 2.0 * 2048 * 3584 * 4);
  EXPECT_DOUBLE_EQ(memory.transient, 34.0 * 2048 * 3584 + 5.0 * 28 * 2048 * 2048);
  EXPECT_DOUBLE_EQ(memory.low_rank, 0.0);
}

}  // namespace
}  // namespace rung::train
