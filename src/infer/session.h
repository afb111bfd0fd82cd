// Sequences in a key/value cache, advanced together: prefill of several prompts, or one token of each.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/forward.h"

namespace rung::infer {

// The next ids of one sequence.
struct Advance {
  int64_t slot = 0;
  std::span<const int32_t> ids;  // at least one
};

class Session {
 public:
  // Room for `slots` sequences of up to `capacity` tokens. adapter may be nullptr. Both outlive the session.
  Session(const cpu::Context& context, DType compute, const model::Backbone& backbone,
          const model::Adapter* adapter, int64_t slots, int64_t capacity);

  // Appends to each named sequence and returns the logits (M,V) f32 after its last id, in the given order;
  // valid until the next call. Slots are distinct; no sequence may outgrow the capacity.
  Tensor Step(std::span<const Advance> advances);

  int64_t length(int64_t slot) const { return lengths_[static_cast<size_t>(slot)]; }
  void Clear(int64_t slot) { lengths_[static_cast<size_t>(slot)] = 0; }
  int64_t capacity() const { return capacity_; }
  int64_t slots() const { return static_cast<int64_t>(lengths_.size()); }

  // The most memory that this session takes in calls of up to `rows` ids: caches, logits and the slab of any
  // such call. Works for a planned backbone too.
  uint64_t MostBytes(int64_t rows) const;
  uint64_t slab_bytes() const { return slab_ ? slab_->bytes() : 0; }  // so far

  static uint64_t CacheBytes(const model::Config& config, DType compute, const model::Adapter* adapter,
                             int64_t rows);
  void set_trace(Trace* trace) { trace_ = trace; }

 private:
  void Run(Exec& ex, const model::PassInput& input, const Tensor& logits) const;
  // Makes the slab large enough for a call of this shape with full caches: it then grows a few times at most.
  void Reserve(const model::PassInput& input);

  cpu::Context context_;
  DType compute_;
  const model::Backbone& backbone_;
  const model::Adapter* adapter_;
  int64_t capacity_;
  std::vector<int64_t> lengths_;
  model::BackboneCache backbone_cache_;
  std::optional<model::LadderCache> ladder_cache_;
  std::unique_ptr<Slab> slab_;
  std::vector<float> logits_;
  std::vector<int32_t> ids_, positions_, picked_;
  Trace* trace_ = nullptr;
};

}  // namespace rung::infer
