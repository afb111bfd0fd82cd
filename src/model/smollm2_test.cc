// A real model against transformers in f32: tests/data/smollm2/golden.json (tools/make_smollm2_golden.py).
// Skipped when the model is not at hand: RUNG_SMOLLM2, or where quickstart puts it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "io/json_file.h"
#include "model/test_support.h"

namespace rung::model {
namespace {

Path ModelPath() {
  const char* given = std::getenv("RUNG_SMOLLM2");
  return given ? given : ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

class SmolLm2Test : public testing::Test {
 protected:
  void SetUp() override {
    if (!std::filesystem::exists(ModelPath()))
      GTEST_SKIP() << "SmolLM2 is not at hand: ./quickstart downloads it";
    golden_ = io::ReadJson("tests/data/smollm2/golden.json").OrThrow();
  }

  // Logits (N,V) of one sequence.
  static std::vector<float> Logits(DType compute, cpu::Isa isa, std::vector<int32_t> ids) {
    BackboneOptions options;
    options.compute = compute;
    options.positions = 256;
    const Backbone backbone = Backbone::Load(ModelPath(), options).OrThrow();
    const auto N = static_cast<int64_t>(ids.size());
    const PackedRows rows({0, static_cast<int32_t>(N)});
    std::vector<float> x(static_cast<size_t>(N * backbone.config().C));
    std::vector<float> logits(static_cast<size_t>(N * backbone.config().V));
    PlanAndRun({isa, 2}, compute, [&](Exec& ex) {
      Frame frame(ex.arena());
      const Tensor state = View(x.data(), N, backbone.config().C);
      backbone.Forward(ex, View(ids.data(), 1, N), rows.layout, backbone.config().L, Out{state}, nullptr);
      backbone.Logits(ex, state, Out{View(logits.data(), N, backbone.config().V)});
    });
    return logits;
  }

  static constexpr int64_t kVocabulary = 49152;
  nlohmann::json golden_;
};

TEST_F(SmolLm2Test, F32LogitsEqualTransformers) {
  for (const nlohmann::json& prompt : golden_["prompts"]) {
    const std::vector<float> logits = Logits(DType::kF32, cpu::BestIsa(), prompt["ids"]);
    for (const nlohmann::json& position : prompt["positions"]) {
      const float* row = logits.data() + position["position"].get<int64_t>() * kVocabulary;
      double sum = 0, largest = position["top"][0][1];
      for (int64_t v = 0; v < kVocabulary; ++v) sum += std::exp(static_cast<double>(row[v]) - largest);
      EXPECT_NEAR(largest + std::log(sum), position["lse"].get<double>(), 1e-3 * largest);
      for (const nlohmann::json& entry : position["top"]) {
        EXPECT_NEAR(static_cast<double>(row[entry[0].get<int64_t>()]), entry[1].get<double>(),
                    1e-3 * largest);
      }
    }
  }
}

TEST_F(SmolLm2Test, Bf16ChoosesTheSameTokens) {
  if (cpu::BestIsa() != cpu::Isa::kAvx512Bf16) GTEST_SKIP() << "this machine has no bf16 products";
  int64_t same = 0, all = 0;
  for (const nlohmann::json& prompt : golden_["prompts"]) {
    const std::vector<float> exact = Logits(DType::kF32, cpu::BestIsa(), prompt["ids"]);
    const std::vector<float> rounded = Logits(DType::kBf16, cpu::BestIsa(), prompt["ids"]);
    for (size_t n = 0; n < prompt["ids"].size(); ++n) {
      const auto best = [&](const std::vector<float>& logits) {
        const float* row = logits.data() + static_cast<int64_t>(n) * kVocabulary;
        return std::max_element(row, row + kVocabulary) - row;
      };
      same += best(exact) == best(rounded);
      ++all;
    }
  }
  EXPECT_GE(static_cast<double>(same), 0.99 * static_cast<double>(all)) << same << " of " << all;
}

}  // namespace
}  // namespace rung::model
