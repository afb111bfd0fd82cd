// One pass of a batch through the ladder. What a tap leaves behind is its StoredTap: a copy in the policy's
// storage, from which the rung climbs and from which the backward pass takes the projection's gradient. It is
// also what a tap cache keeps on disk.
#pragma once

#include "base/names.h"
#include "model/ladder.h"

namespace rung::model {

// How taps are kept until the backward pass: in the compute type, or as int8 with a scale per row. A pooled
// map keeps (N,S) numbers of the compute type instead.
enum class TapStorage : uint8_t { kCompute, kInt8 };
inline constexpr Named<TapStorage> kTapStorageNames[] = {{"compute", TapStorage::kCompute},
                                                         {"int8", TapStorage::kInt8}};
static_assert(NamesAll(kTapStorageNames, TapStorage::kInt8));
enum class RungMemory : uint8_t { kKeep, kRecompute };  // what a rung keeps for its backward pass
enum class BlockMemory : uint8_t {
  kKeep,
  kRecompute
};  // what a crossed frozen block keeps: all, or its input

// Policies of a run, not part of an adapter.
struct MemoryPolicy {
  TapStorage taps = TapStorage::kCompute;
  RungMemory rungs = RungMemory::kKeep;
  BlockMemory blocks = BlockMemory::kKeep;
};

struct StoredTap {
  Tensor data;   // (N,C) compute type or i8; (N,S) compute type when pooled
  Tensor scale;  // (1,N) f32 with i8, else empty
};
// Bytes of one row of a stored tap.
size_t StoredTapRowBytes(const LadderSpec& spec, TapStorage storage, DType compute, int64_t C);

class LadderPass {
 public:
  // saving: a backward pass will follow. caches: one per rung for generation, or empty.
  LadderPass(Exec& ex, const Ladder& ladder, const MemoryPolicy& policy, const nn::RowLayout& rows,
             bool saving, std::span<const nn::KvCache> caches);

  // The backbone's sink: stores the state x (N,C) f32 after a tapped layer and climbs its rung.
  void Absorb(int64_t layer, In x);
  // Memory for the next tap, to be filled by the caller (from a cache); then ClimbStored.
  StoredTap TakeStored(int64_t C);
  void ClimbStored(const StoredTap& tap);
  // The state of the last rung (N,S), after the free rungs have run.
  Tensor Finish();
  // Stored taps so far, when saving.
  const std::vector<StoredTap>& stored() const { return stored_; }
  // ds (N,S): the gradient of the last state; consumed. Adds to the parameters' gradients.
  void Backward(Acc ds);

 private:
  struct Saved {
    Tensor projected;  // (N,S), gates that interpolate only
    Tensor previous;   // (N,S): s_{j-1}
    Tensor input;      // (N,S): u_j
    nn::DecoderBlock::Saved block;
  };
  Tensor Take(int64_t rows, int64_t cols, DType dtype, Use use, const char* label);
  void Store(const Rung& rung, In x, const StoredTap& tap);
  void Climb(size_t j, const StoredTap* tap);
  Tensor Fuse(size_t j, const StoredTap& tap, Saved* saved);
  // The tap as it is projected, standardised and f32, in tiles of rows with the index of their first.
  void ForEachTapTile(const Rung& rung, const StoredTap& tap, const std::function<void(In, int64_t)>& use);
  void StandardizeTile(const Rung& rung, In x, const Tensor& out);
  void ProjectTap(size_t j, const StoredTap& tap, const Tensor& out, bool add);
  void FuseBackward(size_t j, const Saved& saved, Acc du);
  bool pooled() const { return ladder_.spec().tap_map == TapMap::kPooled; }
  nn::BlockCall call(const nn::KvCache* cache) const { return {rows_, ladder_.rope(), cache}; }

  Exec& ex_;
  const Ladder& ladder_;
  MemoryPolicy policy_;
  const nn::RowLayout& rows_;
  bool saving_;
  std::span<const nn::KvCache> caches_;
  size_t next_ = 0;
  Tensor state_;  // empty before the first rung
  std::vector<StoredTap> stored_;
  std::vector<Saved> saved_;
};

}  // namespace rung::model
