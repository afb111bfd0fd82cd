// Fisher information against PyTorch (tests/data/prune/qwen2_fisher, tools/make_prune_golden.py), training
// steps of pruned ladders, and whole runs that begin with one.
#include "train/fisher.h"

#include <fmt/format.h>

#include "model/adapter_file.h"
#include "train/golden_run.h"
#include "train/run.h"

namespace rung::train {
namespace {

using model::BlockMatrix;
using model::Golden;

ComputeOptions Compute(int isa, int threads, DType compute) {
  return ComputeOptions{{static_cast<cpu::Isa>(isa), threads}, compute};
}

// The sequences of a golden step as examples. Row n of an example predicts its id n+1; a last row predicts
// nothing, hence the id that is added is never looked at.
std::vector<data::Example> Examples(const Golden& golden) {
  const std::vector<int32_t> ids = golden.Ints("ids"), target = golden.Ints("target"),
                             starts = golden.Ints("starts");
  std::vector<data::Example> examples;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    data::Example example;
    example.learn.push_back(0);
    for (auto n = static_cast<size_t>(starts[s]); n < static_cast<size_t>(starts[s + 1]); ++n) {
      example.ids.push_back(ids[n]);
      example.learn.push_back(target[n] >= 0);
    }
    example.ids.push_back(0);
    examples.push_back(example);
  }
  return examples;
}

std::vector<float> MatrixOf(const Fisher& fisher, const model::Backbone& backbone, int64_t layer,
                            BlockMatrix m) {
  const nn::Linear& linear = model::LinearOf(backbone.block(layer), m);
  std::vector<float> values(static_cast<size_t>(linear.out_features() * linear.in_features()));
  const model::Importance importance = fisher.importance();
  for (int64_t row = 0; row < linear.out_features(); ++row) {
    importance(layer, m, row, values.data() + row * linear.in_features());
  }
  return values;
}

TEST(FisherTest, SquaredGradientsEqualAutograd) {
  const GoldenStep step("prune/qwen2_fisher");
  const Golden& golden = step.golden();
  const model::Backbone backbone = step.MakeBackbone();
  const std::vector<data::Example> examples = Examples(golden);
  const char* parts[] = {"q", "k", "v", "o", "gate", "up", "down"};
  for (int isa = 0; isa <= static_cast<int>(cpu::BestIsa()); ++isa) {
    // Layer 0 too, so that one measured layer lies below another.
    const Fisher fisher(Compute(isa, 2, DType::kF32), backbone, {0, 1}, examples);
    for (int m = 0; m < model::kBlockMatrices; ++m) {
      const std::vector<float> got = MatrixOf(fisher, backbone, 1, static_cast<BlockMatrix>(m));
      const std::vector<float> want = golden.Floats(fmt::format("fisher.{}", parts[m]));
      EXPECT_LE(model::RelativeError(got, want), 1e-4) << parts[m];
    }
  }
}

TEST(FisherTest, SelectionEqualsTheReference) {
  const GoldenStep step("prune/qwen2_fisher");
  const Golden& golden = step.golden();
  const model::Backbone backbone = step.MakeBackbone();
  const model::LadderSpec spec = *step.Spec(backbone.config()).ladder;
  const Fisher fisher(Compute(0, 1, DType::kF32), backbone, spec.taps, Examples(golden));
  const model::PrunedSelection selection = model::SelectPruned(backbone, spec, fisher.importance()).OrThrow();
  const auto expect = [&](const std::vector<int64_t>& got, const std::string& name) {
    EXPECT_EQ(std::vector<int32_t>(got.begin(), got.end()), golden.Ints(name)) << name;
  };
  expect(selection.channels, "channels");
  expect(selection.rope_pairs, "rope_pairs");
  expect(selection.layers[0].q_rows, "0.q_rows");
  expect(selection.layers[0].k_rows, "0.k_rows");
  expect(selection.layers[0].v_rows, "0.v_rows");
  expect(selection.layers[0].o_cols, "0.o_cols");
  expect(selection.layers[0].neurons, "0.neurons");
}

// The same backbone in bf16 ranks what matters alike, with the measured blocks in f32 either way.
TEST(FisherTest, Bf16MeasuresTheSame) {
  if (cpu::BestIsa() != cpu::Isa::kAvx512Bf16) GTEST_SKIP() << "no bf16 products on this machine";
  const GoldenStep step("prune/qwen2_fisher");
  const model::Backbone exact = step.MakeBackbone(), rounded = step.MakeBackbone(DType::kBf16);
  const int isa = static_cast<int>(cpu::BestIsa());
  const std::vector<data::Example> examples = Examples(step.golden());
  const Fisher a(Compute(isa, 2, DType::kF32), exact, {1}, examples);
  const Fisher b(Compute(isa, 2, DType::kBf16), rounded, {1}, examples);
  for (const BlockMatrix m : {BlockMatrix::kQ, BlockMatrix::kDown}) {
    EXPECT_LE(model::RelativeError(MatrixOf(b, rounded, 1, m), MatrixOf(a, exact, 1, m)), 0.05);
  }
}

TEST(FisherTest, AnExampleWithoutTargetsCountsForNothing) {
  const GoldenStep step("prune/qwen2_fisher");
  const model::Backbone backbone = step.MakeBackbone();
  std::vector<data::Example> examples = Examples(step.golden());
  const ComputeOptions compute = Compute(0, 1, DType::kF32);
  const Fisher without(compute, backbone, {1}, examples);
  examples.push_back(examples[0]);
  std::fill(examples.back().learn.begin(), examples.back().learn.end(), uint8_t{0});
  const Fisher with(compute, backbone, {1}, examples);
  EXPECT_EQ(MatrixOf(with, backbone, 1, BlockMatrix::kUp), MatrixOf(without, backbone, 1, BlockMatrix::kUp));
}

class PrunedStepTest : public testing::TestWithParam<const char*> {};

TEST_P(PrunedStepTest, LossAndEveryGradientEqualPyTorch) {
  const GoldenStep step(GetParam());
  const Golden& golden = step.golden();
  const model::Backbone backbone = step.MakeBackbone();
  model::Adapter adapter = step.MakeAdapter(backbone.config());
  ASSERT_FALSE(adapter.ladder()->spec().rope_pairs.empty());
  const Outcome outcome = RunStep(backbone, adapter, {step.MakeBatch()}, {cpu::BestIsa(), 2}, DType::kF32);
  double sum = 0;
  for (const float loss : outcome.loss) sum += static_cast<double>(loss);
  const auto targets = static_cast<double>(golden.Ints("loss.tokens")[0]);
  EXPECT_NEAR(sum / targets, static_cast<double>(golden.Floats("loss.mean")[0]), 1e-5);
  adapter.ForEachParam([&](nn::Param& param) {
    std::vector<float> mean = Flat(param.grad);
    for (float& g : mean) g /= static_cast<float>(targets);
    EXPECT_LE(model::RelativeError(mean, golden.Floats("grad." + param.name)), 1e-4) << param.name;
  });
}

INSTANTIATE_TEST_SUITE_P(All, PrunedStepTest,
                         testing::Values("prune/llama3_32", "prune/llama3_8", "prune/qwen2_32",
                                         "prune/qwen2_12", "prune/qwen2_fisher"));

class PrunedRunTest : public testing::TestWithParam<LadderInit> {
 protected:
  void SetUp() override {
    folder_ =
        std::filesystem::temp_directory_path() / fmt::format("rung_pruned_{}", static_cast<int>(GetParam()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  TrainOptions Options(const std::string& out) const {
    TrainOptions options;
    options.model = "tests/data/models/tinystories-656k";
    options.data = {{"examples/stories/train.jsonl"}};
    options.out = folder_ / out;
    options.compute.context = {cpu::BestIsa(), 2};
    options.tokens = 128;
    options.max_length = 96;
    options.max_steps = 6;
    options.ladder.init = GetParam();
    options.ladder.fisher_samples = 3;
    return options;
  }

  void Run(const TrainOptions& options, int64_t interrupt_at = 0) {
    std::atomic<bool> interrupt{false};
    RunEvents events;
    events.on_step = [&](const StepReport& step) {
      losses_.push_back(step.loss);
      if (step.step == interrupt_at) interrupt = true;
    };
    events.on_note = [&](const std::string& line) { notes_ += line + "\n"; };
    RunTraining(options, events, interrupt);
  }

  Path folder_;
  std::vector<double> losses_;
  std::string notes_;
};

TEST_P(PrunedRunTest, LearnsAndResumesToTheSameBytes) {
  const TrainOptions whole = Options("whole");
  TrainOptions broken = Options("broken");
  Run(whole);
  EXPECT_LT(losses_.back(), losses_.front());
  EXPECT_EQ(notes_.find("Fisher information of 3 examples") != std::string::npos,
            GetParam() == LadderInit::kFisher);
  Run(broken, 3);
  broken.resume = true;
  Run(broken);
  for (const char* file : {"adapter_model.safetensors", "adapter_config.json"}) {
    EXPECT_EQ(ReadTextFile(whole.out / file, 1 << 26).OrThrow(),
              ReadTextFile(broken.out / file, 1 << 26).OrThrow());
  }
  const model::Config config = model::ReadConfig(whole.model).OrThrow();
  const model::Adapter adapter = model::LoadAdapter(whole.out, config, false, 96).OrThrow();
  const model::LadderSpec& spec = adapter.ladder()->spec();
  EXPECT_EQ(static_cast<int64_t>(spec.rope_pairs.size()), spec.head_dim / 2);
}

TEST_P(PrunedRunTest, RefusesSettingsThatHaveNoMeaningForPrunedRungs) {
  const std::pair<const char*, std::function<void(LadderOptions&)>> changes[] = {
      {"--side-heads", [](LadderOptions& o) { o.heads = 2; }},
      {"--tap-map", [](LadderOptions& o) { o.tap_map = model::TapMap::kPooled; }},
      {"--ladder-init", [](LadderOptions& o) { o.kind = model::RungKind::kPlain; }},
      {"--fisher-samples", [](LadderOptions& o) { o.fisher_samples = 0; }},
      {"--width", [](LadderOptions& o) { o.width = 4096; }}};
  const model::Config config = model::ReadConfig(Options("").model).OrThrow();
  for (const auto& [flag, change] : changes) {
    TrainOptions options = Options("refused");
    change(options.ladder);
    const Result<model::AdapterSpec> spec = ResolveAdapter(options, config);
    ASSERT_FALSE(spec.ok()) << flag;
    EXPECT_EQ(spec.failure().code, ExitCode::kUsage) << flag;
    EXPECT_NE(spec.failure().message.find(flag), std::string::npos) << spec.failure().message;
  }
  const model::Config normed = model::ReadConfig("tests/data/families/qwen3").OrThrow();
  const Result<model::AdapterSpec> spec = ResolveAdapter(Options("refused"), normed);
  ASSERT_FALSE(spec.ok());
  EXPECT_NE(spec.failure().message.find("--ladder-init"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(All, PrunedRunTest, testing::Values(LadderInit::kPruned, LadderInit::kFisher));

}  // namespace
}  // namespace rung::train
