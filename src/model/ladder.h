// The ladder: a small trained network that climbs beside the frozen backbone (METHOD: docs/adr/0004).
//
//   u_j = s_{j-1} + P_j std(tap_j)                    gate sum
//   u_j = mu s_{j-1} + (1-mu) P_j std(tap_j)          gate interpolate, mu = sigmoid(alpha_j / 0.1)
//   s_j = Block_j(u_j)                                s_0 = 0; a rung without a tap has u_j = s_{j-1}
//   z   = x_{L-k} + scale * U s_l                     U = 0 at the start: step 0 is the backbone
//
// std(tap): RMS-normalise the row, subtract a per-channel mean, multiply by an inverse deviation (both from a
// calibration pass). With k = 0 (Ladder Side Tuning, arXiv 2206.06522; xLadder, arXiv 2512.14237) taps are
// the only thing that crosses from the backbone and nothing flows back. With k > 0 the ladder rejoins the
// frozen stream k layers below the top and the backward pass crosses those layers.
//
// The methods are settings of one list of rungs: a tap for each is Ladder Side Tuning; taps on the top layers
// and as many free rungs behind them is xLadder.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/names.h"
#include "model/backbone.h"

namespace rung::model {

enum class Gate : uint8_t { kSum, kInterpolate, kInterpolateVector };
inline constexpr Named<Gate> kGateNames[] = {{"sum", Gate::kSum},
                                             {"interpolate", Gate::kInterpolate},
                                             {"interpolate_vector", Gate::kInterpolateVector}};
static_assert(NamesAll(kGateNames, Gate::kInterpolateVector));
enum class TapNorm : uint8_t { kNone, kRms, kStandardize };
inline constexpr Named<TapNorm> kTapNormNames[] = {
    {"none", TapNorm::kNone}, {"rms", TapNorm::kRms}, {"standardize", TapNorm::kStandardize}};
static_assert(NamesAll(kTapNormNames, TapNorm::kStandardize));
// Added to the mean square of a tap before the root: the statistics of kStandardize are of taps scaled by it.
inline constexpr float kTapEps = 1e-5f;
// What is projected: the tap, or its channels averaged in S windows (a fixed map), which is all that is kept.
enum class TapMap : uint8_t { kFull, kPooled };
inline constexpr Named<TapMap> kTapMapNames[] = {{"full", TapMap::kFull}, {"pooled", TapMap::kPooled}};
static_assert(NamesAll(kTapMapNames, TapMap::kPooled));
// decoder: norms and positions as the spec says, SwiGLU. plain: the first prototype's, one head, no norms, no
// positions, ReLU, biases, and one projection shared by all taps.
enum class RungKind : uint8_t { kDecoder, kPlain };
inline constexpr Named<RungKind> kRungKindNames[] = {{"decoder", RungKind::kDecoder},
                                                     {"plain", RungKind::kPlain}};
static_assert(NamesAll(kRungKindNames, RungKind::kPlain));
inline constexpr Named<nn::NormKind> kRungNormNames[] = {{"rms", nn::NormKind::kRms},
                                                         {"layer", nn::NormKind::kLayer}};
static_assert(NamesAll(kRungNormNames, nn::NormKind::kLayer));
// LadderSpec::rotary.
inline constexpr Named<bool> kRungPositionNames[] = {{"rope", true}, {"none", false}};

struct LadderSpec {
  std::vector<int64_t> taps;  // 0-based layers whose output is tapped, ascending; tap j feeds rung j
  int64_t rungs = 0;          // at least taps.size(); the rest are free
  RungKind kind = RungKind::kDecoder;
  int64_t S = 0, F = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 32;  // heads 0: S / head_dim; kv_heads 0: heads
  Gate gate = Gate::kSum;
  TapNorm tap_norm = TapNorm::kStandardize;
  TapMap tap_map = TapMap::kFull;
  // The manner of decoder rungs: by default the backbone's own (train/options.h).
  nn::NormKind norm = nn::NormKind::kRms;
  bool rotary = true;  // they know positions by RoPE; else by their taps alone
  int64_t rejoin = 0;  // k
  float output_scale = 1.0f;
  // Which of the backbone's rotary pairs (Config::rotary / 2) the rungs' head_dim/2 pairs turn with; empty:
  // frequencies of their own width.
  std::vector<int64_t> rope_pairs;

  nn::BlockShape block() const;
  // Blocks on the longest path from the embedding to the head of a model of L layers.
  int64_t longest_path(int64_t L) const;
};

// "all", "every:6", "top:4" or "5,11,17": of layers 0 to L-1. every:k counts down from the last layer.
// `flag` stands in messages.
Result<std::vector<int64_t>> ParseLayers(const std::string& text, int64_t L, const std::string& flag);

struct Rung {
  bool tapped = false;
  nn::Linear tap;              // P_j (S,C) or (S,S) of a pooled tap, trained; unused when shared
  Tensor mean, inv_deviation;  // (1,C), calibrated
  nn::Param alpha;             // (1,1) or (1,S), gates that interpolate only
  nn::DecoderBlock block;
};

// Shapes, names and tables of a ladder. Where its numbers live is the owner's business (model/adapter.h).
class Ladder {
 public:
  // `positions`: the longest sequence that will be run. `tables`: make them; a plan needs none.
  Ladder(const Config& config, const LadderSpec& spec, int64_t positions, bool tables);

  const LadderSpec& spec() const { return spec_; }
  void set_output_scale(float scale) { spec_.output_scale = scale; }
  std::vector<Rung>& rungs() { return rungs_; }
  const std::vector<Rung>& rungs() const { return rungs_; }
  const nn::Linear& up() const { return up_; }
  const nn::Linear& tap(size_t rung) const { return shared_tap_ ? *shared_tap_ : rungs_[rung].tap; }
  const ops::RopeTable& rope() const { return rope_; }

  void ForEachParam(const nn::VisitParam& visit);
  // Calibrated arrays: (name, (1,C) values). Means begin as 0, inverse deviations as 1.
  void ForEachBuffer(const std::function<void(const std::string&, Tensor&)>& visit);
  // Xavier-uniform weights, residual-writing matrices scaled by 1/sqrt(2 rungs); plain rungs uniform in
  // +-1/sqrt(K). The up-projection, gates and biases beside zero matrices stay zero.
  void Initialize(uint64_t seed);

 private:
  Rung MakeRung(const Config& config, int64_t j) const;
  void MakeTables(const Config& config, int64_t positions);

  LadderSpec spec_;
  std::vector<Rung> rungs_;
  std::unique_ptr<nn::Linear> shared_tap_;
  nn::Linear up_;
  ops::RopeTable rope_;
  RopeAngles angles_;
  std::unique_ptr<Slab> buffers_;
};

// Keys and values of the rungs for generation, f32.
class LadderCache {
 public:
  LadderCache(const LadderSpec& spec, int64_t rows);
  std::span<const nn::KvCache> rungs() const { return rungs_; }
  static size_t Bytes(const LadderSpec& spec, int64_t rows);

 private:
  Slab slab_;
  std::vector<nn::KvCache> rungs_;
};

}  // namespace rung::model
