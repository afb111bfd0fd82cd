// Low-rank pairs beside the linear layers of a backbone (LoRA, arXiv 2106.09685; QLoRA when the backbone is
// 4-bit, arXiv 2305.14314).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/model_tensors.h"
#include "nn/block.h"

namespace rung::model {

struct LoraSpec {
  int64_t R = 64;
  double alpha = 16.0;
  double dropout = 0.0;
  bool rank_stabilized = false;      // scale alpha / sqrt(R) instead of alpha / R (arXiv 2312.03732)
  std::vector<std::string> targets;  // of LoraTargets()
  std::vector<int64_t> layers;       // 0-based, ascending

  float scale() const;
};

// "q_proj", "k_proj", ...: the linear layers of a block that `config` has, in the order of a pass. Where two
// share a name, with the module above: "attn.c_proj", "mlp.c_proj".
std::vector<std::string> LoraTargets(const Config& config);
// A linear layer as PEFT names it: "model.layers." <layer> "." "self_attn.q_proj", and its target.
struct LoraModule {
  std::string before, module, target;
  bool operator==(const LoraModule&) const = default;
};
// Those of every kind of model, each in the order of a pass.
const std::vector<std::vector<LoraModule>>& LoraModules();
// "all" or a list such as "q_proj,v_proj". A name that two layers share ("c_proj") means both.
Result<std::vector<std::string>> ParseTargets(const std::string& text, const Config& config);

// The pairs of a model. Parameters have PEFT's names; where their numbers live is the owner's business.
class LoraSet {
 public:
  LoraSet(const Config& config, const LoraSpec& spec);

  const LoraSpec& spec() const { return spec_; }
  // nullptr for a layer without pairs.
  const nn::BlockLoras* layer(int64_t layer) const;
  void ForEachParam(const nn::VisitParam& visit);
  // A uniform in +-1/sqrt(K), as PEFT; B stays zero. The seed is also that of the dropout masks.
  void Initialize(uint64_t seed);
  // Files have rows in the order of Hugging Face's models, whatever the model was read from: a file's row of
  // row `row` of the parameter `name`.
  int64_t FileRow(std::string_view name, int64_t row) const;

 private:
  LoraSpec spec_;
  // How the model keeps the rows of q and k, and those of a fused layer of q, k and v.
  ModelTensor rotary_, fused_;
  std::vector<std::unique_ptr<nn::Lora>> pairs_;
  std::vector<std::unique_ptr<nn::BlockLoras>> layers_;  // one per layer of the model, or null
};

}  // namespace rung::model
