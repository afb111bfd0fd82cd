// What configuration files say and what is refused, for both kinds of file, and RoPE's frequencies.
#include "model/config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "model/families.h"
#include "model/weights.h"

namespace rung::model {
namespace {

std::string Json(const std::string& family, const std::string& more) {
  return R"({"model_type": ")" + family +
         R"(", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4,
           "num_key_value_heads": 4, "vocab_size": 96, "max_position_embeddings": 256)" +
         (more.empty() ? "" : ", " + more) + "}";
}

Config Read(const std::string& family, const std::string& more) {
  return ParseHfConfig(Json(family, more), "config.json").OrThrow();
}

std::string Refusal(const std::string& family, const std::string& more) {
  const Result<Config> read = ParseHfConfig(Json(family, more), "config.json");
  return read.ok() ? "" : read.failure().message;
}

TEST(HfConfig, WhatIsNotKnownIsRefusedByKeyAndValue) {
  struct Case {
    const char *family, *more, *says;
  };
  const Case cases[] = {
      {"llama", R"("hidden_act": "mish")", "hidden_act \"mish\""},
      {"llama", R"("rope_scaling": {"type": "dynamic", "factor": 2.0})", "type \"dynamic\""},
      {"llama", R"("rope_scaling": {"type": "linear", "factor": 2.0, "warp": 3})", "warp 3"},
      {"llama", R"("rope_scaling": {"type": "linear", "factor": "two"})",
       "factor in rope_scaling is not a number"},
      {"llama",
       R"("sliding_window": 64, "layer_types": ["sliding_attention", "full_attention", "full_attention",
        "full_attention"])",
       "layer_types"},
      {"llama", R"("partial_rotary_factor": 0.5)", "partial_rotary_factor"},
      {"llama", R"("num_local_experts": 8)", "mixtures of experts"},
      {"mistral", R"("attention_bias": true)", "attention_bias true"},
      {"mistral", R"("sliding_window": "wide")", "sliding_window \"wide\""},
      {"mistral", R"("sliding_window": -3)",
       "config.json: sliding_window -3 is negative: a number of tokens"},
      {"gemma2", R"("sliding_window": -3)", "sliding_window -3 is negative"},
      {"qwen2", R"("mlp_bias": true)", "mlp_bias true"},
      {"gpt2", R"("scale_attn_by_inverse_layer_idx": true)", "scale_attn_by_inverse_layer_idx true"},
      {"gpt2", R"("add_cross_attention": true)", "add_cross_attention true"},
      {"opt", R"("layer_norm_elementwise_affine": false)", "layer_norm_elementwise_affine false"},
      {"gemma2", R"("use_bidirectional_attention": true)", "use_bidirectional_attention true"},
      {"gemma2", R"("layer_types": ["full_attention", "full_attention", "chunked", "full_attention"])",
       "\"chunked\""},
      {"gemma3_text", R"("attn_logit_softcapping": 50.0)", "attn_logit_softcapping 50.0"},
      {"gemma3", "", "text_config"},
      {"gemma3", R"("text_config": {"final_logit_softcapping": 30.0})", "final_logit_softcapping 30.0"},
      {"smollm3", R"("no_rope_layers": [1, 0])", "no_rope_layers"},
      {"phi3", R"("rope_scaling": {"type": "longrope", "short_factor": [1.0, 1.0]})", "long_factor"},
      {"phi3", R"("rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [2.0]})",
       "1 frequency factors"},
      {"gpt_neox", R"("rotary_pct": 0.2)", "RoPE turns"},
      {"gpt_neox", R"("rotary_pct": 1.5)", "not a part of it"},
      {"mixtral", "", "model_type mixtral: mixtures of experts"},
      {"qwen3_moe", "", "model_type qwen3_moe: mixtures of experts"},
      {"bert", "", "unknown architecture \"bert\""}};
  for (const Case& c : cases) {
    EXPECT_NE(Refusal(c.family, c.more).find(c.says), std::string::npos)
        << c.family << " " << c.more << ": " << Refusal(c.family, c.more);
  }
}

TEST(HfConfig, GemmaScalesTheEmbeddingInTheTypeOfTheModel) {
  const auto scale = [](const std::string& text) {
    return ParseHfConfig(text, "config.json").OrThrow().embedding_scale;
  };
  const auto text = [](const char* type) {
    return std::string(R"({"model_type": "gemma", "hidden_size": 3072, "intermediate_size": 96,
      "num_hidden_layers": 1, "num_attention_heads": 4, "vocab_size": 96, "dtype": ")") +
           type + "\"}";
  };
  EXPECT_EQ(scale(text("bfloat16")), 55.5f);
  EXPECT_EQ(scale(text("float32")), static_cast<float>(std::sqrt(3072.0)));
}

// transformers' own names of its functions, by the formulas of its ACT2FN.
TEST(HfConfig, ActivationsByTheirNames) {
  const auto activation = [](const char* name) {
    return Read("gpt_neox", "\"hidden_act\": \"" + std::string(name) + "\"").activation;
  };
  for (const char* name : {"gelu", "gelu_python"})
    EXPECT_EQ(activation(name), cpu::Activation::kGelu) << name;
  for (const char* name :
       {"gelu_new", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"}) {
    EXPECT_EQ(activation(name), cpu::Activation::kGeluTanh) << name;
  }
  EXPECT_NE(Refusal("gpt_neox", R"("hidden_act": "gelu_10")").find("gelu_fast, "), std::string::npos);
}

// transformers' defaults of a key that is not there, which is another thing than null.
TEST(HfConfig, WindowsWithoutTheKey) {
  EXPECT_EQ(Read("mistral", "").window, 4096);
  for (const char* family : {"qwen2", "qwen3"}) {
    EXPECT_EQ(Read(family, "").window, 0);
    const char* used = R"("use_sliding_window": true, "max_window_layers": 2)";
    EXPECT_EQ(Read(family, used).window, 4096) << family;
    EXPECT_EQ(Read(family, used).windowed, (std::vector<int64_t>{2, 3})) << family;
  }
  for (const char* family : {"llama", "phi3", "smollm3", "olmo2", "granite"}) {
    EXPECT_EQ(Read(family, "").window, 0) << family;
  }
}

TEST(HfConfig, WindowsByFamily) {
  EXPECT_TRUE(Read("mistral", R"("sliding_window": 16)").windowed.empty());
  EXPECT_EQ(Read("mistral", R"("sliding_window": 16)").window, 16);
  EXPECT_EQ(Read("mistral", R"("sliding_window": null)").window, 0);
  EXPECT_EQ(Read("qwen2", R"("sliding_window": 16)").window, 0);
  const Config qwen =
      Read("qwen2", R"("sliding_window": 16, "use_sliding_window": true, "max_window_layers": 2)");
  EXPECT_EQ(qwen.windowed, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(Read("qwen2", R"("sliding_window": 16, "use_sliding_window": true)").window, 0);
  EXPECT_EQ(Read("gemma2", R"("sliding_window": 16)").windowed, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(Read("gemma2", "").window, 4096);
  const Config gemma3 = Read("gemma3_text", R"("sliding_window": 16, "sliding_window_pattern": 2)");
  EXPECT_EQ(gemma3.windowed, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(gemma3.local_rope->theta, 10000.0);
  EXPECT_EQ(gemma3.rope.theta, 1e6);
  EXPECT_EQ(gemma3.block(0).window, 16);
  EXPECT_EQ(gemma3.block(1).window, 0);
  const Config smol = Read("smollm3", R"("no_rope_layer_interval": 2)");
  EXPECT_EQ(smol.unrotated, (std::vector<int64_t>{1, 3}));
  EXPECT_FALSE(smol.has_rope(1));
}

// Both spellings of the same positions.
TEST(HfConfig, Gemma3RopeOfOldAndNewFiles) {
  const Config old = Read("gemma3_text", R"("rope_theta": 5e5, "rope_local_base_freq": 2e4,
      "rope_scaling": {"rope_type": "linear", "factor": 8.0})");
  const Config nested = Read("gemma3_text", R"("rope_parameters": {
      "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 5e5},
      "sliding_attention": {"rope_type": "default", "rope_theta": 2e4}})");
  EXPECT_EQ(old, nested);
  EXPECT_EQ(old.rope.scaling, RopeScaling::kLinear);
  EXPECT_EQ(old.local_rope->scaling, RopeScaling::kNone);
}

TEST(HfConfig, YarnMagnitudes) {
  const auto magnitude = [](const std::string& more) {
    return Read("qwen2",
                R"("rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64)" +
                    more + "}")
        .rope.magnitude;
  };
  EXPECT_DOUBLE_EQ(magnitude(""), 0.1 * std::log(4.0) + 1.0);
  EXPECT_DOUBLE_EQ(magnitude(R"(, "attention_factor": 1.5)"), 1.5);
  EXPECT_DOUBLE_EQ(magnitude(R"(, "mscale": 0.5, "mscale_all_dim": 2.0)"),
                   (0.05 * std::log(4.0) + 1.0) / (0.2 * std::log(4.0) + 1.0));
}

TEST(RopeAngles, LongFactorsBeyondTheOriginalContext) {
  RopeConfig rope;
  rope.scaling = RopeScaling::kLongRope;
  rope.original_context = 8;
  rope.divisors = {1.0f, 2.0f};
  rope.long_divisors = {4.0f, 8.0f};
  rope.magnitude = 2.0;
  const RopeAngles near = MakeRopeAngles(rope, 4, 8), far = MakeRopeAngles(rope, 4, 9);
  EXPECT_FLOAT_EQ(near.cos[2], static_cast<float>(2.0 * std::cos(1.0)));
  EXPECT_FLOAT_EQ(far.cos[2], static_cast<float>(2.0 * std::cos(0.25)));
  EXPECT_FLOAT_EQ(far.sin[3], static_cast<float>(2.0 * std::sin(0.01 / 8)));
}

TEST(Names, FoldersOfOtherPrefixes) {
  const auto find = [](const char* family, bool tied, std::vector<std::string> stored) {
    Config config;
    config.family = family;
    config.tied_head = tied;
    return FindHfNames(config,
                       [&](const std::string& name) {
                         return std::find(stored.begin(), stored.end(), name) != stored.end();
                       })
        .embedding;
  };
  EXPECT_EQ(find("gpt2", true, {"h.0.mlp.c_proj"}), "wte");
  EXPECT_EQ(find("gpt2", true, {"transformer.h.0.mlp.c_proj"}), "transformer.wte");
  EXPECT_EQ(find("gemma3", true, {"language_model.model.layers.0.mlp.down_proj"}),
            "language_model.model.embed_tokens");
  EXPECT_EQ(find("gemma3", true, {"model.language_model.layers.0.mlp.down_proj"}),
            "model.language_model.embed_tokens");
  EXPECT_EQ(find("opt", true, {"decoder.layers.0.fc2"}), "decoder.embed_tokens");
  Config neox;
  neox.family = "gpt_neox";
  const auto has = [](const std::string& name) {
    return name == "gpt_neox.layers.0.mlp.dense_4h_to_h" || name == "lm_head";
  };
  EXPECT_EQ(FindHfNames(neox, has).head, "lm_head");
  EXPECT_EQ(HfNames(neox).head, "embed_out");
}

TEST(GgufConfig, KeysThatAreNotReadAreNamed) {
  for (const Family& family : Families()) {
    const std::string file =
        "tests/data/families/" + std::string(family.type == "gemma3_text" ? "gemma3" : family.type) + ".gguf";
    if (!IsGgufFile(file) || family.type == "gemma3") continue;
    const io::Gguf gguf = io::Gguf::Open(file).OrThrow();
    EXPECT_TRUE(ConfigWarnings(gguf).empty()) << ConfigWarnings(gguf).front();
  }
}

// A GGUF file of an embedding (2,8) alone: each entry a key and a u32.
std::vector<std::byte> GgufBytes(const std::string& architecture,
                                 const std::vector<std::pair<std::string, uint32_t>>& keys) {
  std::string bytes = "GGUF";
  const auto put = [&](auto value) { bytes.append(reinterpret_cast<const char*>(&value), sizeof value); };
  const auto text = [&](const std::string& value) {
    put(static_cast<uint64_t>(value.size()));
    bytes += value;
  };
  constexpr uint32_t kU32 = 4, kString = 8;
  put(uint32_t{3});
  put(uint64_t{1});
  put(static_cast<uint64_t>(keys.size() + 1));
  text("general.architecture");
  put(kString);
  text(architecture);
  for (const auto& [key, value] : keys) {
    text(architecture + "." + key);
    put(kU32);
    put(value);
  }
  text("token_embd.weight");
  put(uint32_t{2});
  put(uint64_t{8});
  put(uint64_t{2});
  put(uint32_t{0});  // f32
  put(uint64_t{0});
  bytes.resize((bytes.size() + 31) / 32 * 32 + 2 * 8 * sizeof(float));
  std::vector<std::byte> raw(bytes.size());
  std::memcpy(raw.data(), bytes.data(), bytes.size());
  return raw;
}

using Keys = std::vector<std::pair<std::string, uint32_t>>;

std::vector<std::byte> Shaped(const std::string& architecture, Keys keys) {
  keys.insert(
      keys.end(),
      {{"block_count", 4}, {"embedding_length", 8}, {"feed_forward_length", 4}, {"attention.head_count", 4}});
  return GgufBytes(architecture, keys);
}

Result<Config> GgufConfig(const std::string& architecture, Keys keys) {
  const std::vector<std::byte> bytes = Shaped(architecture, std::move(keys));
  return ConfigFromGguf(io::Gguf::Parse(bytes, "model.gguf").OrThrow());
}

TEST(GgufConfig, MixturesAndStrangersAreRefusedByName) {
  const auto message = [](const char* architecture, Keys keys) {
    const Result<Config> config = GgufConfig(architecture, std::move(keys));
    return config.ok() ? std::string() : config.failure().message;
  };
  EXPECT_NE(message("llama", {{"expert_count", 8}}).find("expert_count 8: mixtures of experts"),
            std::string::npos);
  EXPECT_NE(message("qwen3moe", {}).find("general.architecture qwen3moe: mixtures"), std::string::npos);
  EXPECT_NE(message("mamba", {}).find("unknown architecture \"mamba\""), std::string::npos);
  EXPECT_NE(message("llama", {{"attention.value_length", 8}}).find("keys and values"), std::string::npos);
}

TEST(GgufConfig, ANegativeWindowIsRefusedByKey) {
  const std::string key = "llama.attention.sliding_window";
  std::vector<std::byte> bytes = Shaped("llama", {{"attention.sliding_window", static_cast<uint32_t>(-3)}});
  const auto named = std::as_bytes(std::span(key));
  const auto found = std::search(bytes.begin(), bytes.end(), named.begin(), named.end());
  ASSERT_NE(found, bytes.end());
  found[static_cast<std::ptrdiff_t>(key.size())] = std::byte{5};  // i32
  const Result<Config> config = ConfigFromGguf(io::Gguf::Parse(bytes, "model.gguf").OrThrow());
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.failure().message,
            "model.gguf: llama.attention.sliding_window -3 is negative: a number of tokens is expected, or 0 "
            "for none");
}

TEST(GgufConfig, AnUnknownKeyIsAWarning) {
  const auto warnings = [](const char* architecture, Keys keys) {
    const std::vector<std::byte> bytes = Shaped(architecture, std::move(keys));
    const io::Gguf gguf = io::Gguf::Parse(bytes, "model.gguf").OrThrow();
    EXPECT_TRUE(ConfigFromGguf(gguf).ok()) << ConfigFromGguf(gguf).failure().message;
    return ConfigWarnings(gguf);
  };
  EXPECT_TRUE(
      warnings("llama", {{"context_length", 16}, {"vocab_size", 2}, {"rope.dimension_count", 2}}).empty());
  const std::vector<std::string> one = warnings("llama", {{"attention.clamp_kqv", 8}});
  ASSERT_EQ(one.size(), 1u);
  EXPECT_NE(one[0].find("llama.attention.clamp_kqv"), std::string::npos) << one[0];
  // A key that another family reads.
  EXPECT_EQ(warnings("qwen2", {{"attn_logit_softcapping", 50}}).size(), 1u);
  EXPECT_EQ(warnings("granite", {{"residual_scale", 2}}).size(), 0u);
}

TEST(GgufConfig, WhatFilesSay) {
  EXPECT_EQ(GgufConfig("gemma2", {}).OrThrow().windowed, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(GgufConfig("gemma2", {{"attention.sliding_window", 7}}).OrThrow().window, 7);
  // A config.json without the key has a default, a GGUF file none.
  for (const char* architecture : {"llama", "qwen2", "qwen3", "phi3"}) {
    EXPECT_EQ(GgufConfig(architecture, {}).OrThrow().window, 0) << architecture;
  }
  EXPECT_EQ(GgufConfig("gemma3", {{"attention.sliding_window", 7}}).OrThrow().local_rope, std::nullopt);
  const Config pattern = GgufConfig("gemma3", {{"attention.sliding_window", 7},
                                               {"attention.sliding_window_pattern", 2},
                                               {"rope.freq_base", 1000000}})
                             .OrThrow();
  EXPECT_EQ(pattern.local_rope->theta, 10000.0);
  EXPECT_EQ(GgufConfig("granite", {{"logit_scale", 8}, {"residual_scale", 0}}).OrThrow().logit_scale, 0.125f);
  EXPECT_EQ(GgufConfig("smollm3", {}).OrThrow().unrotated, (std::vector<int64_t>{3}));
  EXPECT_FALSE(GgufConfig("smollm3", {}).OrThrow().rope.half);
  EXPECT_TRUE(GgufConfig("gptneox", {}).OrThrow().parallel);
  EXPECT_EQ(GgufConfig("gpt2", {{"context_length", 16}}).OrThrow().position_rows, 16);
}

}  // namespace
}  // namespace rung::model
