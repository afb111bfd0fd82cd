// One ladder step against PyTorch (tests/data/ladder, tools/make_ladder_golden.py), and the invariants of a
// step.
#include "train/step.h"

#include <gtest/gtest.h>

#include "model/test_support.h"
#include "ops/update.h"
#include "train/optimizer.h"

namespace rung::train {
namespace {

using model::Golden;

model::Backbone TinyBackbone(DType compute = DType::kF32) {
  model::BackboneOptions options;
  options.quantize = model::Quantize::kNone;
  options.compute = compute;
  options.positions = 128;
  return model::Backbone::Load("tests/data/families/llama3", options).OrThrow();
}

data::Batch BatchOf(const Golden& golden) {
  data::Batch batch;
  batch.ids = golden.Ints("ids");
  batch.target = golden.Ints("target");
  for (const int32_t start : golden.Ints("starts")) batch.starts.push_back(start);
  for (size_t s = 0; s + 1 < batch.starts.size(); ++s) {
    for (int64_t i = batch.starts[s]; i < batch.starts[s + 1]; ++i) {
      batch.position.push_back(static_cast<int32_t>(i - batch.starts[s]));
    }
  }
  return batch;
}

model::Ladder LadderOf(const Golden& golden, const model::Config& config, model::RungMemory memory) {
  model::LadderSpec spec;
  for (const int32_t tap : golden.Ints("taps")) spec.taps.push_back(tap);
  spec.rungs = std::stoll(golden.file().metadata().at("rungs"));
  spec.S = 32;
  spec.F = std::stoll(golden.file().metadata().at("inner"));
  spec.head_dim = std::stoll(golden.file().metadata().at("head_dim"));
  spec.gate = golden.file().metadata().at("gate") == "sum" ? model::Gate::kSum : model::Gate::kInterpolate;
  spec.memory = memory;
  model::Ladder ladder = model::Ladder::Make(config, spec, 1, true, 128);
  const auto fill = [&](const std::string& name, const Tensor& tensor) {
    const std::vector<float> values = golden.Floats(name);
    std::copy(values.begin(), values.end(), Out{tensor}.as<float>());
  };
  ladder.ForEachParam([&](nn::Param& param) { fill(param.name, param.value); });
  ladder.ForEachBuffer([&](const std::string& name, Tensor& tensor) { fill(name, tensor); });
  ladder.spec().output_scale = golden.Floats("output_scale")[0];
  return ladder;
}

std::vector<float> Flat(const Tensor& tensor) {
  const float* data = In(tensor).as<float>();
  return {data, data + tensor.size()};
}

// Loss of each target and the flat gradient of their sum.
struct Outcome {
  std::vector<float> loss, gradient;
};

Outcome RunStep(const model::Backbone& backbone, model::Ladder& ladder,
                const std::vector<data::Batch>& batches, const cpu::Context& context, DType compute) {
  Outcome outcome;
  float* gradient = Out{ladder.gradients()}.as<float>();
  std::fill_n(gradient, ladder.parameter_count(), 0.0f);
  for (const data::Batch& batch : batches) {
    const model::BatchInput input(batch);
    std::vector<float> loss(static_cast<size_t>(input.target_count()));
    model::PlanAndRun(context, compute, [&](Exec& ex) {
      Step(ex, backbone, &ladder, input, true, Out{View(loss.data(), 1, input.target_count())}, nullptr);
    });
    outcome.loss.insert(outcome.loss.end(), loss.begin(), loss.end());
  }
  outcome.gradient = Flat(ladder.gradients());
  return outcome;
}

class LadderStepTest : public testing::TestWithParam<const char*> {};

TEST_P(LadderStepTest, LossAndEveryGradientEqualPyTorch) {
  const Golden golden(std::string("tests/data/ladder/") + GetParam() + ".safetensors");
  const model::Backbone backbone = TinyBackbone();
  for (int isa = 0; isa <= static_cast<int>(cpu::BestIsa()); ++isa) {
    const cpu::Context context{static_cast<cpu::Isa>(isa), 2};
    model::Ladder ladder = LadderOf(golden, backbone.config(), model::RungMemory::kKeep);
    const Outcome outcome = RunStep(backbone, ladder, {BatchOf(golden)}, context, DType::kF32);
    double sum = 0;
    for (const float loss : outcome.loss) sum += static_cast<double>(loss);
    const auto targets = static_cast<double>(golden.Ints("loss.tokens")[0]);
    ASSERT_EQ(outcome.loss.size(), static_cast<size_t>(targets));
    EXPECT_NEAR(sum / targets, static_cast<double>(golden.Floats("loss.mean")[0]), 1e-5);
    ladder.ForEachParam([&](nn::Param& param) {
      std::vector<float> mean = Flat(param.grad);
      for (float& g : mean) g /= static_cast<float>(targets);
      EXPECT_LE(model::RelativeError(mean, golden.Floats("grad." + param.name)), 1e-4)
          << param.name << " on " << cpu::NameOf(context.isa);
    });
  }
}

TEST_P(LadderStepTest, OptimizerStepEqualsPyTorch) {
  const Golden golden(std::string("tests/data/ladder/") + GetParam() + ".safetensors");
  const model::Backbone backbone = TinyBackbone();
  model::Ladder ladder = LadderOf(golden, backbone.config(), model::RungMemory::kKeep);
  const cpu::Context context{cpu::BestIsa(), 2};
  RunStep(backbone, ladder, {BatchOf(golden)}, context, DType::kF32);
  OptimizerOptions options;
  options.weight_decay = 0.01;
  Optimizer optimizer(options, ladder.parameter_count());
  const Slab slab(1 << 16);
  Exec ex(Arena(slab.base(), slab.bytes()), context, DType::kF32);
  const double norm = optimizer.Update(ex, ladder, 1e-3, golden.Ints("loss.tokens")[0]).norm;
  EXPECT_NEAR(norm / static_cast<double>(golden.Floats("grad_norm")[0]), 1.0, 1e-5);
  int compared = 0;
  ladder.ForEachParam([&](nn::Param& param) {
    if (!golden.Has("adamw." + param.name)) return;
    ++compared;
    EXPECT_LE(model::RelativeError(Flat(param.value), golden.Floats("adamw." + param.name)), 1e-5)
        << param.name;
  });
  EXPECT_GE(compared, 4);
}

TEST_P(LadderStepTest, RecomputedRungsGiveTheSameBits) {
  const Golden golden(std::string("tests/data/ladder/") + GetParam() + ".safetensors");
  const model::Backbone backbone = TinyBackbone();
  const cpu::Context context{cpu::BestIsa(), 2};
  model::Ladder kept = LadderOf(golden, backbone.config(), model::RungMemory::kKeep);
  model::Ladder again = LadderOf(golden, backbone.config(), model::RungMemory::kRecompute);
  const Outcome a = RunStep(backbone, kept, {BatchOf(golden)}, context, DType::kF32);
  const Outcome b = RunStep(backbone, again, {BatchOf(golden)}, context, DType::kF32);
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.gradient, b.gradient);
}

INSTANTIATE_TEST_SUITE_P(All, LadderStepTest, testing::Values("step_sum", "step_interpolate", "step_free"));

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
  const Golden golden("tests/data/ladder/step_sum.safetensors");
  const model::Backbone backbone = TinyBackbone();
  const cpu::Context context{cpu::BestIsa(), 2};
  model::Ladder ladder = LadderOf(golden, backbone.config(), model::RungMemory::kKeep);
  const data::Batch whole = BatchOf(golden);
  const Outcome one = RunStep(backbone, ladder, {whole}, context, DType::kF32);
  const Outcome two =
      RunStep(backbone, ladder, {SequenceOf(whole, 0), SequenceOf(whole, 1)}, context, DType::kF32);
  // The same sums in another order: oneDNN blocks its products by the number of rows.
  EXPECT_LE(model::RelativeError(two.loss, one.loss), 1e-6);
  EXPECT_LE(model::RelativeError(two.gradient, one.gradient), 1e-5);
}

TEST(StepTest, SameInputGivesTheSameBits) {
  const Golden golden("tests/data/ladder/step_interpolate.safetensors");
  const DType compute = cpu::BestIsa() == cpu::Isa::kAvx512Bf16 ? DType::kBf16 : DType::kF32;
  const model::Backbone backbone = TinyBackbone(compute);
  const cpu::Context context{cpu::BestIsa(), 2};
  model::Ladder ladder = LadderOf(golden, backbone.config(), model::RungMemory::kKeep);
  const Outcome a = RunStep(backbone, ladder, {BatchOf(golden)}, context, compute);
  const Outcome b = RunStep(backbone, ladder, {BatchOf(golden)}, context, compute);
  EXPECT_EQ(a.loss, b.loss);
  EXPECT_EQ(a.gradient, b.gradient);
}

TEST(StepTest, ZeroUpProjectionIsTheBackbone) {
  const Golden golden("tests/data/ladder/step_sum.safetensors");
  const model::Backbone backbone = TinyBackbone();
  const cpu::Context context{cpu::BestIsa(), 2};
  model::LadderSpec spec;
  spec.taps = {0, 2};
  spec.rungs = 2;
  spec.S = 32;
  spec.F = 80;
  spec.output_scale = 35.0f;
  const model::Ladder ladder = model::Ladder::Make(backbone.config(), spec, 7, true, 128);
  const data::Batch batch = BatchOf(golden);
  const model::BatchInput input(batch);
  const int64_t M = input.target_count();
  std::vector<float> with(static_cast<size_t>(M)), without(static_cast<size_t>(M));
  std::vector<int32_t> best(static_cast<size_t>(M));
  const Out best_out{View(best.data(), 1, M)};
  model::PlanAndRun(context, DType::kF32, [&](Exec& ex) {
    Step(ex, backbone, &ladder, input, false, Out{View(with.data(), 1, M)}, &best_out);
    Step(ex, backbone, nullptr, input, false, Out{View(without.data(), 1, M)}, &best_out);
  });
  EXPECT_EQ(with, without);
}

TEST(StepTest, SeedDecidesTheInitialBits) {
  const model::Backbone backbone = TinyBackbone();
  model::LadderSpec spec;
  spec.taps = {2};
  spec.rungs = 2;
  spec.S = 32;
  spec.F = 80;
  const auto values = [&](uint64_t seed) {
    return Flat(model::Ladder::Make(backbone.config(), spec, seed, false, 128).values());
  };
  EXPECT_EQ(values(3), values(3));
  EXPECT_NE(values(3), values(4));
}

}  // namespace
}  // namespace rung::train
