// Training steps of every method against PyTorch (tests/data/{ladder,method,lora}; tools/make_*_golden.py),
// and the invariants of a step.
#include "train/step.h"

#include <cmath>
#include <cstring>

#include "ops/update.h"
#include "train/golden_run.h"
#include "train/optimizer.h"

namespace rung::train {
namespace {

using model::Golden;

bool IsZero(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float x) { return x == 0.0f; });
}

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
      if (IsZero(want)) {
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

// Cosine of a tensor's gradient with the exact one, and the ratio of their norms.
struct Agreement {
  double cosine, ratio;
};
Agreement Compare(const std::vector<float>& got, const std::vector<float>& exact) {
  double aa = 0, bb = 0, ab = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    const auto x = static_cast<double>(exact[i]), y = static_cast<double>(got[i]);
    aa += x * x, bb += y * y, ab += x * y;
  }
  return {ab / std::sqrt(aa * bb), std::sqrt(bb / aa)};
}

// bf16 rounds each number by up to 2^-9. Some fifty of them stand between a loss and the gradient of a lowest
// layer: a tensor is off by a few hundredths, nearly all across its direction (a cosine of 0.998 is 6 %), and
// its length by less. ReLU's slope jumps: where rounding changes the sign of a neuron, one term of the sum
// over rows goes or comes whole, so the layer below it gets 14 %. A single number has no other direction to
// be off in, and a gate's is a difference of large sums: 5 %.
//
// The models of the later families are half as wide and have half as many rows, so each sum averages fewer
// roundings: 5 % of the length. Their ReLU has 64 neurons: one that changes its sign is 11 % of a layer.
struct Bound {
  double cosine, length;
};
Bound BoundOf(const GoldenStep& step, const model::Adapter& adapter, const model::Config& config,
              const NamedGradient& gradient) {
  const bool small = step.golden().Ints("ids").size() < 40;
  if (small) return config.activation == cpu::Activation::kRelu ? Bound{0.98, 0.11} : Bound{0.99, 0.05};
  const bool plain = adapter.ladder() && adapter.ladder()->spec().kind == model::RungKind::kPlain;
  const bool below_relu = plain && gradient.name.find(".block.up.") != std::string::npos;
  return {below_relu ? 0.99 : 0.998, gradient.values.size() == 1 ? 0.05 : 0.02};
}

TEST_P(MethodStepTest, Bf16GradientsPointTheSameWay) {
  if (cpu::BestIsa() != cpu::Isa::kAvx512Bf16) GTEST_SKIP() << "no bf16 products on this machine";
  const GoldenStep step(GetParam());
  const cpu::Context context{cpu::BestIsa(), 2};
  const model::Backbone exact = step.MakeBackbone(), rounded = step.MakeBackbone(DType::kBf16);
  model::Adapter adapter = step.MakeAdapter(exact.config());
  RunStep(exact, adapter, {step.MakeBatch()}, context, DType::kF32);
  const std::vector<NamedGradient> want = GradientsOf(adapter);
  RunStep(rounded, adapter, {step.MakeBatch()}, context, DType::kBf16);
  const std::vector<NamedGradient> got = GradientsOf(adapter);
  for (size_t i = 0; i < want.size(); ++i) {
    SCOPED_TRACE(want[i].name);
    if (IsZero(step.golden().Floats("grad." + want[i].name))) continue;  // what is left is rounding
    const Agreement agreement = Compare(got[i].values, want[i].values);
    const Bound bound = BoundOf(step, adapter, exact.config(), want[i]);
    EXPECT_GT(agreement.cosine, bound.cosine);
    EXPECT_NEAR(agreement.ratio, 1.0, bound.length);
  }
}

INSTANTIATE_TEST_SUITE_P(All, MethodStepTest,
                         testing::Values("ladder/step_sum", "ladder/step_interpolate", "ladder/step_free",
                                         "method/ladder_vector", "method/ladder_plain",
                                         "method/ladder_grouped", "method/ladder_pooled",
                                         "method/ladder_pooled_uneven", "method/xladder",
                                         "method/rejoin_llama3", "method/rejoin_qwen2", "method/rejoin_qwen3",
                                         "lora/lora_llama3", "lora/lora_qwen2", "lora/lora_qwen3",
                                         "lora/lora_top1", "lora/combined_llama3"));

// Each family's own parts on the way of the gradient (tools/make_family_steps.py).
INSTANTIATE_TEST_SUITE_P(
    Families, MethodStepTest,
    testing::Values("lora/lora_opt", "lora/lora_opt_350m", "lora/lora_gpt2", "lora/lora_gpt_neox",
                    "lora/lora_gpt_neox_serial", "lora/lora_gemma", "lora/lora_gemma2", "lora/lora_gemma3",
                    "lora/lora_phi3", "lora/lora_phi3_long", "lora/lora_olmo2", "lora/lora_granite",
                    "lora/lora_smollm3", "lora/lora_mistral_window", "lora/lora_qwen3_yarn",
                    "method/rejoin_opt", "method/rejoin_opt_350m", "method/rejoin_gpt2",
                    "method/rejoin_gpt_neox", "method/rejoin_gemma", "method/rejoin_gemma2",
                    "method/rejoin_gemma3", "method/rejoin_phi3", "method/rejoin_phi3_long",
                    "method/rejoin_olmo2", "method/rejoin_granite", "method/rejoin_smollm3",
                    "method/rejoin_mistral_window", "method/rejoin_qwen3_yarn"));

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

// Gradients of one step, taps kept as `taps`. `without`: the tap of this rung is taken to be zero.
std::vector<NamedGradient> LadderGradients(const GoldenStep& step, const model::Backbone& backbone,
                                           model::TapStorage taps, const std::string& without,
                                           std::vector<float>* loss) {
  model::Adapter adapter = step.MakeAdapter(backbone.config());
  adapter.policy.taps = taps;
  adapter.ForEachBuffer([&](const std::string& name, Tensor& tensor) {
    // (x - mean) * inv_deviation
    if (!without.empty() && name.starts_with(without) && name.ends_with("inv_deviation")) {
      std::fill_n(Out{tensor}.as<float>(), tensor.size(), 0.0f);
    }
  });
  *loss = RunStep(backbone, adapter, {step.MakeBatch()}, {cpu::BestIsa(), 2}, DType::kF32).loss;
  return GradientsOf(adapter);
}

// The largest of the tensors' errors: the length of the difference over that of the exact gradient.
double LargestError(const std::vector<NamedGradient>& got, const std::vector<NamedGradient>& exact) {
  double largest = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    double apart = 0, size = 0;
    for (size_t k = 0; k < exact[i].values.size(); ++k) {
      const auto want = static_cast<double>(exact[i].values[k]);
      apart += std::pow(static_cast<double>(got[i].values[k]) - want, 2);
      size += want * want;
    }
    largest = std::max(largest, std::sqrt(apart / size));
  }
  return largest;
}

// Of 64 numbers the largest is about three times their root mean square. So a code's step is 3/127 of it and
// the error of a tap, even within half a step, 3/127/sqrt(12) = 0.7 %. A gradient is a product of up to three
// factors made of taps (in attention: a query, a key, a value): 2 %. Losses move by that part of what the
// taps do to them.
TEST(StepTest, Int8TapsChangeLittle) {
  constexpr double kBound = 3 * 0.007;
  const GoldenStep step("ladder/step_sum");
  const model::Backbone backbone = step.MakeBackbone();
  std::vector<float> loss, small_loss, lost;
  const auto exact = LadderGradients(step, backbone, model::TapStorage::kCompute, "", &loss);
  const auto small = LadderGradients(step, backbone, model::TapStorage::kInt8, "", &small_loss);
  EXPECT_LE(LargestError(small, exact), kBound);
  EXPECT_NE(small_loss, loss);
  // The bounds would see a tap go missing.
  for (const char* without : {"rungs.0", "rungs.1", "rungs"}) {
    EXPECT_GT(LargestError(LadderGradients(step, backbone, model::TapStorage::kInt8, without, &lost), exact),
              10 * kBound)
        << without;
  }
  EXPECT_LE(model::RelativeError(small_loss, loss), kBound * model::RelativeError(lost, loss));
}

// Whatever an earlier step left in memory is not seen: NaN everywhere gives the bits that zeros give. An odd
// rank is the case that reads pairs of columns.
TEST(StepTest, OldContentsOfTheArenaAreNotRead) {
  const cpu::Context context{cpu::BestIsa(), 2};
  const DType compute = cpu::BestIsa() == cpu::Isa::kAvx512Bf16 ? DType::kBf16 : DType::kF32;
  for (const char* name : {"ladder/step_interpolate", "method/ladder_plain", "method/ladder_pooled_uneven",
                           "method/rejoin_qwen3", "lora/lora_qwen2", "lora/combined_llama3"}) {
    const GoldenStep step(name);
    const model::Backbone backbone = step.MakeBackbone(compute);
    for (const int64_t rank : {1, 3, 8}) {
      model::AdapterSpec spec = step.Spec(backbone.config());
      if (!spec.lora && rank != 8) continue;
      if (spec.lora) spec.lora->R = rank;
      model::Adapter adapter = model::Adapter::Make(backbone.config(), spec, 5, true, 128);
      adapter.ForEachParam([](nn::Param& param) {  // nothing may be zero
        float* value = Out{param.value}.as<float>();
        for (int64_t i = 0; i < param.value.size(); ++i) value[i] += 0.01f * static_cast<float>(i % 7 - 3);
      });
      const data::Batch batch = step.MakeBatch();
      const model::BatchInput input(batch);
      std::vector<float> loss(static_cast<size_t>(input.target_count()));
      const auto run = [&](Exec& ex) {
        Step(ex, backbone, &adapter, input, true, Out{View(loss.data(), 1, input.target_count())}, nullptr);
      };
      Exec plan = Exec::Planning(context, compute);
      run(plan);
      std::vector<std::vector<float>> gradients;
      for (const int old : {0x00, 0xff}) {
        const Slab slab(plan.arena().peak().bytes);
        std::memset(slab.base(), old, slab.bytes());
        Exec ex(Arena(slab.base(), slab.bytes()), context, compute);
        const Tensor sums = adapter.params().gradients;
        std::fill_n(Out{sums}.as<float>(), sums.size(), 0.0f);
        run(ex);
        gradients.push_back(Flat(sums));
      }
      EXPECT_TRUE(gradients[0] == gradients[1]) << name << " rank " << rank;
      for (const float g : gradients[1]) ASSERT_TRUE(std::isfinite(g)) << name << " rank " << rank;
    }
  }
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
