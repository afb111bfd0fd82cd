// Tensor names of every family: the names of transformers' modules, and llama.cpp's.
#include <map>

#include "base/error.h"
#include "model/families.h"
#include "model/weights.h"

namespace rung::model {
namespace {

// Llama's, below `root`, which ends in a dot or is empty.
Names LlamaNames(const std::string& root) {
  const std::string layer = root + "layers.{}.";
  Names names;
  names.embedding = root + "embed_tokens";
  names.final_norm = root + "norm";
  names.head = "lm_head";
  names.attention_norm = layer + "input_layernorm";
  names.mlp_norm = layer + "post_attention_layernorm";
  names.q = layer + "self_attn.q_proj";
  names.k = layer + "self_attn.k_proj";
  names.v = layer + "self_attn.v_proj";
  names.o = layer + "self_attn.o_proj";
  names.q_norm = layer + "self_attn.q_norm";
  names.k_norm = layer + "self_attn.k_norm";
  names.gate = layer + "mlp.gate_proj";
  names.up = layer + "mlp.up_proj";
  names.down = layer + "mlp.down_proj";
  return names;
}

Names SandwichNames(const std::string& root) {
  Names names = LlamaNames(root);
  names.attention_output_norm = root + "layers.{}.post_attention_layernorm";
  names.mlp_norm = root + "layers.{}.pre_feedforward_layernorm";
  names.mlp_output_norm = root + "layers.{}.post_feedforward_layernorm";
  return names;
}

Names OlmoNames(const std::string& root) {
  Names names = SandwichNames(root);
  names.attention_norm = names.mlp_norm = "";
  return names;
}

Names PhiNames(const std::string& root) {
  Names names = LlamaNames(root);
  names.q = names.k = names.v = names.gate = names.up = "";
  names.qkv = root + "layers.{}.self_attn.qkv_proj";
  names.gate_up = root + "layers.{}.mlp.gate_up_proj";
  return names;
}

Names OptNames(const std::string& root) {
  const std::string layer = root + "layers.{}.";
  Names names = LlamaNames(root);
  names.position = root + "embed_positions";
  names.project_in = root + "project_in";
  names.project_out = root + "project_out";
  names.final_norm = root + "final_layer_norm";
  names.attention_norm = layer + "self_attn_layer_norm";
  names.mlp_norm = layer + "final_layer_norm";
  names.o = layer + "self_attn.out_proj";
  names.q_norm = names.k_norm = names.gate = "";
  names.up = layer + "fc1";
  names.down = layer + "fc2";
  return names;
}

Names Gpt2Names(const std::string& root) {
  const std::string layer = root + "h.{}.";
  Names names;
  names.embedding = root + "wte";
  names.position = root + "wpe";
  names.final_norm = root + "ln_f";
  names.head = "lm_head";
  names.attention_norm = layer + "ln_1";
  names.mlp_norm = layer + "ln_2";
  names.qkv = layer + "attn.c_attn";
  names.o = layer + "attn.c_proj";
  names.up = layer + "mlp.c_fc";
  names.down = layer + "mlp.c_proj";
  return names;
}

Names NeoxNames(const std::string& root, const std::string& head) {
  const std::string layer = root + "layers.{}.";
  Names names;
  names.embedding = root + "embed_in";
  names.final_norm = root + "final_layer_norm";
  names.head = head;
  names.attention_norm = layer + "input_layernorm";
  names.mlp_norm = layer + "post_attention_layernorm";
  names.qkv = layer + "attention.query_key_value";
  names.o = layer + "attention.dense";
  names.up = layer + "mlp.dense_h_to_4h";
  names.down = layer + "mlp.dense_4h_to_h";
  return names;
}

// The first is how transformers names its modules; the others are how checkpoints were saved by earlier
// versions, or without the head's class around the model.
std::vector<Names> SpellingsOf(std::string_view family) {
  if (family == "gemma2" || family == "gemma3_text") return {SandwichNames("model."), SandwichNames("")};
  if (family == "gemma3") {
    Names inside = SandwichNames("language_model.model.");
    inside.head = "language_model.lm_head";
    return {SandwichNames("model.language_model."), inside, SandwichNames("language_model.")};
  }
  if (family == "olmo2") return {OlmoNames("model."), OlmoNames("")};
  if (family == "phi3") return {PhiNames("model."), PhiNames("")};
  if (family == "opt") return {OptNames("model.decoder."), OptNames("decoder."), OptNames("")};
  if (family == "gpt2") return {Gpt2Names("transformer."), Gpt2Names("")};
  if (family == "gpt_neox") {
    return {NeoxNames("gpt_neox.", "embed_out"), NeoxNames("gpt_neox.", "lm_head"),
            NeoxNames("", "embed_out")};
  }
  return {LlamaNames("model."), LlamaNames("")};
}

const std::vector<Names>& Spellings(std::string_view family) {
  static const std::map<std::string, std::vector<Names>, std::less<>> all = [] {
    std::map<std::string, std::vector<Names>, std::less<>> table;
    for (const Family& row : Families()) table[std::string(row.type)] = SpellingsOf(row.type);
    return table;
  }();
  const auto found = all.find(family);
  RUNG_CHECK(found != all.end(), "names: the family is not known");
  return found->second;
}

Names MakeGgufNames(bool gated, bool fused) {
  Names names;
  names.embedding = "token_embd";
  names.position = "position_embd";
  names.final_norm = "output_norm";
  names.head = "output";
  names.attention_norm = "blk.{}.attn_norm";
  names.attention_output_norm = "blk.{}.post_attention_norm";
  names.mlp_norm = "blk.{}.ffn_norm";
  names.mlp_output_norm = "blk.{}.post_ffw_norm";
  names.q = "blk.{}.attn_q";
  names.k = "blk.{}.attn_k";
  names.v = "blk.{}.attn_v";
  names.qkv = "blk.{}.attn_qkv";
  names.o = "blk.{}.attn_output";
  names.q_norm = "blk.{}.attn_q_norm";
  names.k_norm = "blk.{}.attn_k_norm";
  if (gated) names.gate = "blk.{}.ffn_gate";
  names.up = "blk.{}.ffn_up";
  if (fused) names.gate_up = "blk.{}.ffn_up";
  names.down = "blk.{}.ffn_down";
  return names;
}

}  // namespace

std::string Names::Layer(const std::string& pattern, int64_t layer) {
  std::string name = pattern;
  if (const size_t at = name.find("{}"); at != std::string::npos) name.replace(at, 2, std::to_string(layer));
  return name;
}

const Names& HfNames(const Config& config) { return Spellings(config.family).front(); }

const Names& FindHfNames(const Config& config, const std::function<bool(const std::string&)>& has) {
  const std::vector<Names>& spellings = Spellings(config.family);
  // A tensor of a layer, for a tied embedding may be kept under the head's name; the head where two
  // spellings differ by it alone.
  const auto matches = [&](const Names& names) {
    return has(Names::Layer(names.down, 0)) && (config.tied_head || has(names.head));
  };
  for (const Names& names : spellings) {
    if (matches(names)) return names;
  }
  for (const Names& names : spellings) {
    if (has(Names::Layer(names.down, 0))) return names;
  }
  return spellings.front();
}

const Names& GgufNames(const Config& config) {
  static const Names gated = MakeGgufNames(true, false), plain = MakeGgufNames(false, false),
                     fused = MakeGgufNames(false, true);
  return config.fused_gate_up ? fused : config.gated_mlp ? gated : plain;
}

}  // namespace rung::model
