// Low-rank pairs beside the linear layers of a backbone (LoRA, arXiv 2106.09685; QLoRA when the backbone is
// 4-bit, arXiv 2305.14314).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "model/config.h"
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

// "q_proj", "k_proj", ...: the linear layers of a block that `config` has, in the order of a pass.
std::vector<std::string> LoraTargets(const Config& config);
// "all" or a list such as "q_proj,v_proj".
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
  // D where the model keeps q and k rows in RoPE's pair order (docs/adr/0012); 0: in Hugging Face's.
  int64_t paired_head() const { return paired_head_; }

 private:
  LoraSpec spec_;
  int64_t paired_head_ = 0;
  std::vector<std::unique_ptr<nn::Lora>> pairs_;
  std::vector<std::unique_ptr<nn::BlockLoras>> layers_;  // one per layer of the model, or null
};

}  // namespace rung::model
