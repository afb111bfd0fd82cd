// A random model of a known shape loads, runs, and is what a seed says.
#include "convert/random_model.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <set>

#include "base/test_support.h"
#include "convert/noise.h"
#include "format/nf4.h"
#include "infer/test_support.h"
#include "io/test_support.h"
#include "model/config.h"
#include "model/folder_weights.h"

namespace rung::convert {
namespace {

constexpr const char* kTinyConfig = R"({"model_type": "qwen2", "hidden_size": 256, "intermediate_size": 512,
  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000,
  "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": false})";

std::string Module(const std::string& name) { return name.substr(0, name.rfind('.')); }

struct Moments {
  double mean = 0.0, deviation = 0.0;
};
Moments MomentsOf(const std::vector<float>& values) {
  double sum = 0.0, squares = 0.0;
  for (const float value : values) {
    sum += static_cast<double>(value);
    squares += static_cast<double>(value) * static_cast<double>(value);
  }
  const double n = static_cast<double>(values.size()), mean = sum / n;
  return {mean, std::sqrt(squares / n - mean * mean)};
}

class RandomTest : public FolderTest {
 protected:
  void SetUp() override {
    FolderTest::SetUp();
    Write("config.json", kTinyConfig);
  }
  RandomOptions Options(const std::string& out) const {
    RandomOptions options;
    options.shape = (folder_ / "config.json").string();
    options.out = folder_ / out;
    return options;
  }
  std::vector<float> MatrixOf(const Path& folder, const std::string& name, int64_t rows, int64_t cols) const {
    model::FolderSource source(io::Safetensors::OpenFolder(folder).OrThrow());
    const format::Matrix matrix =
        source.ReadMatrix(Module(name), rows, cols, model::Quantize::kNone).OrThrow();
    std::vector<float> values(static_cast<size_t>(rows * cols));
    for (int64_t row = 0; row < rows; ++row) format::DecodeRow(matrix, row, values.data() + row * cols);
    return values;
  }
};

TEST_F(RandomTest, LoadsAndRuns) {
  for (const bool embeddings : {false, true}) {
    for (const bool nested : {true, false}) {
      RandomOptions options = Options("out");
      options.embeddings = embeddings;
      options.nested = nested;
      const QuantizeResult result = QuantizeRandom(options, nullptr);
      EXPECT_EQ(result.linears, 2 * 7 + (embeddings ? 2 : 0));
      model::BackboneOptions load;
      load.positions = 64;
      const model::Backbone backbone = model::Backbone::Load(options.out, load).OrThrow();
      EXPECT_EQ(backbone.config(), model::ParseHfConfig(kTinyConfig, "tiny").OrThrow());
      EXPECT_EQ(backbone.head().format, embeddings ? format::Format::kNf4 : format::Format::kBf16);
      const model::Backbone planned = model::Backbone::PlannedFrom(options.out, load).OrThrow();
      EXPECT_EQ(planned.weight_totals().bytes, backbone.weight_totals().bytes);
      EXPECT_EQ(backbone.weight_totals().bytes.contains("nf4"), nested);
      EXPECT_EQ(backbone.weight_totals().bytes.contains("nf4-single"), !nested);
      const std::vector<float> logits = infer::LastLogits(backbone, nullptr, {1, 80, 147, 999, 282, 57});
      // A state of RMS 1 times 256 weights of 0.02: a deviation of 0.32.
      EXPECT_NEAR(MomentsOf(logits).deviation, 0.02 * std::sqrt(256.0), 0.05);
      std::filesystem::remove_all(options.out);
    }
  }
}

TEST_F(RandomTest, WeightsAreGaussian) {
  QuantizeRandom(Options("out"), nullptr);
  const Path out = folder_ / "out";
  const std::vector<float> up = MatrixOf(out, "model.layers.0.mlp.up_proj.weight", 512, 256);
  const Moments wide = MomentsOf(up);
  EXPECT_NEAR(wide.deviation, 0.02, 0.0003);
  EXPECT_NEAR(wide.mean, 0.0, 0.0003);
  const Moments down = MomentsOf(MatrixOf(out, "model.layers.1.mlp.down_proj.weight", 256, 512));
  EXPECT_NEAR(down.deviation, 0.01, 0.0002);  // 0.02 / sqrt(2 * 2)
  const std::vector<float> embedding = MatrixOf(out, "model.embed_tokens.weight", 1000, 256);
  EXPECT_NEAR(MomentsOf(embedding).deviation, 0.02, 0.0002);
  EXPECT_NEAR(MomentsOf(embedding).mean, 0.0, 0.0002);
  EXPECT_NEAR(*std::max_element(embedding.begin(), embedding.end()), 0.02 * 4.2, 0.02 * 0.4);
  model::FolderSource source(io::Safetensors::OpenFolder(out).OrThrow());
  EXPECT_EQ(source.ReadVector("model.norm.weight", 256).OrThrow(), std::vector<float>(256, 1.0f));
  // Another tensor, other numbers.
  EXPECT_NE(up, MatrixOf(out, "model.layers.1.mlp.up_proj.weight", 512, 256));
}

// Codes and scales as the encoder makes them of Gaussian weights from another generator.
TEST(Noise, IsWhatTheEncoderMakesOfGaussianWeights) {
  constexpr int64_t kWeights = int64_t{1} << 20;
  std::mt19937_64 generator(5);
  std::normal_distribution<float> normal(0.0f, 0.02f);
  std::vector<float> weights(kWeights);
  for (float& weight : weights) weight = normal(generator);
  const format::Nf4Encoded want = format::EncodeNf4(weights.data(), kWeights, false);
  const Noise noise;
  std::vector<uint8_t> codes(kWeights / 2);
  noise.Codes(77, 0, codes);
  std::array<double, 16> wanted{}, got{};
  for (size_t i = 0; i < codes.size(); ++i) {
    wanted[want.codes[i] >> 4] += 1.0 / kWeights;
    wanted[want.codes[i] & 15] += 1.0 / kWeights;
    got[codes[i] >> 4] += 1.0 / kWeights;
    got[codes[i] & 15] += 1.0 / kWeights;
  }
  // Probabilities are multiples of 1/256: half of one off, and the noise of a million draws.
  for (size_t c = 0; c < 16; ++c) EXPECT_NEAR(got[c], wanted[c], 1.0 / 256.0 + 0.001) << c;
  const Moments scale = MomentsOf(noise.Scales(78, kWeights / 64, 0.02)), encoder = MomentsOf(want.absmax);
  EXPECT_NEAR(scale.mean, encoder.mean, 0.04 * encoder.mean);
  EXPECT_NEAR(scale.deviation, encoder.deviation, 0.1 * encoder.deviation);
}

TEST(Noise, PiecesAreTheWhole) {
  const Noise noise;
  std::vector<uint8_t> whole(103), pieces(103);
  noise.Codes(9, 0, whole);
  noise.Codes(9, 0, std::span(pieces).first(40));
  noise.Codes(9, 40, std::span(pieces).subspan(40));
  EXPECT_EQ(pieces, whole);
  std::vector<uint16_t> numbers(103), parts(103);
  noise.Normal(9, 0, numbers);
  noise.Normal(9, 0, std::span(parts).first(4));
  noise.Normal(9, 4, std::span(parts).subspan(4));
  EXPECT_EQ(parts, numbers);
}

TEST_F(RandomTest, SeedDecidesAndShardsDoNot) {
  QuantizeRandom(Options("a"), nullptr);
  RandomOptions options = Options("b");
  options.shard_bytes = 300'000;
  QuantizeRandom(options, nullptr);
  options = Options("c");
  options.seed = 1;
  QuantizeRandom(options, nullptr);
  const io::Safetensors a = io::Safetensors::OpenFolder(folder_ / "a").OrThrow();
  const io::Safetensors b = io::Safetensors::OpenFolder(folder_ / "b").OrThrow();
  const io::Safetensors c = io::Safetensors::OpenFolder(folder_ / "c").OrThrow();
  EXPECT_TRUE(std::filesystem::exists(folder_ / "b" / "model.safetensors.index.json"));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "b" / "model.safetensors"));
  ASSERT_EQ(a.tensors().size(), b.tensors().size());
  std::set<std::string> files;
  for (const auto& [name, entry] : a.tensors()) {
    ASSERT_TRUE(b.Find(name)) << name;
    EXPECT_EQ(ReadAll(b, *b.Find(name)), ReadAll(a, entry)) << name;
    files.insert(b.path(*b.Find(name)).filename().string());
  }
  EXPECT_GE(files.size(), 3u);
  EXPECT_EQ(*files.begin(), "model-00001-of-0000" + std::to_string(files.size()) + ".safetensors");
  const char* name = "model.layers.0.self_attn.q_proj.weight";
  EXPECT_NE(ReadAll(a, *a.Find(name)), ReadAll(c, *c.Find(name)));
}

}  // namespace
}  // namespace rung::convert
