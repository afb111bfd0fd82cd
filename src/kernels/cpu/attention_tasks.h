// What the drivers of attention share: scratch handed out in aligned pieces, and tasks handed out to threads.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

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

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

}  // namespace rung::cpu
