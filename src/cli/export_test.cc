// The file that llama.cpp reads: names, shapes, order of rows, scale.
#include <cmath>
#include <cstring>

#include "cli/test_support.h"
#include "convert/export_gguf.h"
#include "convert/merge.h"
#include "convert/quantize_gguf.h"
#include "infer/test_support.h"
#include "io/gguf.h"
#include "io/safetensors.h"
#include "model/adapter_file.h"

namespace rung::cli {
namespace {

const Path kLora = "tests/data/lora";
const Path kFamilyFolders = "tests/data/families";

std::vector<float> Floats(std::span<const std::byte> bytes) {
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

std::vector<float> Read(const io::Safetensors& file, const std::string& name) {
  std::vector<std::byte> bytes(file.Find(name)->bytes);
  file.Read(*file.Find(name), 0, bytes).OrThrow();
  return Floats(bytes);
}

class ExportTest : public FolderTest {
 protected:
  io::Gguf Export(const Path& model, const Path& adapter) const {
    const Path out = folder_ / "lora.gguf";
    std::filesystem::remove(out);
    const convert::ExportResult result = convert::ExportGguf({model, adapter, out});
    EXPECT_EQ(result.bytes, std::filesystem::file_size(out));
    return io::Gguf::Open(out).OrThrow();
  }
};

TEST_F(ExportTest, NamesShapesAndScale) {
  const io::Gguf gguf = Export(kFamilyFolders / "llama3", kLora / "peft_llama3");
  EXPECT_EQ(*gguf.GetString("general.architecture"), "llama");
  EXPECT_EQ(*gguf.GetString("general.type"), "adapter");
  EXPECT_EQ(*gguf.GetString("adapter.type"), "lora");
  // llama.cpp scales by alpha / R; the adapter is scaled by 16 / sqrt(8).
  EXPECT_NEAR(*gguf.GetFloat("adapter.lora.alpha") / 8.0, 16.0 / std::sqrt(8.0), 1e-6);
  EXPECT_EQ(gguf.tensors().size(), 3u * 7 * 2);
  EXPECT_EQ(gguf.Find("blk.2.ffn_down.weight.lora_a")->dims, (std::vector<int64_t>{96, 8}));
  EXPECT_EQ(gguf.Find("blk.2.ffn_down.weight.lora_b")->dims, (std::vector<int64_t>{8, 64}));
  for (const char* name : {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"}) {
    EXPECT_TRUE(gguf.Find(std::string("blk.0.") + name + ".weight.lora_a")) << name;
  }
  EXPECT_NEAR(*Export(kFamilyFolders / "llama3", kLora / "peft_top1").GetFloat("adapter.lora.alpha"), 8.0,
              0.0);
}

// As llama.cpp's converter: (heads, 2, D/2) to (heads, D/2, 2).
TEST_F(ExportTest, RowsOfQAndKStandAsLlamaCppHasThem) {
  const io::Safetensors peft =
      io::Safetensors::Open(kLora / "peft_llama3/adapter_model.safetensors").OrThrow();
  const std::string attention = "base_model.model.model.layers.1.self_attn.";
  for (const Path& model : {kFamilyFolders / "llama3", kFamilyFolders / "llama3.gguf"}) {
    const io::Gguf gguf = Export(model, kLora / "peft_llama3");
    for (const auto& [ours, theirs, heads] :
         {std::tuple{"attn_q", "q_proj", size_t{4}}, std::tuple{"attn_k", "k_proj", size_t{2}}}) {
      const std::string stored = std::string("blk.1.") + ours + ".weight.";
      const std::vector<float> b = Read(peft, attention + theirs + ".lora_B.weight");
      const size_t D = 16, R = 8;
      std::vector<float> want;
      for (size_t h = 0; h < heads; ++h) {
        for (size_t i = 0; i < D / 2; ++i) {
          for (size_t part = 0; part < 2; ++part) {
            const float* row = b.data() + (h * D + part * (D / 2) + i) * R;
            want.insert(want.end(), row, row + R);
          }
        }
      }
      EXPECT_EQ(Floats(gguf.Find(stored + "lora_b")->data), want);
      EXPECT_EQ(Floats(gguf.Find(stored + "lora_a")->data),
                Read(peft, attention + theirs + ".lora_A.weight"));
    }
    EXPECT_EQ(Floats(gguf.Find("blk.1.attn_v.weight.lora_b")->data),
              Read(peft, attention + "v_proj.lora_B.weight"));
  }
}

TEST_F(ExportTest, OtherArchitecturesKeepTheirRows) {
  const model::Config config = model::ReadConfig(kFamilyFolders / "qwen2").OrThrow();
  model::AdapterSpec spec;
  spec.lora.emplace();
  spec.lora->R = 2;
  spec.lora->targets = {"q_proj"};
  spec.lora->layers = {1};
  const model::Adapter adapter = model::Adapter::Make(config, spec, 1, false, 8);
  std::vector<float> b;
  adapter.ForEachParam([&](nn::Param& param) {
    float* value = Out{param.value}.as<float>();
    for (int64_t i = 0; i < param.value.size(); ++i) value[i] = static_cast<float>(i);
    b.assign(value, value + param.value.size());
  });
  model::SaveAdapter(folder_ / "a", adapter, config, {"", ""}).OrThrow();
  const io::Gguf gguf = Export(kFamilyFolders / "qwen2.gguf", folder_ / "a");
  EXPECT_EQ(*gguf.GetString("general.architecture"), "qwen2");
  EXPECT_EQ(Floats(gguf.Find("blk.1.attn_q.weight.lora_b")->data), b);
}

// Added to the weights of a GGUF file, as llama.cpp does, the pairs give the GGUF file of the merged model.
TEST_F(ExportTest, PairsOnAGgufFileAreTheMergedModel) {
  for (const std::string name : {"llama3", "phi3", "gpt2", "gpt_neox"}) {
    const Path model = kFamilyFolders / name, pairs = folder_ / "pairs", merged = folder_ / "merged";
    for (const Path& made : {pairs, merged, folder_ / "base.gguf", folder_ / "merged.gguf"})
      std::filesystem::remove_all(made);
    const model::Config config = model::ReadConfig(model).OrThrow();
    model::AdapterSpec spec;
    spec.lora = model::LoraSpec{2, 4.0, 0.0, false, model::LoraTargets(config), {0, config.L - 1}};
    model::SaveAdapter(pairs, infer::RandomAdapter(config, spec), config, {"", ""}).OrThrow();
    const model::Recipe f32 = {model::Quantize::kF32, model::Quantize::kF32, {}};
    convert::MergeModel({model, pairs, merged, "float32", uint64_t{4} << 30, infer::TestContext()}, nullptr,
                        nullptr);
    convert::QuantizeGguf({merged, folder_ / "merged.gguf", f32}, nullptr, nullptr);
    convert::QuantizeGguf({model, folder_ / "base.gguf", f32}, nullptr, nullptr);
    const io::Gguf lora = Export(model, pairs), base = io::Gguf::Open(folder_ / "base.gguf").OrThrow(),
                   want = io::Gguf::Open(folder_ / "merged.gguf").OrThrow();
    const double scale = *lora.GetFloat("adapter.lora.alpha") / 2.0;
    size_t changed = 0;
    for (const io::GgufTensor& tensor : base.tensors()) {
      std::vector<float> sum = Floats(tensor.data);
      const io::GgufTensor* stored = lora.Find(tensor.name + ".lora_b");
      if (stored) {
        const std::vector<float> b = Floats(stored->data),
                                 a = Floats(lora.Find(tensor.name + ".lora_a")->data);
        const auto cols = static_cast<size_t>(tensor.dims[0]);
        ASSERT_EQ(a.size(), 2 * cols) << name << " " << tensor.name;
        ASSERT_EQ(b.size() / 2 * cols, sum.size()) << name << " " << tensor.name;
        for (size_t i = 0; i < sum.size(); ++i) {
          for (size_t r = 0; r < 2; ++r) {
            sum[i] += static_cast<float>(scale * static_cast<double>(b[i / cols * 2 + r]) *
                                         static_cast<double>(a[r * cols + i % cols]));
          }
        }
        ++changed;
      }
      const std::vector<float> merged_weights = Floats(want.Find(tensor.name)->data);
      if (!stored) {
        EXPECT_EQ(sum, merged_weights) << name << " " << tensor.name;
      } else {
        EXPECT_LE(infer::Apart(sum, merged_weights), 1e-6) << name << " " << tensor.name;
      }
    }
    EXPECT_EQ(2 * changed, lora.tensors().size()) << name;
  }
}

TEST_F(ExportTest, AFamilyWithoutAnArchitectureIsAdvisedToMerge) {
  const model::Config config = model::ReadConfig(kFamilyFolders / "opt").OrThrow();
  model::AdapterSpec spec;
  spec.lora = model::LoraSpec{2, 4.0, 0.0, false, {"q_proj"}, {0}};
  model::SaveAdapter(folder_ / "a", model::Adapter::Make(config, spec, 1, false, 8), config, {"", ""})
      .OrThrow();
  const auto [code, message] =
      Refusal(AddExport, {"--gguf", "--model", (kFamilyFolders / "opt").string(), "--adapter",
                          (folder_ / "a").string(), "--out", (folder_ / "x.gguf").string()});
  EXPECT_EQ(code, ExitCode::kUsage);
  EXPECT_NE(message.find("rung merge"), std::string::npos) << message;
  EXPECT_EQ(Refusal(AddMerge, {"--model", (kFamilyFolders / "opt").string(), "--adapter",
                               (folder_ / "a").string(), "--out", (folder_ / "merged").string()})
                .first,
            ExitCode::kDone);
}

TEST_F(ExportTest, ALadderIsRefused) {
  const model::Config config = model::ReadConfig(kFamilyFolders / "llama3").OrThrow();
  model::AdapterSpec spec;
  spec.ladder.emplace();
  spec.ladder->taps = {0};
  spec.ladder->rungs = 1;
  spec.ladder->S = spec.ladder->F = 32;
  SaveAdapter(folder_ / "a", model::Adapter::Make(config, spec, 1, false, 8), config, {"", ""}).OrThrow();
  const auto [code, message] =
      Refusal(AddExport, {"--gguf", "--model", (kFamilyFolders / "llama3").string(), "--adapter",
                          (folder_ / "a").string(), "--out", (folder_ / "x.gguf").string()});
  EXPECT_EQ(code, ExitCode::kUsage);
  EXPECT_NE(message.find("llama.cpp"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(folder_ / "x.gguf"));
}

TEST_F(ExportTest, NoFileIsReplaced) {
  const Path model = folder_ / "model.gguf", pairs = folder_ / "pairs";
  std::filesystem::copy(kFamilyFolders / "llama3.gguf", model);
  std::filesystem::copy(kLora / "peft_llama3", pairs);
  const uint64_t bytes = std::filesystem::file_size(model);
  const Path noted = Write("noted.gguf.tmp", "mine");
  std::filesystem::create_symlink("model.gguf", folder_ / "link.gguf");
  for (const Path& out : {model, folder_ / "link.gguf", folder_ / "noted.gguf", noted, pairs / "lora.gguf",
                          pairs / "adapter_config.json", pairs, Path()}) {
    const auto [code, message] = Refusal(
        AddExport, {"--gguf", "--model", model.string(), "--adapter", pairs.string(), "--out", out.string()});
    EXPECT_EQ(code, ExitCode::kUsage) << out;
    EXPECT_TRUE(message.starts_with("--out")) << message;
  }
  EXPECT_EQ(std::filesystem::file_size(model), bytes);
  EXPECT_EQ(ReadTextFile(noted, 100).OrThrow(), "mine");
  EXPECT_FALSE(std::filesystem::exists(pairs / "lora.gguf"));
}

}  // namespace
}  // namespace rung::cli
