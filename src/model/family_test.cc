// Every family against transformers: residual stream after each layer and logits of two packed sequences,
// from tests/data/families (tools/make_family_goldens.py).
#include <gtest/gtest.h>

#include <algorithm>

#include "model/test_support.h"

namespace rung::model {
namespace {

struct Case {
  const char* model;  // under tests/data/families
  const char* golden;
  const char* family;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.model; }

class FamilyTest : public testing::TestWithParam<Case> {};

Backbone LoadExact(const std::string& path, DType compute) {
  BackboneOptions options;
  options.recipe.matrices = Quantize::kNone;
  options.compute = compute;
  options.positions = 128;
  return Backbone::Load(path, options).OrThrow();
}

struct Outcome {
  std::vector<float> hidden, logits;
};

Outcome RunBackbone(const Backbone& backbone, const cpu::Context& context, DType compute,
                    std::vector<int32_t> ids, const std::vector<int32_t>& starts) {
  const PackedRows rows(starts);
  const auto N = static_cast<int64_t>(ids.size());
  const int64_t C = backbone.config().C, V = backbone.config().V;
  Outcome run;
  run.hidden.resize(static_cast<size_t>(backbone.config().L * N * C));
  run.logits.resize(static_cast<size_t>(N * V));
  std::vector<float> x(static_cast<size_t>(N * C));
  PlanAndRun(context, compute, [&](Exec& ex) {
    Frame frame(ex.arena());
    backbone.Forward(ex, View(ids.data(), 1, N), rows.layout, backbone.config().L, Out{View(x.data(), N, C)},
                     [&](int64_t layer, In state) {
                       if (ex.planning()) return;
                       std::copy_n(state.as<float>(), N * C, run.hidden.begin() + layer * N * C);
                     });
    backbone.Logits(ex, View(x.data(), N, C), Out{View(run.logits.data(), N, V)});
  });
  return run;
}

TEST_P(FamilyTest, F32EqualsTransformersOnEveryIsa) {
  const std::string folder = "tests/data/families/";
  const Golden golden(folder + GetParam().golden + "/golden.safetensors");
  const Backbone backbone = LoadExact(folder + GetParam().model, DType::kF32);
  EXPECT_EQ(backbone.config().family, GetParam().family);
  for (int isa = 0; isa <= static_cast<int>(cpu::BestIsa()); ++isa) {
    for (int threads = 1; threads <= 2; ++threads) {
      const cpu::Context context{static_cast<cpu::Isa>(isa), threads};
      const Outcome run =
          RunBackbone(backbone, context, DType::kF32, golden.Ints("ids"), golden.Ints("starts"));
      EXPECT_LE(RelativeError(run.hidden, golden.Floats("hidden")), 1e-4) << cpu::NameOf(context.isa);
      EXPECT_LE(RelativeError(run.logits, golden.Floats("logits")), 1e-3) << cpu::NameOf(context.isa);
    }
  }
}

TEST_P(FamilyTest, Bf16IsCloseToTransformers) {
  if (cpu::BestIsa() != cpu::Isa::kAvx512Bf16) GTEST_SKIP() << "this machine has no bf16 products";
  const std::string folder = "tests/data/families/";
  const Golden golden(folder + GetParam().golden + "/golden.safetensors");
  const Backbone backbone = LoadExact(folder + GetParam().model, DType::kBf16);
  const Outcome run = RunBackbone(backbone, {cpu::Isa::kAvx512Bf16, 2}, DType::kBf16, golden.Ints("ids"),
                                  golden.Ints("starts"));
  // bf16 keeps 8 bits: 2^-9 a rounding, a few roundings a layer.
  EXPECT_LE(RelativeError(run.hidden, golden.Floats("hidden")), 3e-2);
  EXPECT_LE(RelativeError(run.logits, golden.Floats("logits")), 3e-2);
}

INSTANTIATE_TEST_SUITE_P(
    All, FamilyTest,
    testing::Values(Case{"llama2", "llama2", "llama"}, Case{"llama3", "llama3", "llama"},
                    Case{"llama3.gguf", "llama3", "llama"}, Case{"mistral", "mistral", "mistral"},
                    Case{"qwen2", "qwen2", "qwen2"}, Case{"qwen2.gguf", "qwen2", "qwen2"},
                    Case{"qwen3", "qwen3", "qwen3"}, Case{"qwen3.gguf", "qwen3", "qwen3"},
                    Case{"smollm2", "smollm2", "llama"}, Case{"smollm2.gguf", "smollm2", "llama"},
                    Case{"mistral_window", "mistral_window", "mistral"},
                    Case{"qwen2_yarn", "qwen2_yarn", "qwen2"}, Case{"qwen2_yarn.gguf", "qwen2_yarn", "qwen2"},
                    Case{"qwen3_yarn", "qwen3_yarn", "qwen3"}, Case{"smollm3", "smollm3", "smollm3"},
                    Case{"smollm3.gguf", "smollm3", "smollm3"}, Case{"granite", "granite", "granite"},
                    Case{"granite.gguf", "granite", "granite"}, Case{"olmo2", "olmo2", "olmo2"},
                    Case{"olmo2.gguf", "olmo2", "olmo2"}, Case{"phi3", "phi3", "phi3"},
                    Case{"phi3.gguf", "phi3", "phi3"}, Case{"phi3_long", "phi3_long", "phi3"},
                    Case{"phi3_long.gguf", "phi3_long", "phi3"}, Case{"gemma", "gemma", "gemma"},
                    Case{"gemma.gguf", "gemma", "gemma"}, Case{"gemma2", "gemma2", "gemma2"},
                    Case{"gemma2.gguf", "gemma2", "gemma2"}, Case{"gemma3", "gemma3", "gemma3_text"},
                    Case{"gemma3.gguf", "gemma3", "gemma3_text"},
                    Case{"gemma3_images", "gemma3_images", "gemma3"}, Case{"opt", "opt", "opt"},
                    Case{"opt_350m", "opt_350m", "opt"}, Case{"gpt2", "gpt2", "gpt2"},
                    Case{"gpt2.gguf", "gpt2", "gpt2"}, Case{"gpt_neox", "gpt_neox", "gpt_neox"},
                    Case{"gpt_neox.gguf", "gpt_neox", "gpt_neox"},
                    Case{"gpt_neox_serial", "gpt_neox_serial", "gpt_neox"}),
    [](const testing::TestParamInfo<Case>& made) {
      std::string name = made.param.model;
      std::replace(name.begin(), name.end(), '.', '_');
      return name;
    });

// Superblocks of 256: q4_k, and q6_k of v, down and the embedding (tools/make_kquant_golden.py).
TEST(KQuantTest, AMixtureEqualsTransformersOfTheDequantisedWeights) {
  const Golden golden("tests/data/kquants/golden.safetensors");
  const Backbone backbone = LoadExact("tests/data/kquants/model.gguf", DType::kF32);
  EXPECT_EQ(backbone.block(0).attention.q.frozen.format, format::Format::kQ4K);
  EXPECT_EQ(backbone.block(0).mlp.down.frozen.format, format::Format::kQ6K);
  EXPECT_EQ(backbone.head().format, format::Format::kQ6K);
  for (int isa = 0; isa <= static_cast<int>(cpu::BestIsa()); ++isa) {
    const cpu::Context context{static_cast<cpu::Isa>(isa), 2};
    const Outcome run =
        RunBackbone(backbone, context, DType::kF32, golden.Ints("ids"), golden.Ints("starts"));
    EXPECT_LE(RelativeError(run.hidden, golden.Floats("hidden")), 1e-4) << cpu::NameOf(context.isa);
    EXPECT_LE(RelativeError(run.logits, golden.Floats("logits")), 1e-4) << cpu::NameOf(context.isa);
  }
  if (cpu::BestIsa() != cpu::Isa::kAvx512Bf16) return;
  const Backbone rounded = LoadExact("tests/data/kquants/model.gguf", DType::kBf16);
  const Outcome run = RunBackbone(rounded, {cpu::Isa::kAvx512Bf16, 2}, DType::kBf16, golden.Ints("ids"),
                                  golden.Ints("starts"));
  EXPECT_LE(RelativeError(run.logits, golden.Floats("logits")), 3e-2);
}

TEST(FamilyTest, PackedEqualsSeparateBitwise) {
  const Golden golden("tests/data/families/llama3/golden.safetensors");
  const std::vector<int32_t> ids = golden.Ints("ids"), starts = golden.Ints("starts");
  const cpu::Context context{cpu::BestIsa(), 2};
  const DType compute = cpu::BestIsa() == cpu::Isa::kAvx512Bf16 ? DType::kBf16 : DType::kF32;
  const Backbone backbone = LoadExact("tests/data/families/llama3", compute);
  const Outcome packed = RunBackbone(backbone, context, compute, ids, starts);
  std::vector<float> separate;
  for (size_t s = 0; s + 1 < starts.size(); ++s) {
    const std::vector<int32_t> part(ids.begin() + starts[s], ids.begin() + starts[s + 1]);
    const Outcome run = RunBackbone(backbone, context, compute, part, {0, static_cast<int32_t>(part.size())});
    separate.insert(separate.end(), run.logits.begin(), run.logits.end());
  }
  EXPECT_EQ(packed.logits, separate);
}

}  // namespace
}  // namespace rung::model
