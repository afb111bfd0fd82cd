#include "tensor/arena.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace rung {

const char* NameOf(Use use) {
  constexpr const char* kNames[kUseCount] = {
      "taps", "rung activations", "saved activations", "low-rank states", "backbone scratch", "head"};
  return kNames[static_cast<int>(use)];
}

Arena::Arena(std::byte* base, size_t capacity) : base_(base), capacity_(capacity) {
  RUNG_CHECK(base && capacity > 0, "a running arena needs memory");
  RUNG_CHECK(reinterpret_cast<uintptr_t>(base) % kAlignment == 0, "arena base is not aligned");
}

Tensor Arena::Keep(DType dtype, int64_t rows, int64_t cols, Use use, const char* label) {
  return Place(dtype, rows, cols, use, label, true);
}

Tensor Arena::Scratch(DType dtype, int64_t rows, int64_t cols, Use use, const char* label) {
  return Place(dtype, rows, cols, use, label, false);
}

Tensor Arena::Place(DType dtype, int64_t rows, int64_t cols, Use use, const char* label, bool keep) {
  RUNG_CHECK(rows >= 0 && cols >= 0, "negative extent");
  const size_t wanted = static_cast<size_t>(rows) * static_cast<size_t>(cols) * SizeOf(dtype);
  const size_t bytes = (wanted + kAlignment - 1) / kAlignment * kAlignment;
  const size_t total = keep_used_ + scratch_used_ + bytes;
  if (!planning() && total > capacity_) {
    throw Error(ExitCode::kNoMemory,
                fmt::format("arena: {} needs {} bytes, {} of {} are in use: the plan and the run differ",
                            label, bytes, keep_used_ + scratch_used_, capacity_));
  }
  size_t offset = keep_used_;
  if (keep) {
    keep_used_ += bytes;
    keep_.push_back({bytes, use});
  } else {
    scratch_used_ += bytes;
    scratch_.push_back({bytes, use});
    // Planned scratch counts down from address zero: never dereferenced, only subtracted.
    offset = capacity_ - scratch_used_;
  }
  live_[static_cast<int>(use)] += bytes;
  if (total > peak_.bytes) {
    peak_.bytes = total;
    peak_.at = label;
    std::copy(std::begin(live_), std::end(live_), std::begin(peak_.by_use));
  }
  // Integer arithmetic: pointer arithmetic on null is undefined.
  auto* data = reinterpret_cast<std::byte*>(reinterpret_cast<uintptr_t>(base_) + offset);
  return Tensor{data, dtype, rows, cols, cols};
}

void Arena::ResetPeak() {
  peak_ = ArenaPeak{};
  peak_.bytes = keep_used_ + scratch_used_;
}

void Arena::Pop(std::vector<Block>* stack, size_t* used, size_t depth) {
  RUNG_CHECK(depth <= stack->size(), "frames of the arena are not nested");
  while (stack->size() > depth) {
    const Block block = stack->back();
    *used -= block.bytes;
    live_[static_cast<int>(block.use)] -= block.bytes;
    stack->pop_back();
  }
}

}  // namespace rung
