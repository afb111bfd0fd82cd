// What the drivers of attention share: tasks handed out to threads, and what a shape means.
#pragma once

#include <atomic>
#include <cmath>
#include <cstdint>

#include "kernels/cpu/attention.h"

namespace rung::cpu {

// Numbers 0, 1, 2, ... each to one caller. Which thread runs a task never changes its result.
class TaskCounter {
 public:
  int64_t Next() { return next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> next_{0};
};

// The kernels' f(score) for the few values that drivers need: they agree to the 4e-7 of Tanh (vec.h).
inline float CapScore(float score, float cap) { return cap > 0.0f ? cap * std::tanh(score / cap) : score; }

// AttentionShape with its zeros resolved.
struct HeadSteps {
  int64_t q, kv;
  explicit HeadSteps(const AttentionShape& shape)
      : q(shape.q_step > 0 ? shape.q_step : shape.head_dim),
        kv(shape.kv_step > 0 ? shape.kv_step : shape.head_dim) {}
};
// The cap in units of q . k.
inline float CapOf(const AttentionShape& shape) { return shape.score_cap / shape.scale; }
// The first key that a query at this position sees.
inline int64_t FirstKey(const AttentionShape& shape, int64_t position) {
  return shape.window > 0 && position >= shape.window ? position - shape.window + 1 : 0;
}

}  // namespace rung::cpu
