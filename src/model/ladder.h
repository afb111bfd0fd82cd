// The ladder: a small trained network that climbs beside the frozen backbone (METHOD: docs/adr/0004).
//
//   u_j = s_{j-1} + P_j std(tap_j)                    gate sum
//   u_j = mu s_{j-1} + (1-mu) P_j std(tap_j)          gate interpolate, mu = sigmoid(alpha_j / 0.1)
//   s_j = Block_j(u_j)                                s_0 = 0; a rung without a tap has u_j = s_{j-1}
//   z   = x_L + scale * U s_l                         U = 0 at the start: step 0 is the backbone
//
// std(tap): RMS-normalise the row, subtract a per-channel mean, multiply by an inverse deviation (both from a
// calibration pass). Taps are the only thing that crosses from the backbone; nothing flows back.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/backbone.h"

namespace rung::model {

enum class Gate : uint8_t { kSum, kInterpolate };
enum class TapNorm : uint8_t { kNone, kRms, kStandardize };
enum class RungMemory : uint8_t { kKeep, kRecompute };  // what a rung keeps for its backward pass

struct LadderSpec {
  std::vector<int64_t> taps;  // 0-based layers whose output is tapped, ascending; tap j feeds rung j
  int64_t rungs = 0;          // at least taps.size(); the rest are free
  int64_t S = 0, F = 0, head_dim = 32;
  Gate gate = Gate::kSum;
  TapNorm tap_norm = TapNorm::kStandardize;
  float output_scale = 1.0f;
  RungMemory memory = RungMemory::kKeep;  // a policy of the run, not part of the adapter
};

// "all", "every:6", "top:4" or "5,11,17": layers of a model of L layers. every:k counts down from the last
// layer.
Result<std::vector<int64_t>> ParseTaps(const std::string& text, int64_t L);

struct Rung {
  bool tapped = false;
  nn::Linear tap;              // P_j (S,C), trained
  Tensor mean, inv_deviation;  // (1,C), calibrated
  nn::Param alpha;             // (1,1), gate interpolate only
  nn::DecoderBlock block;
};

// Owns parameters and gradients as flat arrays, in the order of ForEachParam.
class Ladder {
 public:
  // `positions`: the longest sequence that will be run.
  //
  // Shapes alone: parameters have null data. For plans.
  static Ladder Planned(const Config& config, const LadderSpec& spec, int64_t positions);
  // Xavier-uniform weights, residual-writing matrices scaled by 1/sqrt(2 rungs), up-projection zero.
  static Ladder Make(const Config& config, const LadderSpec& spec, uint64_t seed, bool with_gradients,
                     int64_t positions);

  Ladder(Ladder&&) = default;
  Ladder& operator=(Ladder&&) = default;

  const LadderSpec& spec() const { return spec_; }
  LadderSpec& spec() { return spec_; }
  std::vector<Rung>& rungs() { return rungs_; }
  const std::vector<Rung>& rungs() const { return rungs_; }
  const nn::Linear& up() const { return up_; }
  const ops::RopeTable& rope() const { return rope_; }

  void ForEachParam(const std::function<void(nn::Param&)>& visit);
  // Calibrated arrays: (name, (1,C) values).
  void ForEachBuffer(const std::function<void(const std::string&, Tensor&)>& visit);
  int64_t parameter_count() const { return parameter_count_; }
  Tensor values() const { return values_; }        // (1,n)
  Tensor gradients() const { return gradients_; }  // (1,n); empty without gradients

 private:
  friend Result<Ladder> LoadAdapter(const Path& folder, const Config& config, bool with_gradients,
                                    int64_t positions);
  Ladder() = default;
  // Memory and tables; parameters are zero.
  static Ladder Allocate(const Config& config, const LadderSpec& spec, bool with_gradients,
                         int64_t positions);
  void Shape(const Config& config, const LadderSpec& spec, int64_t positions);
  void Place(float* values, float* gradients);

  LadderSpec spec_;
  std::vector<Rung> rungs_;
  nn::Linear up_;
  ops::RopeTable rope_;
  RopeAngles angles_;
  std::unique_ptr<Slab> memory_, gradient_memory_, buffer_memory_;
  Tensor values_, gradients_;
  int64_t parameter_count_ = 0;
};

// One pass of a batch through the ladder. Absorb is the backbone's sink.
class LadderPass {
 public:
  // saving: a backward pass will follow. caches: one per rung for generation, or empty.
  LadderPass(Exec& ex, const Ladder& ladder, const nn::RowLayout& rows, bool saving,
             std::span<const nn::KvCache> caches);

  void Absorb(int64_t layer, In x);
  // The state of the last rung (N,S), after the free rungs have run.
  Tensor Finish();
  // ds (N,S): the gradient of the last state; consumed. Adds to the parameters' gradients.
  void Backward(Acc ds);

 private:
  struct Saved {
    Tensor tap;        // (N,C) compute type
    Tensor projected;  // (N,S), gate interpolate only
    Tensor previous;   // (N,S): s_{j-1}
    Tensor input;      // (N,S): u_j
    nn::DecoderBlock::Saved block;
  };
  Tensor Take(int64_t rows, int64_t cols, DType dtype, Use use, const char* label);
  void Climb(const Rung& rung, size_t j, const In* x);
  // Standardises the tap in tiles of rows and gives each to `use`, with the index of its first row.
  void ForEachTapTile(const Rung& rung, In tap, const std::function<void(In tile, int64_t begin)>& use);
  void ProjectTap(const Rung& rung, In tap, const Tensor& out, bool add);
  void FuseBackward(const Rung& rung, const Saved& saved, bool first, Acc du);

  Exec& ex_;
  const Ladder& ladder_;
  const nn::RowLayout& rows_;
  bool saving_;
  std::span<const nn::KvCache> caches_;
  size_t next_ = 0;
  Tensor state_;  // empty before the first rung
  std::vector<Saved> saved_;
};

// Keys and values of the rungs for generation, f32.
class LadderCache {
 public:
  LadderCache(const LadderSpec& spec, int64_t rows);
  std::span<const nn::KvCache> rungs() const { return rungs_; }

 private:
  Slab slab_;
  std::vector<nn::KvCache> rungs_;
};

}  // namespace rung::model
