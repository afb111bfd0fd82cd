// What attention and MLP share: memory of a call, and the low-rank pairs beside their layers.
#pragma once

#include "nn/block.h"

namespace rung::nn {

// Kept when a backward pass will follow, else scratch of the current frame.
inline Tensor Take(Exec& ex, const BlockShape& shape, bool keep, DType dtype, int64_t rows, int64_t cols,
                   const char* label) {
  return keep ? ex.arena().Keep(dtype, rows, cols, shape.saved_use, label)
              : ex.arena().Scratch(dtype, rows, cols, shape.use, label);
}

// The state of a low-rank pair, when there is one and it is kept.
inline Tensor TakeLow(Exec& ex, bool keep, int64_t rows, const Lora* lora) {
  if (!keep || !lora) return Tensor{};
  return ex.arena().Keep(DType::kF32, rows, lora->a.value.rows(), Use::kLowRank, "low-rank state");
}

// The backward pass leaves gradients at the layer.
inline bool Learns(const Linear& layer, const Lora* pair) { return layer.trained || pair; }

inline const BlockLoras& PairsOf(const BlockCall& call) {
  static constexpr BlockLoras kNone;
  return call.loras ? *call.loras : kNone;
}

}  // namespace rung::nn
