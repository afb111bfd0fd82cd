// Adapter folders: written and read back, as peft writes and reads them, and what is refused.
#include "model/adapter_file.h"

#include <cstring>
#include <nlohmann/json.hpp>

#include "base/rng.h"
#include "base/text.h"
#include "io/json_file.h"
#include "model/forward.h"
#include "model/test_support.h"

namespace rung::model {
namespace {

using nlohmann::json;

const Path kTiny = "tests/data/models/tinystories-656k";
const Path kLora = "tests/data/lora";
const Path kLlama = "tests/data/families/llama3";
const Path kLlamaGguf = "tests/data/families/llama3.gguf";

#define EXPECT_SAYS(message, words) \
  EXPECT_NE((message).find(words), std::string::npos) << "no \"" << (words) << "\" in: " << (message)

class AdapterFileTest : public testing::Test {
 protected:
  AdapterFileTest() {
    folder_ = Path(testing::TempDir()) /
              (std::string("rung_adapter_") + testing::UnitTest::GetInstance()->current_test_info()->name());
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directories(folder_);
  }
  ~AdapterFileTest() override { std::filesystem::remove_all(folder_); }

  template <class T>
  static std::string MessageOf(const Result<T>& result) {
    EXPECT_FALSE(result.ok());
    if (result.ok()) return "";
    EXPECT_EQ(result.failure().code, ExitCode::kBadInput) << result.failure().message;
    return result.failure().message;
  }
  // Copies a peft folder and sets one key of its configuration; null removes it.
  Path Changed(const char* peft, const char* key, const json& value) const {
    std::filesystem::remove_all(folder_);
    std::filesystem::copy(kLora / peft, folder_);
    Set(key, value);
    return folder_;
  }
  void Set(const char* key, const json& value) const {
    const Path file = folder_ / "adapter_config.json";
    json object = io::ReadJson(file).OrThrow();
    object[key] = value;
    if (value.is_null()) object.erase(key);
    WriteTextFile(file, object.dump()).OrThrow();
  }
  Path folder_;
};

LadderSpec SmallLadder() {
  LadderSpec spec;
  spec.taps = {0, 1};
  spec.rungs = 3;
  spec.S = 32;
  spec.F = 48;
  spec.head_dim = 16;
  return spec;
}

LoraSpec SmallLora(const Config& config, std::vector<int64_t> layers) {
  LoraSpec spec;
  spec.R = 5;
  spec.alpha = 12.5;
  spec.dropout = 0.25;
  spec.rank_stabilized = true;
  spec.targets = LoraTargets(config);
  spec.layers = std::move(layers);
  return spec;
}

// Every parameter random: B of a fresh pair is zero.
Adapter Random(const Config& config, const AdapterSpec& spec, int64_t positions = 64) {
  Adapter adapter = Adapter::Make(config, spec, 3, false, positions);
  const Rng rng(11, Stream::kInit, 900);
  uint64_t index = 0;
  const auto fill = [&](const Tensor& tensor) {
    float* out = Out{tensor}.as<float>();
    for (int64_t i = 0; i < tensor.size(); ++i) out[i] = rng.Uniform(index++) - 0.5f;
  };
  adapter.ForEachParam([&](nn::Param& param) { fill(param.value); });
  adapter.ForEachBuffer([&](const std::string&, Tensor& tensor) { fill(tensor); });
  return adapter;
}

// Parameters and calibrated arrays, one behind the other.
std::vector<float> ValuesOf(const Adapter& adapter) {
  std::vector<float> values;
  const auto add = [&](const Tensor& tensor) {
    const float* data = In(tensor).as<float>();
    values.insert(values.end(), data, data + tensor.size());
  };
  adapter.ForEachParam([&](nn::Param& param) { add(param.value); });
  adapter.ForEachBuffer([&](const std::string&, Tensor& tensor) { add(tensor); });
  return values;
}

Backbone LoadExact(const Path& path) {
  BackboneOptions options;
  options.recipe.matrices = Quantize::kNone;
  options.positions = 64;
  return Backbone::Load(path, options).OrThrow();
}

std::vector<float> LogitsOf(const Backbone& backbone, const Adapter* adapter, std::vector<int32_t> ids,
                            const std::vector<int32_t>& starts) {
  const PackedRows rows(starts);
  const auto N = static_cast<int64_t>(ids.size());
  const int64_t C = backbone.config().C, V = backbone.config().V;
  std::vector<int32_t> picked(ids.size());
  for (size_t i = 0; i < picked.size(); ++i) picked[i] = static_cast<int32_t>(i);
  const PassInput input{View(ids.data(), 1, N), rows.layout, View(picked.data(), 1, N)};
  std::vector<float> z(static_cast<size_t>(N * C)), logits(static_cast<size_t>(N * V));
  PlanAndRun({cpu::BestIsa(), 1}, DType::kF32, [&](Exec& ex) {
    Frame frame(ex.arena());
    Pass pass(ex, backbone, adapter, input, false, {});
    pass.Forward(Out{View(z.data(), N, C)});
    backbone.Logits(ex, View(z.data(), N, C), Out{View(logits.data(), N, V)});
  });
  return logits;
}

// ---- ladders ----

TEST_F(AdapterFileTest, EveryFieldOfALadderComesBack) {
  const Config config = ReadConfig(kTiny).OrThrow();
  AdapterSpec spec;
  LadderSpec& ladder = spec.ladder.emplace(SmallLadder());
  ladder.taps = {1};
  ladder.rungs = 2;
  ladder.heads = 4;
  ladder.kv_heads = 2;
  ladder.head_dim = 8;
  ladder.gate = Gate::kInterpolateVector;
  ladder.tap_norm = TapNorm::kRms;
  ladder.tap_map = TapMap::kPooled;
  ladder.rejoin = config.L - 2;
  ladder.output_scale = 0.375f;
  ladder.rope_pairs = {0, 2, 3, 5};
  const Adapter saved = Random(config, spec);
  SaveAdapter(folder_, saved, config, {"base", "{{ template }}"}).OrThrow();
  const AdapterInfo info = ReadAdapterInfo(folder_, config).OrThrow();
  EXPECT_EQ(info.base_model, "base");
  EXPECT_EQ(std::tie(info.chat_template, info.template_time),
            std::make_tuple("{{ template }}", std::nullopt));
  EXPECT_TRUE(info.has_template_choice);
  EXPECT_EQ(info.family, config.family);
  EXPECT_EQ(std::tie(info.L, info.C, info.V), std::tie(config.L, config.C, config.V));
  ASSERT_TRUE(info.spec.ladder && !info.spec.lora);
  const LadderSpec& read = *info.spec.ladder;
  EXPECT_EQ(
      std::tie(read.taps, read.rungs, read.kind, read.S, read.F, read.heads, read.kv_heads),
      std::tie(ladder.taps, ladder.rungs, ladder.kind, ladder.S, ladder.F, ladder.heads, ladder.kv_heads));
  EXPECT_EQ(std::tie(read.head_dim, read.gate, read.tap_norm, read.tap_map, read.rejoin, read.output_scale),
            std::tie(ladder.head_dim, ladder.gate, ladder.tap_norm, ladder.tap_map, ladder.rejoin,
                     ladder.output_scale));
  EXPECT_EQ(read.rope_pairs, ladder.rope_pairs);
  EXPECT_EQ(ValuesOf(LoadAdapter(folder_, config, false, 64).OrThrow()), ValuesOf(saved));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "rung_adapter.json"));
}

TEST_F(AdapterFileTest, PlainRungsComeBack) {
  const Config config = ReadConfig(kTiny).OrThrow();
  AdapterSpec spec;
  spec.ladder = SmallLadder();
  spec.ladder->kind = RungKind::kPlain;
  spec.ladder->heads = 1;
  spec.ladder->head_dim = spec.ladder->S;
  const Adapter saved = Random(config, spec);
  SaveAdapter(folder_, saved, config, {"base", ""}).OrThrow();
  const Adapter loaded = LoadAdapter(folder_, config, false, 64).OrThrow();
  EXPECT_EQ(loaded.ladder()->spec().kind, RungKind::kPlain);
  EXPECT_EQ(ValuesOf(loaded), ValuesOf(saved));
}

TEST_F(AdapterFileTest, TheMannerOfRungsComesBack) {
  const Config config = ReadConfig(kTiny).OrThrow();
  AdapterSpec spec;
  spec.ladder = SmallLadder();
  const int64_t rms_count = Adapter::Planned(config, spec, 8).parameter_count();
  spec.ladder->norm = nn::NormKind::kLayer;
  spec.ladder->rotary = false;
  const Adapter fresh = Adapter::Make(config, spec, 1, false, 8);
  EXPECT_EQ(fresh.parameter_count(), rms_count + 2 * spec.ladder->rungs * spec.ladder->S);
  EXPECT_EQ(fresh.ladder()->rope().rotary, 0);
  fresh.ForEachParam([](nn::Param& param) {
    if (param.name.find("_norm.") == std::string::npos) return;
    EXPECT_EQ(In(param.value).as<float>()[0], param.name.ends_with(".bias") ? 0.0f : 1.0f) << param.name;
  });
  const Adapter saved = Random(config, spec);
  SaveAdapter(folder_, saved, config, {"base", ""}).OrThrow();
  const Adapter loaded = LoadAdapter(folder_, config, false, 8).OrThrow();
  EXPECT_TRUE(loaded.ladder()->spec().norm == nn::NormKind::kLayer && !loaded.ladder()->spec().rotary);
  EXPECT_EQ(ValuesOf(loaded), ValuesOf(saved));
}

TEST_F(AdapterFileTest, RungsOfOldAdaptersHaveRmsNormsAndRope) {
  const Config config = ReadConfig(kTiny).OrThrow();
  AdapterSpec spec;
  spec.ladder = SmallLadder();
  SaveAdapter(folder_, Adapter::Make(config, spec, 1, false, 8), config, {"base", ""}).OrThrow();
  json object = io::ReadJson(folder_ / "adapter_config.json").OrThrow();
  EXPECT_EQ(object.erase("rung_norm") + object.erase("rung_positions"), 2u);
  WriteTextFile(folder_ / "adapter_config.json", object.dump()).OrThrow();
  const LadderSpec read = *ReadAdapterInfo(folder_, config).OrThrow().spec.ladder;
  EXPECT_TRUE(read.norm == nn::NormKind::kRms && read.rotary);
}

TEST_F(AdapterFileTest, TheLaddersTableHasTheRowsAskedFor) {
  const Config config = ReadConfig(kTiny).OrThrow();
  AdapterSpec spec;
  spec.ladder = SmallLadder();
  const Adapter adapter = Adapter::Make(config, spec, 1, false, 24);
  EXPECT_EQ(adapter.ladder()->rope().cos.rows(), 24);
  EXPECT_EQ(Adapter::Planned(config, spec, 40).ladder()->rope().sin.rows(), 40);
  SaveAdapter(folder_, adapter, config, {"base", ""}).OrThrow();
  EXPECT_EQ(LoadAdapter(folder_, config, false, 100).OrThrow().ladder()->rope().cos.rows(), 100);
}

TEST_F(AdapterFileTest, ALyingAdapterIsRefusedBeforeMemoryIsTaken) {
  const Config config = ReadConfig(kTiny).OrThrow();
  AdapterSpec spec;
  spec.ladder = SmallLadder();
  SaveAdapter(folder_, Adapter::Make(config, spec, 1, false, 8), config, {"base", ""}).OrThrow();
  Set("rungs", 4096);
  Set("width", 65536);
  Set("mlp_width", 262144);
  EXPECT_SAYS(MessageOf(LoadAdapter(folder_, config, false, 8)), "fits neither its adapter_config.json");
}

TEST_F(AdapterFileTest, FieldsOutOfRangeAreNamed) {
  const Config config = ReadConfig(kTiny).OrThrow();
  AdapterSpec spec;
  spec.ladder = SmallLadder();
  SaveAdapter(folder_, Adapter::Make(config, spec, 1, false, 8), config, {"base", ""}).OrThrow();
  const json good = io::ReadJson(folder_ / "adapter_config.json").OrThrow();
  const std::vector<std::pair<const char*, json>> wrong = {{"taps", json::array()},
                                                           {"taps", {1, 0}},
                                                           {"taps", {-1}},
                                                           {"taps", {0, 999}},
                                                           {"rungs", 1},
                                                           {"rungs", 4097},
                                                           {"rungs", 2.7},
                                                           {"rungs", 1e300},
                                                           {"rejoin", false},
                                                           {"taps", {0, 1.5}},
                                                           {"width", 0},
                                                           {"width", 1 << 20},
                                                           {"mlp_width", -3},
                                                           {"heads", 0},
                                                           {"heads", 5000},
                                                           {"kv_heads", 3},
                                                           {"head_dim", 15},
                                                           {"head_dim", 1 << 20},
                                                           {"rejoin", -1},
                                                           {"rejoin", config.L},
                                                           {"kind", "fancy"},
                                                           {"gate", "or"},
                                                           {"tap_norm", 3},
                                                           {"tap_map", ""},
                                                           {"rung_norm", "batch"},
                                                           {"rung_positions", "learned"},
                                                           {"rope_pairs", {1, 2}},
                                                           {"lora", 7},
                                                           {"format_version", 1},
                                                           {"output_scale", "1"},
                                                           {"rope_pairs", {0, 1, 2, 3, 4, 5, 6, 4096}},
                                                           {"base_model", {{"family", "llama"}}}};
  for (const auto& [key, value] : wrong) {
    WriteTextFile(folder_ / "adapter_config.json", good.dump()).OrThrow();
    Set(key, value);
    const std::string message = MessageOf(ReadAdapterInfo(folder_, config));
    EXPECT_SAYS(message, "adapter_config.json");
    if (value.is_number() || value.is_string()) {
      EXPECT_SAYS(message, key);
    }
  }
  WriteTextFile(folder_ / "adapter_config.json", good.dump()).OrThrow();
  Set("rejoin", config.L - 1);
  EXPECT_SAYS(MessageOf(ReadAdapterInfo(folder_, config)), "taps");
}

TEST_F(AdapterFileTest, AnotherModelIsRefusedByName) {
  const Config config = ReadConfig(kTiny).OrThrow();
  AdapterSpec spec;
  spec.lora = SmallLora(config, {0, 1});
  SaveAdapter(folder_, Adapter::Make(config, spec, 1, false, 8), config, {"stories", ""}).OrThrow();
  Config other = config;
  other.V += 8;
  const std::string message = MessageOf(LoadAdapter(folder_, other, false, 8));
  EXPECT_SAYS(message, "stories");
  EXPECT_SAYS(message, std::to_string(other.V));
}

TEST_F(AdapterFileTest, APathThatIsNotUtf8IsSaved) {
  const Config config = ReadConfig(kTiny).OrThrow();
  AdapterSpec ladder, lora;
  ladder.ladder = SmallLadder();
  lora.lora = SmallLora(config, {0});
  for (const AdapterSpec& spec : {ladder, lora}) {
    SaveAdapter(folder_, Adapter::Make(config, spec, 1, false, 8), config, {"models/caf\xe9", "\xff"})
        .OrThrow();
    EXPECT_TRUE(ReadAdapterInfo(folder_).OrThrow().base_model.starts_with("models/caf"));
  }
}

// ---- low-rank pairs ----

TEST_F(AdapterFileTest, PairsComeBack) {
  const Config config = ReadConfig(kLlama).OrThrow();
  for (const std::vector<int64_t>& layers : {std::vector<int64_t>{0, 1, 2}, std::vector<int64_t>{1}}) {
    AdapterSpec spec;
    spec.lora = SmallLora(config, layers);
    const Adapter saved = Random(config, spec);
    SaveAdapter(folder_, saved, config, {"base", "{{ template }}", 86400}).OrThrow();
    const AdapterInfo info = ReadAdapterInfo(folder_, config).OrThrow();
    EXPECT_EQ(info.template_time, 86400);
    EXPECT_EQ(std::tie(info.base_model, info.chat_template, info.family, info.L, info.C, info.V),
              std::make_tuple("base", "{{ template }}", config.family, config.L, config.C, config.V));
    EXPECT_TRUE(info.has_template_choice);
    ASSERT_TRUE(info.spec.lora && !info.spec.ladder);
    const LoraSpec& read = *info.spec.lora;
    EXPECT_EQ(std::tie(read.R, read.alpha, read.dropout, read.rank_stabilized, read.targets, read.layers),
              std::tie(spec.lora->R, spec.lora->alpha, spec.lora->dropout, spec.lora->rank_stabilized,
                       spec.lora->targets, spec.lora->layers));
    EXPECT_EQ(ValuesOf(LoadAdapter(folder_, config, true, 64).OrThrow()), ValuesOf(saved));
    Adapter resumed = Adapter::Make(config, spec, 77, true, 64);
    LoadAdapterValues(folder_, &resumed).OrThrow();
    EXPECT_EQ(ValuesOf(resumed), ValuesOf(saved));
  }
}

TEST_F(AdapterFileTest, BothInOneFolder) {
  const Config config = ReadConfig(kLlama).OrThrow();
  AdapterSpec spec;
  spec.ladder = SmallLadder();
  spec.ladder->taps = {0};
  spec.ladder->rejoin = 2;
  spec.lora = SmallLora(config, {1, 2});
  const Adapter saved = Random(config, spec);
  SaveAdapter(folder_, saved, config, {"base", ""}).OrThrow();
  const Adapter loaded = LoadAdapter(folder_, config, false, 64).OrThrow();
  ASSERT_TRUE(loaded.ladder() && loaded.lora());
  EXPECT_EQ(loaded.lora()->spec().layers, spec.lora->layers);
  EXPECT_EQ(ValuesOf(loaded), ValuesOf(saved));
  // Pairs below the joining point mean nothing: the file is checked for it too.
  json changed = io::ReadJson(folder_ / "adapter_config.json").OrThrow()["lora"];
  changed["layers"] = {0, 1};
  Set("lora", changed);
  EXPECT_SAYS(MessageOf(LoadAdapter(folder_, config, false, 64)), "joining point");
}

TEST_F(AdapterFileTest, AdaptersOfPeftGiveItsLogits) {
  for (const char* name : {"llama3", "top1"}) {
    const Golden golden(kLora / (std::string("lora_") + name + ".safetensors"));
    const Backbone backbone = LoadExact(kLlama);
    const Path folder = kLora / (std::string("peft_") + name);
    const AdapterInfo info = ReadAdapterInfo(folder, backbone.config()).OrThrow();
    EXPECT_FALSE(info.has_template_choice);
    EXPECT_EQ(info.base_model, kLlama.string());
    EXPECT_EQ(info.L, backbone.config().L);
    const Adapter adapter = LoadAdapter(folder, backbone.config(), false, 64).OrThrow();
    EXPECT_EQ(adapter.lora()->spec().scale(), golden.Floats("scaling")[0]);
    const std::vector<float> got = LogitsOf(backbone, &adapter, golden.Ints("ids"), golden.Ints("starts"));
    EXPECT_LE(RelativeError(got, golden.Floats("logits")), 1e-5) << name;
    // The golden tells with from without.
    const std::vector<float> without = LogitsOf(backbone, nullptr, golden.Ints("ids"), golden.Ints("starts"));
    EXPECT_GE(RelativeError(without, golden.Floats("logits")), 1e-2) << name;
  }
}

// A GGUF file of this family keeps the rows of q and k in another order; the folder on disk does not tell.
TEST_F(AdapterFileTest, FoldersAreTheSameWhateverTheModelCameFrom) {
  const Golden golden(kLora / "lora_llama3.safetensors");
  const Backbone backbone = LoadExact(kLlamaGguf);
  ASSERT_FALSE(backbone.config().rope.half);
  const Adapter adapter = LoadAdapter(kLora / "peft_llama3", backbone.config(), false, 64).OrThrow();
  const std::vector<float> got = LogitsOf(backbone, &adapter, golden.Ints("ids"), golden.Ints("starts"));
  EXPECT_LE(RelativeError(got, golden.Floats("logits")), 1e-3);

  SaveAdapter(folder_, adapter, backbone.config(), {"x", ""}).OrThrow();
  const Config config = ReadConfig(kLlama).OrThrow();
  EXPECT_EQ(ValuesOf(LoadAdapter(folder_, config, false, 64).OrThrow()),
            ValuesOf(LoadAdapter(kLora / "peft_llama3", config, false, 64).OrThrow()));
}

// What we write is what peft wrote: names, shapes and bytes of the tensors, and every key of the
// configuration.
TEST_F(AdapterFileTest, PeftsFoldersAreReproduced) {
  const Config config = ReadConfig(kLlama).OrThrow();
  for (const char* name : {"peft_llama3", "peft_top1"}) {
    const Path peft = kLora / name;
    const Adapter adapter = LoadAdapter(peft, config, false, 64).OrThrow();
    SaveAdapter(folder_, adapter, config, {kLlama.string(), ""}).OrThrow();
    const json ours = io::ReadJson(folder_ / "adapter_config.json").OrThrow();
    const json theirs = io::ReadJson(peft / "adapter_config.json").OrThrow();
    for (const auto& [key, value] : ours.items()) {
      ASSERT_TRUE(theirs.contains(key)) << key;
      EXPECT_EQ(value, theirs[key]) << key;
    }
    // What is left out are peft's defaults.
    for (const auto& [key, value] : theirs.items()) {
      if (ours.contains(key) || key == "peft_version") continue;
      EXPECT_TRUE(value.is_null() || value == false || value.empty() || key == "megatron_core" ||
                  key == "qalora_group_size")
          << key;
    }
    const Golden written(folder_ / "adapter_model.safetensors"), wanted(peft / "adapter_model.safetensors");
    EXPECT_EQ(written.file().metadata(), wanted.file().metadata());
    ASSERT_EQ(written.file().tensors().size(), wanted.file().tensors().size());
    for (const auto& [tensor, entry] : wanted.file().tensors()) {
      ASSERT_TRUE(written.Has(tensor)) << tensor;
      EXPECT_EQ(written.file().Find(tensor)->shape, entry.shape) << tensor;
      EXPECT_EQ(written.Floats(tensor), wanted.Floats(tensor)) << tensor;
    }
  }
}

TEST_F(AdapterFileTest, ForeignAdaptersMayBeSixteenBitAndSayTheirTargetsInAnyWay) {
  const Config config = ReadConfig(kLlama).OrThrow();
  const std::vector<float> want = ValuesOf(LoadAdapter(kLora / "peft_top1", config, false, 64).OrThrow());
  for (const json& targets : {json("all-linear"), json(".*\\.(q|v)_proj"), json(nullptr)}) {
    EXPECT_EQ(
        ValuesOf(LoadAdapter(Changed("peft_top1", "target_modules", targets), config, false, 64).OrThrow()),
        want);
  }
  Changed("peft_top1", "r", 4);
  const io::Safetensors source =
      io::Safetensors::Open(kLora / "peft_top1/adapter_model.safetensors").OrThrow();
  std::vector<std::vector<std::byte>> halves;
  std::vector<io::TensorToWrite> tensors;
  for (const auto& [name, entry] : source.tensors()) {
    std::vector<std::byte> bytes(entry.bytes);
    source.Read(entry, 0, bytes).OrThrow();
    std::vector<std::byte>& half = halves.emplace_back();
    for (size_t i = 0; i < bytes.size(); i += 4) half.insert(half.end(), {bytes[i + 2], bytes[i + 3]});
  }
  size_t next = 0;
  for (const auto& [name, entry] : source.tensors()) {
    tensors.push_back({name, "BF16", entry.shape, halves[next++]});
  }
  io::WriteSafetensors(folder_ / "adapter_model.safetensors", tensors, {}).OrThrow();
  const std::vector<float> cut = ValuesOf(LoadAdapter(folder_, config, false, 64).OrThrow());
  EXPECT_NE(cut, want);
  EXPECT_LE(RelativeError(cut, want), 1.0 / 128.0);
}

TEST_F(AdapterFileTest, WhatHasNoCounterpartIsRefusedByName) {
  const Config config = ReadConfig(kLlama).OrThrow();
  const std::vector<std::pair<const char*, json>> wrong = {{"use_dora", true},
                                                           {"bias", "lora_only"},
                                                           {"modules_to_save", {"lm_head"}},
                                                           {"rank_pattern", {{"q_proj", 8}}},
                                                           {"alpha_pattern", {{"q_proj", 8}}},
                                                           {"lora_bias", true},
                                                           {"layer_replication", {{0, 1}}},
                                                           {"init_lora_weights", "pissa_niter_4"},
                                                           {"peft_type", "IA3"},
                                                           {"peft_type", nullptr},
                                                           {"r", "8"},
                                                           {"r", 0},
                                                           {"lora_alpha", 0},
                                                           {"lora_dropout", 1.5},
                                                           {"task_type", "SEQ_CLS"},
                                                           {"init_lora_weights", "mica"},
                                                           {"init_lora_weights", 7},
                                                           {"megatron_core", "my.core"},
                                                           {"use_qalora", true},
                                                           {"velora_config", {{"groups", 4}}},
                                                           {"a_later_key", 0.5},
                                                           {"a_later_key", "text"}};
  for (const auto& [key, value] : wrong) {
    const std::string message = MessageOf(LoadAdapter(Changed("peft_llama3", key, value), config, false, 64));
    const std::string word = std::string(key) == "lora_alpha" || std::string(key) == "lora_dropout"
                                 ? std::string(key).substr(5)
                             : std::string(key) == "r" && value.is_number() ? "rank"
                                                                            : key;
    EXPECT_SAYS(message, word);
    EXPECT_SAYS(message, "adapter_config.json");
  }
  EXPECT_SAYS(MessageOf(LoadAdapter(Changed("peft_llama3", "peft_type", "IA3"), config, false, 64)),
              "LADDER");
  // Another rank than the tensors have.
  EXPECT_SAYS(MessageOf(LoadAdapter(Changed("peft_llama3", "r", 16), config, false, 64)), "lora_A.weight");
  for (const char* init : {"gaussian", "eva"}) {
    EXPECT_TRUE(LoadAdapter(Changed("peft_llama3", "init_lora_weights", init), config, false, 64).ok());
  }
  Config small = config;
  small.L = 2;
  EXPECT_SAYS(MessageOf(LoadAdapter(kLora / "peft_llama3", small, false, 64)), "layer 2");
  small.L = 3;
  small.F = 32;
  EXPECT_SAYS(MessageOf(LoadAdapter(kLora / "peft_llama3", small, false, 64)), "mlp");
}

TEST_F(AdapterFileTest, KeysThatAskForNothingAreNotLookedAt) {
  const Config config = ReadConfig(kLlama).OrThrow();
  for (const json& nothing : {json(nullptr), json(false), json(""), json::array(), json::object()}) {
    Changed("peft_llama3", "a_later_key", 1);
    const Path file = folder_ / "adapter_config.json";
    json object = io::ReadJson(file).OrThrow();
    object["a_later_key"] = nothing;
    object["use_dora"] = nothing;
    WriteTextFile(file, object.dump()).OrThrow();
    EXPECT_TRUE(LoadAdapter(folder_, config, false, 64).ok()) << nothing;
  }
  for (const json& init : {json(false), json("orthogonal"), json("Gaussian")}) {
    EXPECT_TRUE(LoadAdapter(Changed("peft_llama3", "init_lora_weights", init), config, false, 64).ok())
        << init;
  }
  EXPECT_TRUE(LoadAdapter(Changed("peft_llama3", "task_type", nullptr), config, false, 64).ok());
}

// Not what PEFT takes for an absent key: null says that something went wrong where the file was made.
TEST_F(AdapterFileTest, NullIsNoNumber) {
  const Config config = ReadConfig(kLlama).OrThrow();
  for (const char* key : {"r", "lora_alpha", "lora_dropout", "use_rslora"}) {
    Changed("peft_llama3", "a_later_key", nullptr);
    const Path file = folder_ / "adapter_config.json";
    json object = io::ReadJson(file).OrThrow();
    object[key] = nullptr;
    WriteTextFile(file, object.dump()).OrThrow();
    EXPECT_SAYS(MessageOf(LoadAdapter(folder_, config, false, 64)), std::string("\"") + key + "\" is null");
  }
  for (const char* number : {"NaN", "Infinity", "1e999"}) {
    std::string text = ReadTextFile(kLora / "peft_llama3/adapter_config.json", 1 << 20).OrThrow();
    const std::string alpha = "\"lora_alpha\": 16";
    text.replace(text.find(alpha), alpha.size(), std::string("\"lora_alpha\": ") + number);
    WriteTextFile(folder_ / "adapter_config.json", text).OrThrow();
    EXPECT_SAYS(MessageOf(LoadAdapter(folder_, config, false, 64)), "adapter_config.json");
  }
}

TEST_F(AdapterFileTest, ShapesInMessagesReadAlike) {
  const Config config = ReadConfig(kLlama).OrThrow();
  Config other = config;
  other.F = 32;
  EXPECT_SAYS(MessageOf(LoadAdapter(kLora / "peft_llama3", other, false, 64)),
              "is F32 of 96 x 8; 32 x 8 in F32, F16 or BF16 is expected");
}

TEST_F(AdapterFileTest, MessagesDoNotSteerTheTerminal) {
  const Config config = ReadConfig(kLlama).OrThrow();
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, json>>{{"bias", "\x1b[2J"},
                                                 {"use\x1b[2J", "\xc2\x9b"},
                                                 {"r", "\x7f"},
                                                 {"init_lora_weights", "pissa\x1b"}}) {
    const std::string message = MessageOf(LoadAdapter(Changed("peft_llama3", key, value), config, false, 64));
    EXPECT_EQ(message, Printable(message));
  }
}

TEST_F(AdapterFileTest, TensorsThatAreNoPairsAreRefused) {
  const Config config = ReadConfig(kLlama).OrThrow();
  const std::string q = "base_model.model.model.layers.2.self_attn.q_proj.";
  const std::vector<std::byte> a(4 * 64 * 4), b(64 * 4 * 4);
  const auto load = [&](const std::string& first, const std::string& second) {
    Changed("peft_top1", "r", 4);
    const std::vector<io::TensorToWrite> tensors = {{first, "F32", {4, 64}, a}, {second, "F32", {64, 4}, b}};
    io::WriteSafetensors(folder_ / "adapter_model.safetensors", tensors, {}).OrThrow();
    return LoadAdapter(folder_, config, false, 64);
  };
  EXPECT_TRUE(load(q + "lora_A.weight", q + "lora_B.weight").ok());
  for (const std::string other :
       {"base_model.model.lm_head.lora_B.weight", "base_model.model.model.embed_tokens.lora_embedding_B",
        "base_model.model.model.layers.2.self_attn.q_proj.lora_magnitude_vector", "rungs.0.tap.weight",
        "base_model.model.model.layers.x.self_attn.q_proj.lora_B.weight",
        "base_model.model.model.layers.99999999999999999999.self_attn.q_proj.lora_B.weight"}) {
    EXPECT_SAYS(MessageOf(load(q + "lora_A.weight", other)), other);
  }
  EXPECT_SAYS(
      MessageOf(load(q + "lora_A.weight", "base_model.model.model.layers.2.self_attn.o_proj.lora_B.weight")),
      "is missing");
  EXPECT_SAYS(
      MessageOf(load(q + "lora_A.weight", "base_model.model.model.layers.1.self_attn.o_proj.lora_B.weight")),
      "layers 1 and 2");
  EXPECT_SAYS(
      MessageOf(load(q + "lora_A.weight", "base_model.model.model.layers.2.self_attn.w_proj.lora_B.weight")),
      "w_proj");

  std::filesystem::remove(folder_ / "adapter_model.safetensors");
  WriteTextFile(folder_ / "adapter_model.bin", "pickle").OrThrow();
  EXPECT_SAYS(MessageOf(LoadAdapter(folder_, config, false, 64)), "save_pretrained");
}

}  // namespace
}  // namespace rung::model
