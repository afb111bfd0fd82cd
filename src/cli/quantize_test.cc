// A folder that was quantised is the same model as one quantised while it is loaded.
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "cli/test_support.h"
#include "convert/nf4_file.h"
#include "convert/noise.h"
#include "convert/quantize_folder.h"
#include "convert/random_model.h"
#include "format/nf4.h"
#include "infer/test_support.h"
#include "io/json_file.h"
#include "model/folder_weights.h"
#include "model/shapes.h"

namespace rung::cli {
namespace {

constexpr const char* kLlama3 = "tests/data/families/llama3";

std::set<std::string> NamesIn(const Path& folder) {
  std::set<std::string> names;
  for (const auto& item : std::filesystem::directory_iterator(folder)) {
    names.insert(item.path().filename().string());
  }
  return names;
}

model::Recipe Nf4(bool nested, bool embeddings) {
  const model::Quantize format = nested ? model::Quantize::kNf4 : model::Quantize::kNf4Single;
  return {format, embeddings ? format : model::Quantize::kNone, {}};
}

// The name of the module, as sources of weights take matrices by.
std::string Module(const std::string& name) { return name.substr(0, name.rfind('.')); }

class QuantizeTest : public FolderTest {
 protected:
  convert::QuantizeResult Quantize(const Path& model, bool nested, bool embeddings = false) const {
    return convert::QuantizeFolder({model, folder_ / "out", Nf4(nested, embeddings)}, nullptr, nullptr);
  }
};

TEST_F(QuantizeTest, MatricesAreThoseOfLoadTime) {
  for (const bool nested : {true, false}) {
    const convert::QuantizeResult result = Quantize(kLlama3, nested);
    EXPECT_EQ(result.linears, 3 * 7);
    const io::Safetensors before = io::Safetensors::OpenFolder(kLlama3).OrThrow();
    const io::Safetensors after = io::Safetensors::OpenFolder(folder_ / "out").OrThrow();
    model::FolderSource at_load(io::Safetensors::OpenFolder(kLlama3).OrThrow());
    model::FolderSource stored(io::Safetensors::OpenFolder(folder_ / "out").OrThrow());
    int64_t linears = 0;
    for (const auto& [name, entry] : before.tensors()) {
      if (!after.Find(name + ".quant_state.bitsandbytes__nf4")) {
        const io::TensorEntry* copy = after.Find(name);
        ASSERT_TRUE(copy) << name;
        EXPECT_EQ(copy->dtype, entry.dtype);
        EXPECT_EQ(copy->shape, entry.shape);
        EXPECT_EQ(ReadAll(after, *copy), ReadAll(before, entry)) << name;
        continue;
      }
      ++linears;
      const int64_t rows = entry.shape[0], cols = entry.shape[1];
      const format::Matrix want =
          at_load
              .ReadMatrix(Module(name), rows, cols,
                          nested ? model::Quantize::kNf4 : model::Quantize::kNf4Single)
              .OrThrow();
      const format::Matrix got =
          stored.ReadMatrix(Module(name), rows, cols, model::Quantize::kNone).OrThrow();
      ASSERT_EQ(got.format, format::Format::kNf4);
      EXPECT_EQ(std::vector<std::byte>(got.data, got.data + rows * cols / 2),
                std::vector<std::byte>(want.data, want.data + rows * cols / 2));
      for (int64_t block = 0; block < rows * cols / 64; ++block) {
        ASSERT_EQ(got.scales.At(block), want.scales.At(block)) << name << " block " << block;
      }
      const io::TensorEntry& codes = *after.Find(name);
      EXPECT_EQ(codes.shape, (std::vector<int64_t>{rows * cols / 2, 1}));
      EXPECT_EQ(after.Find(name + ".nested_absmax") != nullptr, nested);
    }
    EXPECT_EQ(linears, result.linears);
    for (const auto& [name, entry] : after.tensors()) {
      const uint64_t width = entry.dtype == "F32" ? 4 : entry.dtype == "U8" ? 1 : 2;
      EXPECT_EQ(entry.offset % width, 0u) << name;
    }
    std::filesystem::remove_all(folder_ / "out");
  }
}

TEST_F(QuantizeTest, TheModelSaysTheSame) {
  for (const bool embeddings : {false, true}) {
    Quantize(kTrained, true, embeddings);
    model::BackboneOptions options;
    options.positions = 64;
    const std::vector<int32_t> ids = {1, 80, 147, 201, 282, 57};
    const model::Backbone stored = model::Backbone::Load(folder_ / "out", options).OrThrow();
    EXPECT_EQ(stored.head().format == format::Format::kNf4, embeddings);
    const model::Backbone planned = model::Backbone::PlannedFrom(folder_ / "out", options).OrThrow();
    EXPECT_TRUE(planned.planned());
    EXPECT_EQ(planned.weight_totals().bytes, stored.weight_totals().bytes);
    options.recipe = Nf4(true, embeddings);
    const model::Backbone at_load = model::Backbone::Load(kTrained, options).OrThrow();
    EXPECT_EQ(infer::LastLogits(stored, nullptr, ids), infer::LastLogits(at_load, nullptr, ids));
    EXPECT_EQ(stored.weight_totals().total, at_load.weight_totals().total);
    std::filesystem::remove_all(folder_ / "out");
  }
}

TEST_F(QuantizeTest, TextFilesComeAlong) {
  Quantize(kTrained, true);
  const Path out = folder_ / "out";
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "generation_config.json"}) {
    EXPECT_EQ(ReadTextFile(out / name, 1 << 24).OrThrow(),
              ReadTextFile(Path(kTrained) / name, 1 << 24).OrThrow());
  }
  nlohmann::json config = io::ReadJson(out / "config.json").OrThrow();
  EXPECT_EQ(config["quantization_config"]["quant_method"], "bitsandbytes");
  EXPECT_EQ(config["quantization_config"]["bnb_4bit_use_double_quant"], true);
  config.erase("quantization_config");
  EXPECT_EQ(config, io::ReadJson(Path(kTrained) / "config.json").OrThrow());
  EXPECT_EQ(NamesIn(folder_), std::set<std::string>{"out"});
}

TEST_F(QuantizeTest, NothingThatWasThereIsTouched) {
  // What a name made from --out could hit: the model itself, a person's folder, what a crashed run left.
  const Path model = folder_ / "out.tmp";
  std::filesystem::copy(kTrained, model);
  const std::string left = "out.tmp-" + std::to_string(::getpid()) + "-0";
  std::filesystem::create_directories(folder_ / left);
  Write(left + "/model.safetensors", "half");
  const std::set<std::string> before = NamesIn(model);
  EXPECT_EQ(Refusal(AddQuantize, {"--model", model.string(), "--out", (folder_ / "out").string()}),
            std::pair(ExitCode::kDone, std::string()));
  EXPECT_EQ(NamesIn(model), before);
  EXPECT_EQ(NamesIn(folder_), (std::set<std::string>{"out", "out.tmp", left}));
  EXPECT_EQ(ReadTextFile(folder_ / left / "model.safetensors", 100).OrThrow(), "half");
  // The mode is that of any folder made here.
  std::filesystem::create_directory(folder_ / "plain");
  EXPECT_EQ(std::filesystem::status(folder_ / "out").permissions(),
            std::filesystem::status(folder_ / "plain").permissions());
}

TEST_F(QuantizeTest, OutIsWhatIsNotThereYet) {
  const auto refusal = [&](const std::string& model, const std::string& out) {
    const auto [code, message] = Refusal(AddQuantize, {"--model", model, "--out", out});
    EXPECT_EQ(code, ExitCode::kUsage) << message;
    return message;
  };
  EXPECT_EQ(refusal(kTrained, ""), "--out: is empty; give a name");
  const Path model = folder_ / "model", link = folder_ / "link";
  std::filesystem::copy(kTrained, model);
  std::filesystem::create_directory_symlink(model, link);
  const std::set<std::string> before = NamesIn(model);
  for (const std::string& out :
       {model.string(), model.string() + "/", link.string(), model.string() + "/."}) {
    EXPECT_NE(refusal(model.string(), out).find("is what --model names"), std::string::npos) << out;
  }
  EXPECT_EQ(NamesIn(model), before);
  // A file, an empty one too, and a link to nothing.
  const Path file = Write("file", "");
  std::filesystem::create_symlink("nowhere", folder_ / "dangling");
  for (const Path& out : {file, folder_ / "dangling" / ".." / "file"}) refusal(model.string(), out.string());
  EXPECT_TRUE(std::filesystem::is_regular_file(file));
  // An empty folder may be there.
  std::filesystem::create_directory(folder_ / "empty");
  EXPECT_EQ(Refusal(AddQuantize, {"--model", model.string(), "--out", (folder_ / "empty/").string()}).first,
            ExitCode::kDone);
  EXPECT_TRUE(std::filesystem::exists(folder_ / "empty" / "config.json"));
}

TEST_F(QuantizeTest, OnlyTheModelsOwnTextsComeAlong) {
  const Path model = folder_ / "model", out = folder_ / "out";
  std::filesystem::copy(kTrained, model);
  const Path secret = Write("secret.json", "{}");
  Write("model/credentials.json", "{}");
  Write("model/notes.txt", "mine");
  Quantize(model, true);
  EXPECT_FALSE(std::filesystem::exists(out / "credentials.json"));
  EXPECT_FALSE(std::filesystem::exists(out / "notes.txt"));
  std::filesystem::remove_all(out);
  // A link within the folder is the file; one that leaves it would bring any file of this machine along.
  std::filesystem::rename(model / "tokenizer.json", model / "real.json");
  std::filesystem::create_symlink("real.json", model / "tokenizer.json");
  Quantize(model, true);
  EXPECT_TRUE(std::filesystem::is_regular_file(std::filesystem::symlink_status(out / "tokenizer.json")));
  std::filesystem::remove_all(out);
  for (const char* target : {"../secret.json", "nowhere", "."}) {
    std::filesystem::remove(model / "added_tokens.json");
    std::filesystem::create_symlink(target, model / "added_tokens.json");
    const auto [code, message] = Refusal(AddQuantize, {"--model", model.string(), "--out", out.string()});
    EXPECT_EQ(code, ExitCode::kBadInput) << target;
    EXPECT_NE(message.find("added_tokens.json"), std::string::npos) << message;
    EXPECT_FALSE(std::filesystem::exists(out));
  }
}

// A snapshot of the Hugging Face cache is links alone.
TEST_F(QuantizeTest, LinksOfTheCacheAreFollowed) {
  const Path snapshot = folder_ / "models--a--b" / "snapshots" / "0123";
  std::filesystem::create_directories(snapshot);
  std::filesystem::create_directories(folder_ / "models--a--b" / "blobs");
  for (const auto& item : std::filesystem::directory_iterator(kTrained)) {
    const Path name = item.path().filename();
    std::filesystem::copy(item.path(), folder_ / "models--a--b" / "blobs" / name);
    std::filesystem::create_symlink(Path("../../blobs") / name, snapshot / name);
  }
  Quantize(snapshot, true);
  EXPECT_EQ(ReadTextFile(folder_ / "out" / "tokenizer.json", 1 << 24).OrThrow(),
            ReadTextFile(Path(kTrained) / "tokenizer.json", 1 << 24).OrThrow());
}

TEST_F(QuantizeTest, TheStateIsWhatPythonWrites) {
  EXPECT_EQ(
      convert::QuantStateJson("bfloat16", 48, 64, true, 0.0625f),
      R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [48, 64], "nested_blocksize": 256, )"
      R"("nested_dtype": "float32", "nested_offset": 0.0625})");
  EXPECT_EQ(convert::QuantStateJson("float16", 1, 2, false, 0.0f),
            R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [1, 2]})");
  // repr of the doubles that these floats are.
  const auto offset = [](float value) {
    const std::string text = convert::QuantStateJson("float32", 1, 1, true, value);
    return text.substr(text.rfind(' ') + 1);
  };
  EXPECT_EQ(offset(0.1f), "0.10000000149011612}");
  EXPECT_EQ(offset(2.0f), "2.0}");
  EXPECT_EQ(offset(0.0f), "0.0}");
  EXPECT_EQ(offset(1e-5f), "9.999999747378752e-06}");
}

TEST_F(QuantizeTest, RefusesAndLeavesNothingBehind) {
  for (const char* out : {"out", "out.gguf"}) {
    EXPECT_EQ(Refusal(AddQuantize, {"--model", "no/such", "--out", (folder_ / out).string()}).first,
              ExitCode::kBadInput);
  }
  Quantize(kLlama3, true);
  EXPECT_EQ(Refusal(AddQuantize, {"--model", kLlama3, "--out", (folder_ / "out").string()}).first,
            ExitCode::kUsage);
  const auto again =
      Refusal(AddQuantize, {"--model", (folder_ / "out").string(), "--out", (folder_ / "two").string()});
  EXPECT_EQ(again.first, ExitCode::kBadInput);
  EXPECT_NE(again.second.find("quantised already"), std::string::npos) << again.second;
  const convert::QuantizeOptions options{kLlama3, folder_ / "two", Nf4(true, false)};
  EXPECT_THROW(convert::QuantizeFolder(
                   options, [](size_t, size_t) { return false; }, nullptr),
               Error);
  EXPECT_EQ(NamesIn(folder_), std::set<std::string>{"out"});
}

constexpr const char* kTinyConfig = R"({"model_type": "qwen2", "hidden_size": 256, "intermediate_size": 512,
  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": 1000,
  "max_position_embeddings": 128, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "tie_word_embeddings": false})";

TEST_F(QuantizeTest, ARandomModelSaysItsFormatAndWhatItCannotHave) {
  const std::string config = Write("config.json", kTinyConfig).string(), out = (folder_ / "out").string();
  const auto refusal = [&](const std::vector<std::string>& more, const std::string& to) {
    std::vector<std::string> arguments = {"--random", config, "--out", to};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const auto [code, message] = Refusal(AddQuantize, arguments);
    EXPECT_EQ(code, ExitCode::kUsage);
    return message;
  };
  const std::string rule = "--random: weights are made in nf4 or nf4-single, in a folder; leave ";
  EXPECT_EQ(refusal({"--format", "q8_0"}, out), rule + "--format q8_0 out");
  EXPECT_EQ(refusal({"--quantize-embeddings", "q8_0"}, out), rule + "--quantize-embeddings q8_0 out");
  EXPECT_EQ(refusal({"--keep", "*=f16"}, out), rule + "--keep out");
  EXPECT_EQ(refusal({}, out + ".gguf"), rule + ".gguf out");
  testing::internal::CaptureStderr();
  RunVerb(AddQuantize, {"--random", config, "--out", out, "--format", "nf4-single", "--quantize-embeddings",
                        "nf4-single", "--seed", "3"});
  const std::string said = testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("16 random matrices in nf4-single"), std::string::npos) << said;
}

TEST_F(QuantizeTest, RandomRefusesAndLeavesNothingBehind) {
  const Path config = Write("config.json", kTinyConfig);
  const std::string out = (folder_ / "out").string();
  const auto refusal = [&](const std::string& shape) {
    return Refusal(AddQuantize, {"--random", shape, "--out", out});
  };
  EXPECT_EQ(Refusal(AddQuantize, {"--out", out}).first, ExitCode::kUsage);
  EXPECT_THROW(RunVerb(AddQuantize, {"--model", kLlama3, "--random", "qwen2.5-7b", "--out", out}),
               CLI::Error);
  EXPECT_THROW(RunVerb(AddQuantize, {"--model", kLlama3, "--seed", "7", "--out", out}), CLI::Error);
  const auto unknown = refusal("qwen2.5-7");
  EXPECT_EQ(unknown.first, ExitCode::kUsage);
  EXPECT_NE(unknown.second.find("did you mean qwen2.5-7b?"), std::string::npos) << unknown.second;
  const auto missing = refusal("no/such/config.json");
  EXPECT_EQ(missing.first, ExitCode::kBadInput);
  EXPECT_TRUE(missing.second.starts_with("--random: cannot open no/such/config.json")) << missing.second;
  EXPECT_EQ(refusal("tests/data/families/qwen2.gguf").first, ExitCode::kUsage);
  // Embedding and head of 32 TiB each.
  std::string huge = kTinyConfig;
  huge.replace(huge.find("1000"), 4, "16777216").replace(huge.find("256"), 3, "1048576");
  const auto space = refusal(Write("huge.json", huge).string());
  EXPECT_EQ(space.first, ExitCode::kFailed);
  EXPECT_TRUE(space.second.starts_with("--out " + out + ": 65")) << space.second;
  EXPECT_NE(space.second.find("are free on that disk"), std::string::npos) << space.second;
  convert::RandomOptions options;
  options.shape = config.string();
  options.out = out;
  EXPECT_THROW(convert::QuantizeRandom(options, [](size_t, size_t) { return false; }), Error);
  EXPECT_EQ(NamesIn(folder_), (std::set<std::string>{"config.json", "huge.json"}));
}

}  // namespace
}  // namespace rung::cli
