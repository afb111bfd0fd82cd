// Low-rank pairs on disk, exactly as PEFT keeps them (docs/formats/adapter.md).
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "model/lora.h"

namespace rung::model {

// PEFT's adapter_config.json.
std::string PeftConfigText(const LoraSpec& spec, const Config& config, const std::string& base_model);

struct PeftAdapter {
  LoraSpec spec;
  std::string base_model;
};
// From the text of an adapter_config.json (`where` stands in messages) and the names of the tensors in the
// file `weights` beside it. Layers and linears are those that the tensors name: target_modules may be a list,
// a pattern or "all-linear". What is not known here to mean a plain pair (DoRA, trained biases, ranks that
// differ, keys of later versions) is refused by its name.
Result<PeftAdapter> ParsePeftAdapter(std::string_view text, const std::string& where,
                                     std::span<const std::string> tensors, const std::string& weights);

// Ranges, and the model's own layers and linears when there is a config.
Status CheckLoraSpec(const LoraSpec& spec, const Config* config, const std::string& where);

// "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" is a tensor of a pair.
bool IsLoraTensor(std::string_view name);
// What stands before the model's own names in those of its pairs.
inline constexpr std::string_view kPairPrefix = "base_model.model.";
// Of such a tensor the matrix that its pair stands beside: "model.layers.0.self_attn.q_proj.weight".
std::string MatrixOfPair(std::string_view name);

// True for B of q and k, whose rows are those of the heads that RoPE turns.
bool HasRotaryRows(std::string_view name);

}  // namespace rung::model
