// What the drivers of attention share: scratch handed out in aligned pieces, and tasks handed out to threads.
#pragma once

#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/attention.h"

namespace rung::cpu {

inline constexpr size_t kPieceAlignment = 64;

constexpr size_t PieceBytes(int64_t count, size_t element_size) {
  const size_t bytes = static_cast<size_t>(count) * element_size;
  return (bytes + kPieceAlignment - 1) / kPieceAlignment * kPieceAlignment;
}

// Cuts scratch into pieces. With a null base it only counts, so that one function both measures and lays out.
class Pieces {
 public:
  explicit Pieces(std::byte* base) : base_(base) {}

  template <class T>
  T* Take(int64_t count) {
    T* piece = base_ ? reinterpret_cast<T*>(base_ + used_) : nullptr;
    used_ += PieceBytes(count, sizeof(T));
    return piece;
  }
  size_t used() const { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

// Numbers 0, 1, 2, ... each to one caller. Which thread runs a task never changes its result.
class TaskCounter {
 public:
  int64_t Next() { return next_.fetch_add(1, std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> next_{0};
};

// The kernels' f(score) for the few values that drivers need: they agree to the 4e-7 of Tanh (vec.h).
inline float CapScore(float score, float cap) { return cap > 0.0f ? cap * std::tanh(score / cap) : score; }

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

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
