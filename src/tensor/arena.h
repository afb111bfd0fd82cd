// One slab, two stacks growing towards each other.
//
//   base                                                        base+capacity
//   | kept across layers  ->              <-  scratch of one scope |
//
// Keep: what a later layer or the backward pass will read. Freed by KeepFrame, in reverse order.
// Scratch: what one function needs while it runs. Freed when its Frame ends.
// Both are stacks, hence no fragmentation: the peak is the largest sum of the two.
//
// An arena of capacity 0 plans: addresses start at null, nothing may be read or written through
// them, and the high-water mark is the slab that a run of the same calls needs.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace rung {

// What memory is for. The rows of the plan's table.
//   kTaps      tapped states and what standardises them
//   kRungs     activations of the ladder
//   kSaved     activations of frozen blocks that a backward pass will read
//   kLowRank   states of low-rank pairs
//   kBackbone  scratch of frozen blocks
//   kHead      head input, loss and their gradients
enum class Use : uint8_t { kTaps, kRungs, kSaved, kLowRank, kBackbone, kHead };
inline constexpr int kUseCount = 6;
const char* NameOf(Use use);

struct ArenaPeak {
  size_t bytes = 0;               // the largest sum of both stacks
  size_t by_use[kUseCount] = {};  // what was live then
  std::string at;                 // the label of the allocation that reached it
};

class Arena {
 public:
  static constexpr size_t kAlignment = 64;  // one cache line, one AVX-512 vector

  Arena() = default;                        // plans
  Arena(std::byte* base, size_t capacity);  // runs; base aligned to kAlignment, outlives the arena

  bool planning() const { return capacity_ == 0; }
  Tensor Keep(DType dtype, int64_t rows, int64_t cols, Use use, const char* label);
  Tensor Scratch(DType dtype, int64_t rows, int64_t cols, Use use, const char* label);

  const ArenaPeak& peak() const { return peak_; }
  size_t capacity() const { return capacity_; }
  void ResetPeak();

 private:
  friend class Frame;
  friend class KeepFrame;
  Tensor Place(DType dtype, int64_t rows, int64_t cols, Use use, const char* label, bool keep);

  struct Block {
    size_t bytes;
    Use use;
  };
  void Pop(std::vector<Block>* stack, size_t* used, size_t depth);

  std::byte* base_ = nullptr;
  size_t capacity_ = 0, keep_used_ = 0, scratch_used_ = 0;
  std::vector<Block> keep_, scratch_;
  size_t live_[kUseCount] = {};
  ArenaPeak peak_;
};

// Frees the scratch that was taken since it was made.
class Frame {
 public:
  explicit Frame(Arena& arena) : arena_(arena), depth_(arena.scratch_.size()) {}
  ~Frame() { arena_.Pop(&arena_.scratch_, &arena_.scratch_used_, depth_); }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;

 private:
  Arena& arena_;
  size_t depth_;
};

// The same for the kept side: one training step, one recomputed rung.
class KeepFrame {
 public:
  explicit KeepFrame(Arena& arena) : arena_(arena), depth_(arena.keep_.size()) {}
  ~KeepFrame() { arena_.Pop(&arena_.keep_, &arena_.keep_used_, depth_); }
  KeepFrame(const KeepFrame&) = delete;
  KeepFrame& operator=(const KeepFrame&) = delete;

 private:
  Arena& arena_;
  size_t depth_;
};

}  // namespace rung
