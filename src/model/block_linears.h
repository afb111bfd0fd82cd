// The linear layers of a decoder block: what each is called, its shape, and its places in a block and among
// the low-rank pairs.
#pragma once

#include <string>
#include <vector>

#include "model/config.h"
#include "model/weights.h"
#include "nn/block.h"

namespace rung::model {

struct BlockLinear {
  const char* role;  // "q", "qkv", "gate_up": whatever its family calls it
  std::string Names::*name;
  int64_t rows, cols;  // (out, in)
  bool bias;
  const nn::Lora* nn::BlockLoras::*pair;
  nn::Linear nn::Attention::*in_attention = nullptr;  // this or the next
  nn::Linear nn::Mlp::*in_mlp = nullptr;

  nn::Linear& Of(nn::DecoderBlock& block) const {
    return in_attention ? block.attention.*in_attention : block.mlp.*in_mlp;
  }
  const nn::Linear& Of(const nn::DecoderBlock& block) const {
    return in_attention ? block.attention.*in_attention : block.mlp.*in_mlp;
  }
};

// Those that a model of `config` has, in the order of a pass. Files depend on it: the random streams of
// low-rank pairs are numbered along it, and the sum of a base's formats goes through it.
std::vector<BlockLinear> BlockLinears(const Config& config);

}  // namespace rung::model
