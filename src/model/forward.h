// One pass of a batch through backbone and adapter, up to the head's input. Training, evaluation, prefill and
// a decode step of many sequences are this one call; what differs is which rows are wanted and whether caches
// are given.
//
//   layers below the first crossed one   run forward in place; taps go to the ladder
//   the ladder's output joins            z = x + scale * U s
//   crossed layers                       run with what their backward pass needs; low-rank pairs stand here
#pragma once

#include <optional>
#include <span>

#include "data/batch.h"
#include "model/adapter.h"
#include "model/crossed_layers.h"

namespace rung::model {

// The states that cross from the layers below the first crossed one: all that the rest of a training step
// reads of them.
struct CrossingStates {
  std::vector<StoredTap> taps;
  // The residual stream below the first crossed layer: (N,C) f32, or (M,C), the picked rows, when no layer
  // is crossed.
  Tensor x;
};
// Where they may come from instead, or go to as well (a tap cache). Called while running, never while
// planning; at most one of the two is set.
struct CrossingIo {
  std::function<void(const CrossingStates&)> load, store;
};

// What a pass reads. Views: the caller keeps the arrays alive.
struct PassInput {
  Tensor ids;                            // (1,N) i32
  nn::RowLayout rows;                    // positions and sequences
  Tensor picked;                         // (1,M) i32: rows whose head input is wanted, ascending
  uint64_t draw = 0;                     // of dropout masks; 0: evaluation
  const CrossingIo* crossing = nullptr;  // saving passes with a ladder only
};

// Earlier keys and values, for generation. Empty spans: none.
struct PassCaches {
  std::span<const nn::KvCache> backbone, ladder;
};

class Pass {
 public:
  // adapter may be nullptr: the backbone alone. saving: Backward will follow.
  Pass(Exec& ex, const Backbone& backbone, const Adapter* adapter, const PassInput& input, bool saving,
       const PassCaches& caches);

  // z (M,C) f32: the residual stream below the final norm, of the picked rows.
  void Forward(Out z);
  // dz (M,C) f32: consumed. Adds to the adapter's gradients.
  void Backward(Acc dz);

 private:
  nn::BlockCall CallOf(int64_t layer) const;
  // The residual stream below the first crossed layer in x, taps absorbed.
  void RunBelow(const Tensor& x);
  void LoadBelow(const Tensor& x);
  void StoreBelow(const Tensor& x);
  // The joined state of the rows that are wanted when no layer is crossed.
  void JoinPicked(const Tensor& x, Out z);
  Tensor RunCrossed(Tensor x);
  void JoinBack(Acc dx, const Tensor& state);

  Exec& ex_;
  const Backbone& backbone_;
  const Adapter* adapter_;
  const Ladder* ladder_ = nullptr;
  const PassInput& input_;
  bool saving_;
  PassCaches caches_;
  int64_t first_crossed_;
  std::optional<LadderPass> climb_;
  Tensor joined_state_;  // the ladder's last state: picked rows (M,S), or (N,S) when layers are crossed
  std::optional<CrossedLayers> crossed_;  // of a saving pass, where there are any
};

// The arrays of a data::Batch as a pass reads them: target rows are picked out.
class BatchInput {
 public:
  explicit BatchInput(const data::Batch& batch);  // `batch` outlives it
  BatchInput(const BatchInput&) = delete;
  BatchInput& operator=(const BatchInput&) = delete;
  const PassInput& pass() const { return pass_; }
  void set_draw(uint64_t draw) { pass_.draw = draw; }
  void set_crossing(const CrossingIo* crossing) { pass_.crossing = crossing; }
  Tensor target() const { return target_; }  // (1,M) i32
  int64_t target_count() const { return static_cast<int64_t>(targets_.size()); }

 private:
  std::vector<int32_t> picked_, targets_;
  PassInput pass_;
  Tensor target_;
};

}  // namespace rung::model
