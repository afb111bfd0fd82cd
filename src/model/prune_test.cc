// Pruned rungs against an implementation in numpy and PyTorch (tests/data/prune, tools/make_prune_golden.py)
// and against the blocks that they were made of. Their training steps: train/fisher_test.cc.
#include "model/prune.h"

#include <fmt/format.h>

#include "model/adapter.h"
#include "model/test_support.h"

namespace rung::model {
namespace {

Backbone LoadExact(const std::string& name) {
  BackboneOptions options;
  options.recipe.matrices = Quantize::kNone;
  options.positions = 128;
  return Backbone::Load("tests/data/families/" + name, options).OrThrow();
}

LadderSpec Shaped(const Config& config, int64_t S, std::vector<int64_t> taps, int64_t rungs) {
  LadderSpec spec;
  spec.S = S;
  spec.taps = std::move(taps);
  spec.rungs = rungs;
  EXPECT_TRUE(ShapePruned(config, &spec).ok());
  return spec;
}

Adapter Fill(const Backbone& backbone, LadderSpec spec, const PrunedSelection& selection) {
  spec.rope_pairs = selection.rope_pairs;
  AdapterSpec adapter_spec;
  adapter_spec.ladder = spec;
  Adapter adapter = Adapter::Make(backbone.config(), adapter_spec, 5, false, 128);
  FillPruned(backbone, selection, adapter.ladder());
  return adapter;
}

std::vector<int32_t> Small(const std::vector<int64_t>& values) { return {values.begin(), values.end()}; }

std::vector<float> Values(const Tensor& tensor) {
  const float* data = In(tensor).as<float>();
  return {data, data + tensor.size()};
}

struct Case {
  const char *golden, *model;
  int64_t S, rungs;
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.golden << " " << c.model; }

class PruneTest : public testing::TestWithParam<Case> {};

TEST_P(PruneTest, SelectionAndRungsEqualTheReference) {
  const Golden golden("tests/data/prune/" + std::string(GetParam().golden) + ".safetensors");
  const Backbone backbone = LoadExact(GetParam().model);
  std::vector<int64_t> taps;
  for (const int32_t tap : golden.Ints("taps")) taps.push_back(tap);
  const LadderSpec spec = Shaped(backbone.config(), GetParam().S, taps, GetParam().rungs);
  const auto& wanted = golden.file().metadata();
  EXPECT_EQ(std::to_string(spec.heads), wanted.at("heads"));
  EXPECT_EQ(std::to_string(spec.kv_heads), wanted.at("kv_heads"));
  EXPECT_EQ(std::to_string(spec.head_dim), wanted.at("head_dim"));
  EXPECT_EQ(std::to_string(spec.F), wanted.at("inner"));

  const PrunedSelection selection = SelectPruned(backbone, spec, Magnitude(backbone)).OrThrow();
  EXPECT_EQ(Small(selection.channels), golden.Ints("channels"));
  EXPECT_EQ(Small(selection.rope_pairs), golden.Ints("rope_pairs"));
  ASSERT_EQ(selection.layers.size(), taps.size());
  for (size_t i = 0; i < taps.size(); ++i) {
    const PrunedLayer& layer = selection.layers[i];
    const auto name = [&](const char* part) { return fmt::format("{}.{}", i, part); };
    if (backbone.config().rope.half) {
      EXPECT_EQ(Small(layer.q_rows), golden.Ints(name("q_rows"))) << i;
      EXPECT_EQ(Small(layer.k_rows), golden.Ints(name("k_rows"))) << i;
    }
    EXPECT_EQ(Small(layer.v_rows), golden.Ints(name("v_rows"))) << i;
    EXPECT_EQ(Small(layer.o_cols), golden.Ints(name("o_cols"))) << i;
    EXPECT_EQ(Small(layer.neurons), golden.Ints(name("neurons"))) << i;
  }

  const Adapter adapter = Fill(backbone, spec, selection);
  int compared = 0;
  adapter.ForEachParam([&](nn::Param& param) {
    const std::vector<float> got = Values(param.value);
    if (param.name == "up.weight") {
      EXPECT_EQ(got, std::vector<float>(got.size(), 0.0f));
    } else {
      EXPECT_EQ(got, golden.Floats(param.name)) << param.name;
      ++compared;
    }
  });
  EXPECT_EQ(compared, 9 * GetParam().rungs + static_cast<int64_t>(taps.size()));
}

INSTANTIATE_TEST_SUITE_P(All, PruneTest,
                         testing::Values(Case{"llama3_32", "llama3", 32, 2}, Case{"llama3_8", "llama3", 8, 3},
                                         Case{"qwen2_32", "qwen2", 32, 2}, Case{"qwen2_12", "qwen2", 12, 2},
                                         Case{"llama3_32", "llama3.gguf", 32, 2},
                                         Case{"llama3_8", "llama3.gguf", 8, 3},
                                         Case{"qwen2_32", "qwen2.gguf", 32, 2}));

// The output of a block on two sequences of random rows.
std::vector<float> RunBlock(const nn::DecoderBlock& block, const ops::RopeTable& rope) {
  const PackedRows rows({0, 13, 40});
  const int64_t N = rows.layout.rows(), C = block.shape.C;
  std::vector<float> x(static_cast<size_t>(N * C)), y(x.size());
  uint32_t state = 1;
  for (float& value : x) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<float>(static_cast<double>(state) / 2147483648.0 - 1.0);
  }
  PlanAndRun({cpu::BestIsa(), 2}, DType::kF32, [&](Exec& ex) {
    block.Forward(ex, View(x.data(), N, C), {rows.layout, rope}, Out{View(y.data(), N, C)}, nullptr);
  });
  return y;
}

// Pairs of rows of both kinds, scaled frequencies of both kinds (config.json's, rope_freqs), heads in groups.
TEST(WholePruneTest, ARungOfAllChannelsIsTheBlock) {
  for (const char* name : {"llama3", "llama3.gguf", "llama2", "mistral", "smollm2", "smollm2.gguf"}) {
    const Backbone backbone = LoadExact(name);
    const Config& config = backbone.config();
    const LadderSpec spec = Shaped(config, config.C, {0, 1}, 2);
    EXPECT_EQ(spec.heads, config.Hq) << name;
    EXPECT_EQ(spec.kv_heads, config.Hkv) << name;
    EXPECT_EQ(spec.head_dim, config.D) << name;
    EXPECT_EQ(spec.F, config.F) << name;
    const Adapter adapter = Fill(backbone, spec, SelectPruned(backbone, spec, Magnitude(backbone)).OrThrow());
    for (int64_t j = 0; j < 2; ++j) {
      const std::vector<float> rung =
          RunBlock(adapter.ladder()->rungs()[static_cast<size_t>(j)].block, adapter.ladder()->rope());
      EXPECT_LE(RelativeError(rung, RunBlock(backbone.block(j), backbone.rope(j))), 1e-5) << name << " " << j;
    }
  }
}

TEST(PruneShapeTest, FollowsTheGroupingOfTheBackbone) {
  Config config;
  config.C = 576, config.F = 1536, config.Hq = 9, config.Hkv = 3, config.D = 64;
  const auto shape = [&](int64_t S) {
    const LadderSpec spec = Shaped(config, S, {0}, 1);
    return std::vector<int64_t>{spec.heads, spec.kv_heads, spec.head_dim, spec.F};
  };
  EXPECT_EQ(shape(128), (std::vector<int64_t>{2, 1, 64, 336}));
  EXPECT_EQ(shape(192), (std::vector<int64_t>{3, 1, 64, 512}));
  EXPECT_EQ(shape(384), (std::vector<int64_t>{6, 2, 64, 1024}));
  EXPECT_EQ(shape(32), (std::vector<int64_t>{1, 1, 32, 80}));
  EXPECT_EQ(shape(2), (std::vector<int64_t>{1, 1, 2, 16}));
  EXPECT_EQ(shape(576), (std::vector<int64_t>{9, 3, 64, 1536}));
}

TEST(PruneShapeTest, RefusesWhatARungCannotBe) {
  Config config;
  config.C = 64, config.F = 96, config.Hq = 4, config.Hkv = 2, config.D = 16;
  LadderSpec spec;
  for (const int64_t S : {0, 1, 31, 66}) {
    spec.S = S;
    EXPECT_FALSE(ShapePruned(config, &spec).ok()) << S;
  }
  spec.S = 32;
  ASSERT_TRUE(ShapePruned(config, &spec).ok());
  config.family = "strange";
  const std::function<void(Config&)> unlike[] = {[](Config& c) { c.qk_norm = nn::QkNorm::kHead; },
                                                 [](Config& c) { c.qkv = nn::QkvRows::kStacked; },
                                                 [](Config& c) { c.fused_gate_up = true; },
                                                 [](Config& c) { c.norm = nn::NormKind::kLayer; },
                                                 [](Config& c) { c.parallel = true; },
                                                 [](Config& c) { c.output_norms = true; },
                                                 [](Config& c) { c.norm_after_sum = true; },
                                                 [](Config& c) { c.gated_mlp = false; },
                                                 [](Config& c) { c.no_rope = true; },
                                                 [](Config& c) { c.unrotated = {1}; },
                                                 [](Config& c) { c.rope.rotary = 8; },
                                                 [](Config& c) { c.residual_scale = 0.5f; },
                                                 [](Config& c) { c.score_scale = 0.1f; },
                                                 [](Config& c) { c.o_bias = true; },
                                                 [](Config& c) { c.mlp_bias = true; },
                                                 [](Config& c) { c.window = c.context - 1; }};
  for (const auto& change : unlike) {
    Config changed = config;
    change(changed);
    const Status refused = ShapePruned(changed, &spec);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.failure().code, ExitCode::kUsage);
    EXPECT_NE(refused.failure().message.find("strange"), std::string::npos) << refused.failure().message;
    EXPECT_NE(refused.failure().message.find("--ladder-init random"), std::string::npos);
  }
  config.window = config.context;  // hides nothing
  EXPECT_TRUE(ShapePruned(config, &spec).ok());
  spec.norm = nn::NormKind::kLayer;
  EXPECT_FALSE(ShapePruned(config, &spec).ok());
}

TEST(PruneSelectTest, ImportanceThatIsNotANumberIsRefused) {
  const Backbone backbone = LoadExact("llama3");
  const LadderSpec spec = Shaped(backbone.config(), 32, {1}, 1);
  const Importance magnitude = Magnitude(backbone);
  const Importance broken = [&](int64_t layer, BlockMatrix matrix, int64_t row, float* out) {
    magnitude(layer, matrix, row, out);
    if (matrix == BlockMatrix::kDown && row == 7) out[3] = NAN;
  };
  const Result<PrunedSelection> refused = SelectPruned(backbone, spec, broken);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.failure().code, ExitCode::kNonFinite);
}

TEST(PruneSelectTest, EqualImportanceTakesTheLowerIndices) {
  const Backbone backbone = LoadExact("llama3");
  const LadderSpec spec = Shaped(backbone.config(), 8, {1}, 1);
  const Importance equal = [&](int64_t layer, BlockMatrix matrix, int64_t, float* out) {
    std::fill_n(out, LinearOf(backbone.block(layer), matrix).in_features(), 1.0f);
  };
  const PrunedSelection selection = SelectPruned(backbone, spec, equal).OrThrow();
  EXPECT_EQ(selection.channels, (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
  EXPECT_EQ(selection.rope_pairs, (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(selection.layers[0].q_rows, (std::vector<int64_t>{0, 1, 2, 3, 8, 9, 10, 11}));
  EXPECT_EQ(selection.layers[0].v_rows, (std::vector<int64_t>{0, 1, 2, 3, 4, 5, 6, 7}));
}

}  // namespace
}  // namespace rung::model
