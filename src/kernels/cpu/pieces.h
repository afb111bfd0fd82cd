// What drivers of kernels share: scratch handed out in aligned pieces, and how many threads an amount of work
// is worth.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/rounding.h"
#include "kernels/cpu/isa.h"

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

// Of row-wise work. Entering a parallel region costs some microseconds: what one core needs for about 16,384
// elements.
inline int ThreadsFor(const Context& context, int64_t elements) {
  return elements < 16384 ? 1 : context.threads;
}

}  // namespace rung::cpu
