// Training steps of every method against PyTorch (tests/data/{ladder,method,lora}; tools/make_*_golden.py),
// and the invariants of a step.
#include "train/step.h"

#include "ops/update.h"
#include "train/golden_step.h"
#include "train/optimizer.h"

namespace rung::train {
namespace {

using model::Golden;

class MethodStepTest : public testing::TestWithParam<const char*> {};

TEST_P(MethodStepTest, LossAndEveryGradientEqualPyTorch) {
  const GoldenStep step(GetParam());
  const Golden& golden = step.golden();
  const model::Backbone backbone = step.MakeBackbone();
  for (int isa = 0; isa <= static_cast<int>(cpu::BestIsa()); ++isa) {
    const cpu::Context context{static_cast<cpu::Isa>(isa), 2};
    model::Adapter adapter = step.MakeAdapter(backbone.config());
    const Outcome outcome = RunStep(backbone, adapter, {step.MakeBatch()}, context, DType::kF32);
    double sum = 0;
    for (const float loss : outcome.loss) sum += static_cast<double>(loss);
    const auto targets = static_cast<double>(golden.Ints("loss.tokens")[0]);
    ASSERT_EQ(outcome.loss.size(), static_cast<size_t>(targets));
    EXPECT_NEAR(sum / targets, static_cast<double>(golden.Floats("loss.mean")[0]), 1e-5);
    adapter.ForEachParam([&](nn::Param& param) {
      std::vector<float> mean = Flat(param.grad);
      for (float& g : mean) g /= static_cast<float>(targets);
      const std::vector<float> want = golden.Floats("grad." + param.name);
      if (std::all_of(want.begin(), want.end(), [](float g) { return g == 0.0f; })) {
        // A key's bias moves all scores of a query alike: what is not zero is rounding.
        for (const float g : mean) EXPECT_NEAR(g, 0.0f, 1e-6) << param.name;
        return;
      }
      EXPECT_LE(model::RelativeError(mean, want), 1e-4) << param.name << " on " << cpu::NameOf(context.isa);
    });
  }
}

TEST_P(MethodStepTest, RecomputingGivesTheSameBits) {
  const GoldenStep step(GetParam());
  const cpu::Context context{cpu::BestIsa(), 2};
  for (const DType compute : {DType::kF32, DType::kBf16}) {
    if (compute == DType::kBf16 && cpu::BestIsa() != cpu::Isa::kAvx512Bf16) continue;
    const model::Backbone backbone = step.MakeBackbone(compute);
    model::Adapter kept = step.MakeAdapter(backbone.config()), again = step.MakeAdapter(backbone.config());
    again.policy.rungs = model::RungMemory::kRecompute;
    again.policy.blocks = model::BlockMemory::kRecompute;
    const Outcome a = RunStep(backbone, kept, {step.MakeBatch()}, context, compute);
    const Outcome b = RunStep(backbone, again, {step.MakeBatch()}, context, compute);
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(a.gradient, b.gradient);
  }
}

// bf16 rounds activations to 8 bits: gradients lose that much, and nothing like a factor or a sign.
TEST_P(MethodStepTest, Bf16GradientsPointTheSameWay) {
  if (cpu::BestIsa() != cpu::Isa::kAvx512Bf16) GTEST_SKIP() << "no bf16 products on this machine";
  const GoldenStep step(GetParam());
  const cpu::Context context{cpu::BestIsa(), 2};
  const model::Backbone exact = step.MakeBackbone(), rounded = step.MakeBackbone(DType::kBf16);
  model::Adapter adapter = step.MakeAdapter(exact.config());
  const Outcome a = RunStep(exact, adapter, {step.MakeBatch()}, context, DType::kF32);
  const Outcome b = RunStep(rounded, adapter, {step.MakeBatch()}, context, DType::kBf16);
  double aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < a.gradient.size(); ++i) {
    const auto x = static_cast<double>(a.gradient[i]), y = static_cast<double>(b.gradient[i]);
    aa += x * x, bb += y * y, ab += x * y;
  }
  EXPECT_GT(ab / std::sqrt(aa * bb), 0.999);
  EXPECT_NEAR(std::sqrt(bb / aa), 1.0, 0.02);
}

INSTANTIATE_TEST_SUITE_P(All, MethodStepTest,
                         testing::Values("ladder/step_sum", "ladder/step_interpolate", "ladder/step_free",
                                         "method/ladder_vector", "method/ladder_plain",
                                         "method/ladder_grouped", "method/ladder_pooled",
                                         "method/ladder_pooled_uneven", "method/xladder",
                                         "method/rejoin_llama3", "method/rejoin_qwen2", "method/rejoin_qwen3",
                                         "lora/lora_llama3", "lora/lora_qwen2", "lora/lora_qwen3",
                                         "lora/lora_top1", "lora/combined_llama3"));

class OptimizerStepTest : public testing::TestWithParam<const char*> {};

TEST_P(OptimizerStepTest, EqualsPyTorch) {
  const GoldenStep step(GetParam());
  const model::Backbone backbone = step.MakeBackbone();
  model::Adapter adapter = step.MakeAdapter(backbone.config());
  const cpu::Context context{cpu::BestIsa(), 2};
  RunStep(backbone, adapter, {step.MakeBatch()}, context, DType::kF32);
  OptimizerOptions options;
  options.weight_decay = 0.01;
  Optimizer optimizer(options, adapter.params().begins);
  const Slab slab(1 << 16);
  Exec ex(Arena(slab.base(), slab.bytes()), context, DType::kF32);
  const Golden& golden = step.golden();
  const double norm = optimizer.Update(ex, adapter.params(), 1e-3, golden.Ints("loss.tokens")[0]).norm;
  EXPECT_NEAR(norm / static_cast<double>(golden.Floats("grad_norm")[0]), 1.0, 1e-5);
  int compared = 0;
  adapter.ForEachParam([&](nn::Param& param) {
    if (!golden.Has("adamw." + param.name)) return;
    ++compared;
    EXPECT_LE(model::RelativeError(Flat(param.value), golden.Floats("adamw." + param.name)), 1e-5)
        << param.name;
  });
  EXPECT_GE(compared, 4);
}

INSTANTIATE_TEST_SUITE_P(All, OptimizerStepTest,
                         testing::Values("ladder/step_sum", "ladder/step_interpolate", "ladder/step_free"));

// One sequence of a batch as a batch of its own.
data::Batch SequenceOf(const data::Batch& batch, size_t s) {
  data::Batch one;
  const auto begin = batch.starts[s], end = batch.starts[s + 1];
  one.ids.assign(batch.ids.begin() + begin, batch.ids.begin() + end);
  one.target.assign(batch.target.begin() + begin, batch.target.begin() + end);
  one.position.assign(batch.position.begin() + begin, batch.position.begin() + end);
  one.starts = {0, end - begin};
  return one;
}

TEST(StepTest, AccumulatedMicroBatchesEqualOneBatch) {
  const cpu::Context context{cpu::BestIsa(), 2};
  for (const char* name : {"ladder/step_sum", "lora/combined_llama3"}) {
    const GoldenStep step(name);
    const model::Backbone backbone = step.MakeBackbone();
    model::Adapter adapter = step.MakeAdapter(backbone.config());
    const data::Batch whole = step.MakeBatch();
    const Outcome one = RunStep(backbone, adapter, {whole}, context, DType::kF32);
    const Outcome two =
        RunStep(backbone, adapter, {SequenceOf(whole, 0), SequenceOf(whole, 1)}, context, DType::kF32);
    // The same sums in another order: oneDNN blocks its products by the number of rows.
    EXPECT_LE(model::RelativeError(two.loss, one.loss), 1e-6);
    EXPECT_LE(model::RelativeError(two.gradient, one.gradient), 1e-5);
  }
}

TEST(StepTest, SameInputGivesTheSameBits) {
  const DType compute = cpu::BestIsa() == cpu::Isa::kAvx512Bf16 ? DType::kBf16 : DType::kF32;
  const cpu::Context context{cpu::BestIsa(), 2};
  for (const char* name : {"ladder/step_interpolate", "method/rejoin_qwen3", "lora/lora_qwen2"}) {
    const GoldenStep step(name);
    const model::Backbone backbone = step.MakeBackbone(compute);
    model::Adapter adapter = step.MakeAdapter(backbone.config());
    const Outcome a = RunStep(backbone, adapter, {step.MakeBatch()}, context, compute);
    const Outcome b = RunStep(backbone, adapter, {step.MakeBatch()}, context, compute);
    EXPECT_EQ(a.loss, b.loss);
    EXPECT_EQ(a.gradient, b.gradient);
  }
}

TEST(StepTest, Int8TapsChangeLittle) {
  const GoldenStep step("ladder/step_sum");
  const model::Backbone backbone = step.MakeBackbone();
  const cpu::Context context{cpu::BestIsa(), 2};
  model::Adapter exact = step.MakeAdapter(backbone.config()), small = step.MakeAdapter(backbone.config());
  small.policy.taps = model::TapStorage::kInt8;
  const Outcome a = RunStep(backbone, exact, {step.MakeBatch()}, context, DType::kF32);
  const Outcome b = RunStep(backbone, small, {step.MakeBatch()}, context, DType::kF32);
  EXPECT_LE(model::RelativeError(b.loss, a.loss), 0.02);
  EXPECT_NE(a.loss, b.loss);
}

TEST(StepTest, DropoutIsAFunctionOfItsDraw) {
  const GoldenStep step("lora/lora_llama3");
  const model::Backbone backbone = step.MakeBackbone();
  const cpu::Context one{cpu::BestIsa(), 1}, two{cpu::BestIsa(), 2};
  model::AdapterSpec spec = step.Spec(backbone.config());
  const auto run = [&](double dropout, uint64_t draw, const cpu::Context& context, bool recompute) {
    spec.lora->dropout = dropout;
    model::Adapter adapter = model::Adapter::Make(backbone.config(), spec, 3, true, 128);
    adapter.ForEachParam([&](nn::Param& param) {  // B too, so that the pairs are seen
      const std::vector<float> values = step.golden().Floats(param.name);
      std::copy(values.begin(), values.end(), Out{param.value}.as<float>());
    });
    adapter.policy.blocks = recompute ? model::BlockMemory::kRecompute : model::BlockMemory::kKeep;
    return RunStep(backbone, adapter, {step.MakeBatch()}, context, DType::kF32, draw);
  };
  const Outcome first = run(0.3, 1, two, false);
  EXPECT_EQ(first.gradient, run(0.3, 1, two, true).gradient);
  // The head adds its partial sums thread by thread.
  EXPECT_LE(model::RelativeError(first.loss, run(0.3, 1, one, false).loss), 1e-6);
  EXPECT_NE(first.loss, run(0.3, 2, two, false).loss);
  EXPECT_EQ(run(0.3, 0, two, false).loss, run(0.0, 1, two, false).loss);
}

TEST(StepTest, AFreshAdapterIsTheBackbone) {
  const GoldenStep step("ladder/step_sum");
  const model::Backbone backbone = step.MakeBackbone();
  const cpu::Context context{cpu::BestIsa(), 2};
  model::AdapterSpec ladder = step.Spec(backbone.config()), rejoining = ladder, pairs;
  rejoining.ladder->rejoin = 2;
  rejoining.ladder->taps = {0};
  pairs.lora = model::LoraSpec{4, 8.0, 0.0, false, model::LoraTargets(backbone.config()), {0, 1, 2}};
  const data::Batch batch = step.MakeBatch();
  const model::BatchInput input(batch);
  const int64_t M = input.target_count();
  for (const model::AdapterSpec& spec : {ladder, rejoining, pairs}) {
    const model::Adapter adapter = model::Adapter::Make(backbone.config(), spec, 7, true, 128);
    std::vector<float> with(static_cast<size_t>(M)), without(static_cast<size_t>(M));
    std::vector<int32_t> best(static_cast<size_t>(M));
    const Out best_out{View(best.data(), 1, M)};
    model::PlanAndRun(context, DType::kF32, [&](Exec& ex) {
      Step(ex, backbone, &adapter, input, false, Out{View(with.data(), 1, M)}, &best_out);
      Step(ex, backbone, nullptr, input, false, Out{View(without.data(), 1, M)}, &best_out);
    });
    EXPECT_EQ(with, without);
  }
}

TEST(StepTest, SeedDecidesTheInitialBits) {
  const GoldenStep step("lora/combined_llama3");
  const model::Backbone backbone = step.MakeBackbone();
  const auto values = [&](uint64_t seed) {
    return Flat(model::Adapter::Make(backbone.config(), step.Spec(backbone.config()), seed, false, 128)
                    .params()
                    .values);
  };
  EXPECT_EQ(values(3), values(3));
  EXPECT_NE(values(3), values(4));
}

}  // namespace
}  // namespace rung::train
