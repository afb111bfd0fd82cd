// Folders that another program packed (tests/data/quantized, made by tools/make_quantized_fixtures.py, which
// keeps the logits of the decoded model in f64 beside them) in other formats: nothing but the new format's
// rounding is added.
#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "cli/test_support.h"
#include "convert/quantize_gguf.h"
#include "infer/test_support.h"
#include "io/json_file.h"

namespace rung::cli {
namespace {

using model::Quantize;

const Path kPacked = "tests/data/quantized";

template <class T>
std::vector<T> ReadAs(const io::Safetensors& file, const std::string& name) {
  const std::vector<std::byte> bytes = ReadAll(file, *file.Find(name));
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

class PackedSourceTest : public FolderTest, public testing::WithParamInterface<const char*> {
 protected:
  Path source() const { return kPacked / GetParam(); }
  // Of the model at `path` and the fixture's last logits.
  double ApartFromTheReference(const Path& path) const {
    const io::Safetensors expected = io::Safetensors::Open(source() / "expected.safetensors").OrThrow();
    const auto ids = ReadAs<int32_t>(expected, "ids");
    const auto logits = ReadAs<float>(expected, "logits");
    const std::vector<float> last(logits.end() - expected.Find("logits")->shape[1], logits.end());
    return infer::Apart(infer::LastLogits(infer::LoadSmall(path.string(), DType::kF32, 16), nullptr, ids),
                        last);
  }
  convert::QuantizeResult Convert(const Path& out, Quantize format) const {
    const convert::QuantizeOptions options{source(), out, {format, format, {}}};
    return out.extension() == ".gguf" ? convert::QuantizeGguf(options, nullptr, nullptr)
                                      : convert::QuantizeFolder(options, nullptr, nullptr);
  }
};

struct Target {
  const char* out;
  Quantize format;
  double tolerance;  // of the largest logit
};
// A number moves by 2^-24, 2^-11 or 2^-8 of itself, by a 254th of its block's largest in q8_0.
constexpr Target kTargets[] = {{"f32.gguf", Quantize::kF32, 1e-4},   {"f16.gguf", Quantize::kF16, 2e-3},
                               {"q8_0.gguf", Quantize::kQ8_0, 2e-2}, {"f32", Quantize::kF32, 1e-4},
                               {"f16", Quantize::kF16, 2e-3},        {"bf16", Quantize::kBf16, 2e-2}};

TEST_P(PackedSourceTest, BecomesTheSameModel) {
  for (const Target& target : kTargets) {
    const Path out = folder_ / target.out;
    const convert::QuantizeResult result = Convert(out, target.format);
    // Its layers, and its bf16 embedding where that is another format.
    EXPECT_EQ(result.linears, 7 + (target.format != Quantize::kBf16)) << target.out;
    const double apart = ApartFromTheReference(out);
    EXPECT_LE(apart, target.tolerance) << target.out;
    EXPECT_TRUE(target.format == Quantize::kF32 || apart > 1e-6) << target.out << ": nothing was rounded";
    if (out.extension() == ".gguf") continue;
    const nlohmann::json config = io::ReadJson(out / "config.json").OrThrow();
    EXPECT_FALSE(config.contains("quantization_config")) << target.out;
    const io::Safetensors file = io::Safetensors::OpenFolder(out).OrThrow();
    for (const auto& [name, entry] : file.tensors()) EXPECT_TRUE(name.ends_with(".weight")) << name;
  }
}

TEST_P(PackedSourceTest, DoesNotBecomeNf4) {
  const auto [code, message] =
      Refusal(AddQuantize, {"--model", source().string(), "--out", (folder_ / "nf4").string()});
  EXPECT_EQ(code, ExitCode::kBadInput);
  EXPECT_NE(message.find("quantised already"), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(All, PackedSourceTest,
                         testing::Values("gptq", "gptq_sym", "gptq_v2", "awq", "fp8_tiles", "fp8_rows",
                                         "fp8_tensor"),
                         [](const auto& tested) { return std::string(tested.param); });

}  // namespace
}  // namespace rung::cli
