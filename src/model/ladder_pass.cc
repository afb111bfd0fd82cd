#include "model/ladder_pass.h"

#include <algorithm>

namespace rung::model {
namespace {

constexpr float kGateTemperature = 0.1f;  // as in Ladder Side Tuning (arXiv 2206.06522)
// Rows of a tap that are standardised at once: an L2-sized tile at any backbone width in use.
constexpr int64_t kTapTile = 256;

}  // namespace

size_t StoredTapRowBytes(const LadderSpec& spec, TapStorage storage, DType compute, int64_t C) {
  if (spec.tap_map == TapMap::kPooled) return static_cast<size_t>(spec.S) * SizeOf(compute);
  if (storage == TapStorage::kInt8) return static_cast<size_t>(C) + sizeof(float);
  return static_cast<size_t>(C) * SizeOf(compute);
}

LadderPass::LadderPass(Exec& ex, const Ladder& ladder, const MemoryPolicy& policy, const nn::RowLayout& rows,
                       bool saving, std::span<const nn::KvCache> caches)
    : ex_(ex), ladder_(ladder), policy_(policy), rows_(rows), saving_(saving), caches_(caches) {
  if (!saving) {
    // One state for all rungs, written in place.
    state_ = ex.arena().Scratch(DType::kF32, rows.rows(), ladder.spec().S, Use::kRungs, "ladder state");
  }
}

Tensor LadderPass::Take(int64_t rows, int64_t cols, DType dtype, Use use, const char* label) {
  return saving_ ? ex_.arena().Keep(dtype, rows, cols, use, label)
                 : ex_.arena().Scratch(dtype, rows, cols, use, label);
}

StoredTap LadderPass::TakeStored(int64_t C) {
  const int64_t N = rows_.rows();
  if (pooled()) return {Take(N, ladder_.spec().S, ex_.compute(), Use::kTaps, "pooled tap"), {}};
  // Without a backward pass nothing is kept, so nothing is made smaller.
  if (policy_.taps == TapStorage::kInt8 && saving_) {
    return {Take(N, C, DType::kI8, Use::kTaps, "tap"), Take(1, N, DType::kF32, Use::kTaps, "tap row scales")};
  }
  return {Take(N, C, ex_.compute(), Use::kTaps, "tap"), {}};
}

void LadderPass::Absorb(int64_t layer, In x) {
  const std::vector<int64_t>& taps = ladder_.spec().taps;
  if (next_ >= taps.size() || taps[next_] != layer) return;
  At at(ex_, "the tap of layer", layer);
  Frame frame(ex_.arena());
  const StoredTap tap = TakeStored(x.t.cols());
  Store(ladder_.rungs()[next_], x, tap);
  ClimbStored(tap);
}

void LadderPass::ClimbStored(const StoredTap& tap) {
  if (saving_) stored_.push_back(tap);
  Climb(next_, &tap);
  ++next_;
}

Tensor LadderPass::Finish() {
  RUNG_CHECK(next_ >= ladder_.spec().taps.size(), "ladder: a tap was not given");
  for (; next_ < ladder_.rungs().size(); ++next_) Climb(next_, nullptr);
  return state_;
}

void LadderPass::StandardizeTile(const Rung& rung, In x, const Tensor& out) {
  const TapNorm norm = ladder_.spec().tap_norm;
  const bool standardize = norm == TapNorm::kStandardize;
  const In mean = rung.mean, deviation = rung.inv_deviation;
  ops::Standardize(ex_, x, norm != TapNorm::kNone, kTapEps, standardize ? &mean : nullptr,
                   standardize ? &deviation : nullptr, Out{out});
}

void LadderPass::Store(const Rung& rung, In x, const StoredTap& tap) {
  if (!pooled()) {
    if (tap.scale.empty()) {
      ops::Convert(ex_, x, Out{tap.data});
    } else {
      ops::QuantizeRows(ex_, x, Out{tap.data}, Out{tap.scale});
    }
    return;
  }
  Frame frame(ex_.arena());
  const int64_t N = x.t.rows(), rows = std::min(N, kTapTile);
  const Tensor tile = ex_.arena().Scratch(DType::kF32, rows, x.t.cols(), Use::kTaps, "standardised tap rows");
  const Tensor pool = ex_.arena().Scratch(DType::kF32, rows, ladder_.spec().S, Use::kTaps, "pooled tap rows");
  for (int64_t begin = 0; begin < N; begin += rows) {
    const int64_t count = std::min(rows, N - begin);
    StandardizeTile(rung, x.t.Rows(begin, count), tile.Rows(0, count));
    ops::PoolColumns(ex_, tile.Rows(0, count), Out{pool.Rows(0, count)});
    ops::Convert(ex_, pool.Rows(0, count), Out{tap.data.Rows(begin, count)});
  }
}

void LadderPass::ForEachTapTile(const Rung& rung, const StoredTap& tap,
                                const std::function<void(In, int64_t)>& use) {
  Frame frame(ex_.arena());
  const int64_t N = tap.data.rows(), rows = std::min(N, kTapTile);
  const Tensor tile =
      ex_.arena().Scratch(DType::kF32, rows, tap.data.cols(), Use::kTaps, "standardised tap rows");
  for (int64_t begin = 0; begin < N; begin += rows) {
    const Tensor part = tile.Rows(0, std::min(rows, N - begin));
    const Tensor data = tap.data.Rows(begin, part.rows());
    if (pooled()) {
      ops::Convert(ex_, data, Out{part});
    } else if (!tap.scale.empty()) {
      ops::DequantizeRows(ex_, data, tap.scale.Cols(begin, part.rows()), Out{part});
      StandardizeTile(rung, part, part);
    } else {
      StandardizeTile(rung, data, part);
    }
    use(part, begin);
  }
}

void LadderPass::ProjectTap(size_t j, const StoredTap& tap, const Tensor& out, bool add) {
  ForEachTapTile(ladder_.rungs()[j], tap, [&](In tile, int64_t begin) {
    const Tensor y = out.Rows(begin, tile.t.rows());
    if (add) {
      ladder_.tap(j).Forward(ex_, tile, Acc{y});
    } else {
      ladder_.tap(j).Forward(ex_, tile, Out{y});
    }
  });
}

// u_j of a tapped rung.
Tensor LadderPass::Fuse(size_t j, const StoredTap& tap, Saved* saved) {
  const int64_t N = rows_.rows(), S = ladder_.spec().S;
  const nn::Param& alpha = ladder_.rungs()[j].alpha;
  const Tensor u = saving_ ? ex_.arena().Keep(DType::kF32, N, S, Use::kRungs, "rung input") : state_;
  if (j == 0) {
    ProjectTap(j, tap, u, false);
  } else if (alpha.value.empty()) {
    if (saving_) ops::Convert(ex_, state_, Out{u});
    ProjectTap(j, tap, u, true);
  } else {
    Frame frame(ex_.arena());
    const Tensor mu = ex_.arena().Scratch(DType::kF32, 1, alpha.value.cols(), Use::kRungs, "gate");
    saved->projected = Take(N, S, DType::kF32, Use::kRungs, "projected tap");
    ProjectTap(j, tap, saved->projected, false);
    ops::SigmoidGate(ex_, alpha.value, kGateTemperature, Out{mu});
    ops::Mix(ex_, mu, state_, saved->projected, Out{u});
  }
  return u;
}

void LadderPass::Climb(size_t j, const StoredTap* tap) {
  const Rung& rung = ladder_.rungs()[j];
  At at(ex_, "rung", static_cast<int64_t>(j));
  Saved saved;
  saved.previous = state_;
  const Tensor u = tap ? Fuse(j, *tap, &saved) : state_;
  saved.input = u;
  if (!saving_) {
    rung.block.Forward(ex_, u, call(caches_.empty() ? nullptr : &caches_[j]), Out{u}, nullptr);
    return;
  }
  state_ = ex_.arena().Keep(DType::kF32, u.rows(), u.cols(), Use::kRungs, "rung state");
  rung.block.Forward(ex_, u, call(nullptr), Out{state_},
                     policy_.rungs == RungMemory::kKeep ? &saved.block : nullptr);
  saved_.push_back(saved);
}

void LadderPass::Backward(Acc ds) {
  RUNG_CHECK(saved_.size() == ladder_.rungs().size(), "ladder: backward before the end of forward");
  for (size_t j = saved_.size(); j-- > 0;) {
    const Rung& rung = ladder_.rungs()[j];
    At at(ex_, "the backward pass of rung", static_cast<int64_t>(j));
    Saved& saved = saved_[j];
    if (policy_.rungs == RungMemory::kKeep) {
      rung.block.Backward(ex_, call(nullptr), saved.block, ds);
    } else {
      KeepFrame kept(ex_.arena());
      Frame frame(ex_.arena());
      const Tensor again =
          ex_.arena().Scratch(DType::kF32, ds.t.rows(), ds.t.cols(), Use::kRungs, "rung state again");
      rung.block.Forward(ex_, saved.input, call(nullptr), Out{again}, &saved.block);
      rung.block.Backward(ex_, call(nullptr), saved.block, ds);
    }
    if (rung.tapped) FuseBackward(j, saved, ds);
  }
}

void LadderPass::FuseBackward(size_t j, const Saved& saved, Acc du) {
  Frame frame(ex_.arena());
  const Rung& rung = ladder_.rungs()[j];
  const int64_t N = du.t.rows(), S = du.t.cols(), gates = rung.alpha.value.cols();
  Tensor dp = du.t;  // gate sum: both summands get the gradient as it is
  if (j > 0 && gates > 0) {
    dp = ex_.arena().Scratch(DType::kF32, N, S, Use::kRungs, "d projected tap");
    const Tensor dprevious = ex_.arena().Scratch(DType::kF32, N, S, Use::kRungs, "d previous state");
    const Tensor mu = ex_.arena().Scratch(DType::kF32, 1, gates, Use::kRungs, "gate");
    const Tensor dmu = ex_.arena().Scratch(DType::kF32, 1, gates, Use::kRungs, "d gate");
    ops::SigmoidGate(ex_, rung.alpha.value, kGateTemperature, Out{mu});
    ops::Zero(ex_, Out{dmu});
    ops::MixGrad(ex_, mu, du.t, saved.previous, saved.projected, Out{dprevious}, Out{dp}, Acc{dmu});
    ops::SigmoidGateGrad(ex_, dmu, mu, kGateTemperature, Acc{rung.alpha.grad});
    ops::Convert(ex_, dprevious, Out{du.t});
  }
  ForEachTapTile(rung, stored_[j], [&](In tile, int64_t begin) {
    ladder_.tap(j).BackwardWeight(ex_, dp.Rows(begin, tile.t.rows()), tile);
  });
}

}  // namespace rung::model
