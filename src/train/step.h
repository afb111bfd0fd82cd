// One micro-batch, start to end. The same text is run by a planning Exec to learn the bytes and by a running
// one for every batch; its control flow depends on shapes, never on values.
#pragma once

#include "model/forward.h"

namespace rung::train {

// Forward, loss and, when `learn`, backward.
//   adapter  nullptr: the backbone alone (evaluation)
//   loss     (1,M) nats of each target
//   best     (1,M) i32 most probable token of each target row; nullptr when not wanted
// Gradients of the SUM of losses are added to the adapter's: whoever updates divides by the number of
// targets, so that k micro-batches and one big batch are the same.
void Step(Exec& ex, const model::Backbone& backbone, const model::Adapter* adapter,
          const model::BatchInput& batch, bool learn, Out loss, const Out* best);

// Of the dropout masks of a micro-batch, both counted from 0. A pure function of the place in the run: a
// resumed run drops out the same.
inline uint64_t DrawOf(int64_t step, int64_t micro_batch, int64_t gradient_accumulation) {
  return static_cast<uint64_t>(step * gradient_accumulation + micro_batch + 1);
}

}  // namespace rung::train
