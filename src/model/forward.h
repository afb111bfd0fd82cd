// One pass of a batch through backbone and ladder, up to the head's input. Training, evaluation, prefill and
// a decode step of many sequences are this one call; what differs is which rows are wanted and whether caches
// are given.
#pragma once

#include <optional>
#include <span>

#include "data/batch.h"
#include "model/backbone.h"
#include "model/ladder.h"

namespace rung::model {

// What a pass reads. Views: the caller keeps the arrays alive.
struct PassInput {
  Tensor ids;          // (1,N) i32
  nn::RowLayout rows;  // positions and sequences
  Tensor picked;       // (1,M) i32: rows whose head input is wanted, ascending
};

// Earlier keys and values, for generation. Empty spans: none.
struct PassCaches {
  std::span<const nn::KvCache> backbone, ladder;
};

class Pass {
 public:
  // ladder may be nullptr: the backbone alone. saving: Backward will follow.
  Pass(Exec& ex, const Backbone& backbone, const Ladder* ladder, const PassInput& input, bool saving,
       const PassCaches& caches);

  // z (M,C) f32 = x_L[picked] + scale * U s_l[picked]
  void Forward(Out z);
  // dz (M,C) f32: consumed. Adds to the ladder's gradients.
  void Backward(Acc dz);

 private:
  Exec& ex_;
  const Backbone& backbone_;
  const Ladder* ladder_;
  const PassInput& input_;
  bool saving_;
  PassCaches caches_;
  std::optional<LadderPass> climb_;
  Tensor picked_state_;  // (M,S), kept for the gradient of U
};

// The arrays of a data::Batch as a pass reads them: target rows are picked out.
class BatchInput {
 public:
  explicit BatchInput(const data::Batch& batch);  // `batch` outlives it
  BatchInput(const BatchInput&) = delete;
  BatchInput& operator=(const BatchInput&) = delete;
  const PassInput& pass() const { return pass_; }
  Tensor target() const { return target_; }  // (1,M) i32
  int64_t target_count() const { return static_cast<int64_t>(targets_.size()); }

 private:
  std::vector<int32_t> picked_, targets_;
  PassInput pass_;
  Tensor target_;
};

}  // namespace rung::model
