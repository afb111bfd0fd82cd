// The table of model families: what a family's configuration file does not say. A family is a row of
// switches and a table of tensor names (names.cc), never a class.
#pragma once

#include <span>
#include <string_view>

#include "model/config.h"

namespace rung::model {

struct Family {
  std::string_view type;          // model_type of config.json
  std::string_view architecture;  // general.architecture of GGUF; empty: llama.cpp has none
  std::string_view model_class;   // of transformers
  // GGUF keeps the rows of q and k in RoPE's pair order (docs/adr/0012).
  bool gguf_pairs = false;

  nn::NormKind norm = nn::NormKind::kRms;
  // Where files store gain - 1; GGUF files never do.
  float norm_offset = 0.0f;
  bool norm_bias = false;
  bool norms = true, output_norms = false;
  nn::QkvRows qkv = nn::QkvRows::kSeparate;
  nn::QkNorm qk_norm = nn::QkNorm::kNone;
  bool gated = true, fused_gate_up = false;
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
  bool transposed = false;  // in Hugging Face's files
  bool no_rope = false;
  // Where config.json says nothing.
  bool tied_head = false;
  std::string_view activation = "silu";
  double norm_eps = 1e-6, theta = 10000.0;
  int64_t head_size = 0;  // 0: C / Hq
  int64_t context = 2048;
  int64_t heads = 0, kv_heads = 0, vocabulary = 0;  // 0: the file must say, kv_heads: as heads
  int64_t window = 0;  // of a config.json without the key: GGUF files have defaults of their own
};

std::span<const Family> Families();
// nullptr: not known.
const Family* FindFamily(std::string_view type);
const Family* FindArchitecture(std::string_view architecture);
// A family of mixtures of experts, which are not run (docs/adr/0018).
bool IsMixture(std::string_view type);
// "...: mixture_of_experts ... " for both kinds of file.
std::string MixtureMessage(const std::string& where, std::string_view what);

// The switches of the row, as Hugging Face's files have them.
void SetSwitches(const Family& family, Config* config);
// nullopt: not a function that is known.
std::optional<cpu::Activation> ParseActivation(std::string_view name);
std::string KnownActivations();  // "silu, swish, ...": for messages
// Extents within what the engine can run.
Result<Config> Validated(Config config, const std::string& where);

}  // namespace rung::model
