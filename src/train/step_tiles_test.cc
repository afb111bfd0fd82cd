// Batches of more rows than a tile: a step's rows are cut into tiles of taps, of inputs of low-rank pairs and
// of inner activations, and no cut may show. The golden batches are too small to be cut.
#include <random>

#include "train/golden_run.h"

namespace rung::train {
namespace {

bool HasBf16() { return cpu::BestIsa() == cpu::Isa::kAvx512Bf16; }

// The golden's sequences `copies` times with other ids, and targets where it has targets.
data::Batch BigBatch(const data::Batch& golden, int64_t V, int copies) {
  std::mt19937 random(5);
  const auto id = [&] { return static_cast<int32_t>(random() % static_cast<uint32_t>(V)); };
  data::Batch big;
  big.starts = {0};
  for (int copy = 0; copy < copies; ++copy) {
    const int64_t first = big.rows();
    for (size_t n = 0; n < golden.ids.size(); ++n) {
      big.ids.push_back(id());
      big.target.push_back(golden.target[n] < 0 ? -1 : id());
      big.position.push_back(golden.position[n]);
    }
    for (size_t s = 1; s < golden.starts.size(); ++s) big.starts.push_back(first + golden.starts[s]);
  }
  return big;
}

struct BigCase {
  const char* name;
  model::TapStorage taps = model::TapStorage::kCompute;
  DType compute = DType::kF32;
};
class BigBatchTest : public testing::TestWithParam<BigCase> {};

TEST_P(BigBatchTest, GradientIsTheSumOverItsSequences) {
  if (GetParam().compute == DType::kBf16 && !HasBf16()) GTEST_SKIP() << "no bf16 products on this machine";
  const GoldenStep step(GetParam().name);
  const cpu::Context context{cpu::BestIsa(), 2};
  const model::Backbone backbone = step.MakeBackbone(GetParam().compute);
  const data::Batch big = BigBatch(step.MakeBatch(), backbone.config().V, 12);
  for (const int64_t end : {256, 512}) {  // of a tile, inside of a sequence
    ASSERT_LT(end, big.rows());
    ASSERT_EQ(std::count(big.starts.begin(), big.starts.end(), end), 0);
  }
  std::vector<data::Batch> sequences;
  for (size_t s = 0; s + 1 < big.starts.size(); ++s) sequences.push_back(SequenceOf(big, s));
  model::Adapter adapter = step.MakeAdapter(backbone.config());
  adapter.policy.taps = GetParam().taps;
  const Outcome whole = RunStep(backbone, adapter, {big}, context, GetParam().compute);
  const std::vector<NamedGradient> got = GradientsOf(adapter);
  const Outcome parts = RunStep(backbone, adapter, sequences, context, GetParam().compute);
  const std::vector<NamedGradient> want = GradientsOf(adapter);
  EXPECT_LE(model::RelativeError(whole.loss, parts.loss), 1e-6);
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_LE(model::RelativeError(got[i].values, want[i].values), 1e-5) << want[i].name;
  }
}

// In bf16 only pairs are compared: a trained rung's f32 products round by the number of rows, and what is
// rounded to bf16 after them may go the other way.
INSTANTIATE_TEST_SUITE_P(
    All, BigBatchTest,
    testing::Values(BigCase{"ladder/step_sum"}, BigCase{"ladder/step_sum", model::TapStorage::kInt8},
                    BigCase{"method/ladder_pooled"}, BigCase{"lora/lora_qwen3"},
                    BigCase{"lora/lora_qwen3", model::TapStorage::kCompute, DType::kBf16},
                    BigCase{"lora/combined_llama3"}, BigCase{"method/rejoin_qwen2"}));

// A frozen block forward and back over the golden's 53 rows.
struct BlockRun {
  std::vector<float> y, y_alone, dx, dloras;  // y_alone: of a forward pass that keeps nothing
  uint64_t launches = 0;                      // as a hash
};

struct BlockCase {
  const char* name;
  model::Quantize quantize;
  DType compute;
};
class MlpTileTest : public testing::TestWithParam<BlockCase> {
 protected:
  MlpTileTest()
      : step_(GetParam().name),
        backbone_(step_.MakeBackbone(GetParam().compute, GetParam().quantize)),
        adapter_(step_.MakeAdapter(backbone_.config())) {}

  BlockRun Run(int64_t mlp_rows) {
    nn::DecoderBlock block = backbone_.block(0);
    block.shape.mlp_rows = mlp_rows;
    const model::PackedRows rows(step_.golden().Ints("starts"));
    const int64_t N = rows.layout.rows(), C = block.shape.C;
    nn::BlockCall call{rows.layout, backbone_.rope(0)};
    if (adapter_.lora()) call.loras = adapter_.lora()->layer(0);
    std::vector<float> x(static_cast<size_t>(N * C));
    std::mt19937 random(9);
    std::normal_distribution<float> normal;
    for (float& v : x) v = normal(random);
    BlockRun run;
    run.y.resize(x.size());
    run.y_alone.resize(x.size());
    run.dx = x;
    const Tensor gradients = adapter_.params().gradients;
    std::fill_n(Out{gradients}.as<float>(), gradients.size(), 0.0f);
    model::PlanAndRun({cpu::BestIsa(), 2}, GetParam().compute, [&](Exec& ex) {
      KeepFrame kept(ex.arena());
      nn::DecoderBlock::Saved saved;
      block.Forward(ex, View(x.data(), N, C), call, Out{View(run.y.data(), N, C)}, &saved);
      block.Backward(ex, call, saved, Acc{View(run.dx.data(), N, C)});
      block.Forward(ex, View(x.data(), N, C), call, Out{View(run.y_alone.data(), N, C)}, nullptr);
      run.launches = ex.fingerprint();
    });
    run.dloras = Flat(gradients);
    return run;
  }

  GoldenStep step_;
  model::Backbone backbone_;
  model::Adapter adapter_;
};

// Tiles of more than 8 rows: fewer are multiplied without panels, which adds in another order. Gradients of
// pairs are sums over rows, tile by tile.
TEST_P(MlpTileTest, TilesOfTheMlpGiveTheSameBits) {
  if (GetParam().compute == DType::kBf16 && !HasBf16()) GTEST_SKIP() << "no bf16 products on this machine";
  const BlockRun tiles = Run(24), whole = Run(int64_t{1} << 20);
  EXPECT_NE(tiles.launches, whole.launches);
  EXPECT_EQ(tiles.y, whole.y);
  EXPECT_EQ(tiles.y_alone, whole.y);
  EXPECT_EQ(tiles.dx, whole.dx);
  if (adapter_.lora()) {
    EXPECT_LE(model::RelativeError(tiles.dloras, whole.dloras), 1e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(All, MlpTileTest,
                         testing::Values(BlockCase{"ladder/step_sum", model::Quantize::kNone, DType::kF32},
                                         BlockCase{"ladder/step_sum", model::Quantize::kNf4, DType::kF32},
                                         BlockCase{"ladder/step_sum", model::Quantize::kNf4, DType::kBf16},
                                         BlockCase{"lora/lora_qwen2", model::Quantize::kNone, DType::kF32},
                                         BlockCase{"lora/lora_qwen3", model::Quantize::kNone, DType::kF32},
                                         BlockCase{"lora/lora_qwen3", model::Quantize::kNf4, DType::kBf16}));

}  // namespace
}  // namespace rung::train
