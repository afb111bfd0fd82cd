#include "model/ladder.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/rng.h"

namespace rung::model {
namespace {

constexpr float kTapEps = 1e-5f;
constexpr float kGateTemperature = 0.1f;  // as in Ladder Side Tuning (arXiv 2206.06522)
// Rows of a tap that are standardised at once: an L2-sized tile at any backbone width in use.
constexpr int64_t kTapTile = 256;

nn::BlockShape RungShape(const LadderSpec& spec) {
  nn::BlockShape shape;
  shape.C = spec.S;
  shape.D = spec.head_dim;
  shape.Hq = shape.Hkv = spec.S / spec.head_dim;
  shape.F = spec.F;
  shape.act = DType::kF32;
  shape.use = Use::kRungs;
  return shape;
}

nn::Linear Trained(const std::string& name, int64_t out, int64_t in) {
  nn::Linear layer;
  layer.trained = true;
  layer.weight.name = name + ".weight";
  layer.weight.value = View(static_cast<float*>(nullptr), out, in);
  return layer;
}

nn::Norm TrainedNorm(const std::string& name, int64_t size) {
  nn::Norm norm;
  norm.gain.name = name + ".weight";
  norm.gain.value = View(static_cast<float*>(nullptr), 1, size);
  return norm;
}

nn::DecoderBlock TrainedBlock(const std::string& name, const nn::BlockShape& shape) {
  nn::DecoderBlock block;
  const int64_t C = shape.C, q = shape.Hq * shape.D, kv = shape.Hkv * shape.D;
  block.shape = shape;
  block.attention_norm = TrainedNorm(name + ".attn_norm", C);
  block.mlp_norm = TrainedNorm(name + ".mlp_norm", C);
  block.attention.q = Trained(name + ".q", q, C);
  block.attention.k = Trained(name + ".k", kv, C);
  block.attention.v = Trained(name + ".v", kv, C);
  block.attention.o = Trained(name + ".o", C, q);
  block.mlp.gate = Trained(name + ".gate", shape.F, C);
  block.mlp.up = Trained(name + ".up", shape.F, C);
  block.mlp.down = Trained(name + ".down", C, shape.F);
  return block;
}

// Uniform in +-gain * sqrt(6 / (in + out)) (Glorot and Bengio, 2010). One substream per parameter.
void Xavier(const nn::Param& param, float gain, uint64_t seed, uint32_t substream) {
  const Rng rng(seed, Stream::kInit, substream);
  const auto fan = static_cast<float>(param.value.rows() + param.value.cols());
  const float bound = gain * std::sqrt(6.0f / fan);
  float* out = Out{param.value}.as<float>();
  for (int64_t i = 0; i < param.value.size(); ++i) {
    out[i] = bound * (2.0f * rng.Uniform(static_cast<uint64_t>(i)) - 1.0f);
  }
}

bool WritesResidual(const std::string& name) {
  return name.ends_with(".o.weight") || name.ends_with(".down.weight");
}

Result<int64_t> ParseCount(std::string_view text, const std::string& whole) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return Failure{fmt::format("--taps {}: \"{}\" is not a whole number", whole, text), ExitCode::kUsage};
  }
  return value;
}

}  // namespace

Result<std::vector<int64_t>> ParseTaps(const std::string& text, int64_t L) {
  std::vector<int64_t> taps;
  const auto refuse = [&](const std::string& why) {
    return Failure{
        fmt::format("--taps {}: {}; write all, every:k, top:k or a list of layers such as 5,11,17 (the "
                    "model has layers 0 to {})",
                    text, why, L - 1),
        ExitCode::kUsage};
  };
  if (text == "all") {
    for (int64_t l = 0; l < L; ++l) taps.push_back(l);
    return taps;
  }
  if (const size_t colon = text.find(':'); colon != std::string::npos) {
    const std::string kind = text.substr(0, colon);
    Result<int64_t> count = ParseCount(std::string_view(text).substr(colon + 1), text);
    if (!count.ok()) return count.failure();
    const int64_t k = count.value();
    if (k < 1 || k > L) return refuse(fmt::format("k must be 1 to {}", L));
    if (kind == "top") {
      for (int64_t l = L - k; l < L; ++l) taps.push_back(l);
    } else if (kind == "every") {
      for (int64_t l = L - 1; l >= 0; l -= k) taps.insert(taps.begin(), l);
    } else {
      return refuse(fmt::format("\"{}\" is not known", kind));
    }
    return taps;
  }
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    Result<int64_t> layer = ParseCount(std::string_view(text).substr(begin, end - begin), text);
    if (!layer.ok()) return layer.failure();
    if (layer.value() < 0 || layer.value() >= L)
      return refuse(fmt::format("there is no layer {}", layer.value()));
    if (!taps.empty() && layer.value() <= taps.back()) return refuse("layers must ascend");
    taps.push_back(layer.value());
    begin = end + 1;
  }
  return taps;
}

void Ladder::Shape(const Config& config, const LadderSpec& spec, int64_t positions) {
  RUNG_CHECK(!spec.taps.empty() && spec.rungs >= static_cast<int64_t>(spec.taps.size()),
             "ladder: rungs >= taps >= 1");
  RUNG_CHECK(spec.S > 0 && spec.S % spec.head_dim == 0, "ladder: the width is a multiple of the head width");
  RUNG_CHECK(positions > 0, "ladder: positions of the RoPE table");
  spec_ = spec;
  for (int64_t j = 0; j < spec.rungs; ++j) {
    Rung rung;
    const std::string name = fmt::format("rungs.{}", j);
    rung.tapped = j < static_cast<int64_t>(spec.taps.size());
    if (rung.tapped) {
      rung.tap = Trained(name + ".tap", spec.S, config.C);
      rung.mean = rung.inv_deviation = View(static_cast<float*>(nullptr), 1, config.C);
      if (spec.gate == Gate::kInterpolate && j > 0) {
        rung.alpha.name = name + ".gate.alpha";
        rung.alpha.value = View(static_cast<float*>(nullptr), 1, 1);
      }
    }
    rung.block = TrainedBlock(name + ".block", RungShape(spec));
    rungs_.push_back(std::move(rung));
  }
  up_ = Trained("up", config.C, spec.S);
  parameter_count_ = 0;
  ForEachParam([&](nn::Param& param) { parameter_count_ += param.value.size(); });
  rope_.rotary = spec.head_dim;
  rope_.cos = rope_.sin = View(static_cast<float*>(nullptr), positions, spec.head_dim / 2);
}

void Ladder::ForEachParam(const std::function<void(nn::Param&)>& visit) {
  for (Rung& rung : rungs_) {
    if (rung.tapped) visit(rung.tap.weight);
    if (!rung.alpha.value.empty()) visit(rung.alpha);
    rung.block.ForEachParam(visit);
  }
  visit(up_.weight);
}

void Ladder::ForEachBuffer(const std::function<void(const std::string&, Tensor&)>& visit) {
  if (spec_.tap_norm != TapNorm::kStandardize) return;
  for (size_t j = 0; j < rungs_.size(); ++j) {
    if (!rungs_[j].tapped) continue;
    visit(fmt::format("rungs.{}.tap.mean", j), rungs_[j].mean);
    visit(fmt::format("rungs.{}.tap.inv_deviation", j), rungs_[j].inv_deviation);
  }
}

void Ladder::Place(float* values, float* gradients) {
  values_ = View(values, 1, parameter_count_);
  if (gradients) gradients_ = View(gradients, 1, parameter_count_);
  int64_t at = 0;
  ForEachParam([&](nn::Param& param) {
    const int64_t rows = param.value.rows(), cols = param.value.cols();
    param.value = View(values + at, rows, cols);
    if (gradients) param.grad = View(gradients + at, rows, cols);
    at += rows * cols;
  });
}

Ladder Ladder::Planned(const Config& config, const LadderSpec& spec, int64_t positions) {
  Ladder ladder;
  ladder.Shape(config, spec, positions);
  // Trainable in shape: the backward pass is planned too.
  ladder.ForEachParam([](nn::Param& param) { param.grad = param.value; });
  ladder.gradients_ = ladder.values_ = View(static_cast<float*>(nullptr), 1, ladder.parameter_count_);
  return ladder;
}

Ladder Ladder::Allocate(const Config& config, const LadderSpec& spec, bool with_gradients,
                        int64_t positions) {
  Ladder ladder;
  ladder.Shape(config, spec, positions);
  const auto bytes = static_cast<size_t>(ladder.parameter_count_) * sizeof(float);
  ladder.memory_ = std::make_unique<Slab>(bytes);
  if (with_gradients) ladder.gradient_memory_ = std::make_unique<Slab>(bytes);
  ladder.Place(ladder.memory_->as<float>(), with_gradients ? ladder.gradient_memory_->as<float>() : nullptr);

  ladder.buffer_memory_ =
      std::make_unique<Slab>(spec.taps.size() * 2 * static_cast<size_t>(config.C) * sizeof(float));
  float* buffer = ladder.buffer_memory_->as<float>();
  ladder.ForEachBuffer([&](const std::string& name, Tensor& tensor) {
    tensor = View(buffer, 1, config.C);
    if (name.ends_with("inv_deviation")) std::fill_n(buffer, config.C, 1.0f);
    buffer += config.C;
  });

  // Rungs turn their queries by the backbone's frequencies at their own head width.
  Config angles = config;
  angles.D = spec.head_dim;
  angles.rope = RopeConfig{};
  angles.rope.theta = config.rope.theta;
  ladder.angles_ = MakeRopeAngles(angles, positions);
  ladder.rope_.cos = View(ladder.angles_.cos.data(), positions, spec.head_dim / 2);
  ladder.rope_.sin = View(ladder.angles_.sin.data(), positions, spec.head_dim / 2);
  return ladder;
}

Ladder Ladder::Make(const Config& config, const LadderSpec& spec, uint64_t seed, bool with_gradients,
                    int64_t positions) {
  Ladder ladder = Allocate(config, spec, with_gradients, positions);
  const float residual = 1.0f / std::sqrt(2.0f * static_cast<float>(spec.rungs));
  uint32_t substream = 0;
  ladder.ForEachParam([&](nn::Param& param) {
    float* value = Out{param.value}.as<float>();
    if (param.name.ends_with("_norm.weight")) {
      std::fill_n(value, param.value.size(), 1.0f);
    } else if (param.name != "up.weight" && !param.name.ends_with(".alpha")) {
      Xavier(param, WritesResidual(param.name) ? residual : 1.0f, seed, substream);
    }
    ++substream;  // zero stays for the up-projection and the gates: mapped pages are zero
  });
  return ladder;
}

LadderPass::LadderPass(Exec& ex, const Ladder& ladder, const nn::RowLayout& rows, bool saving,
                       std::span<const nn::KvCache> caches)
    : ex_(ex), ladder_(ladder), rows_(rows), saving_(saving), caches_(caches) {
  if (!saving) {
    // One state for all rungs, written in place.
    state_ = ex.arena().Scratch(DType::kF32, rows.rows(), ladder.spec().S, Use::kRungs, "ladder state");
  }
}

Tensor LadderPass::Take(int64_t rows, int64_t cols, DType dtype, Use use, const char* label) {
  return saving_ ? ex_.arena().Keep(dtype, rows, cols, use, label)
                 : ex_.arena().Scratch(dtype, rows, cols, use, label);
}

void LadderPass::Absorb(int64_t layer, In x) {
  const std::vector<int64_t>& taps = ladder_.spec().taps;
  if (next_ < taps.size() && taps[next_] == layer) {
    Climb(ladder_.rungs()[next_], next_, &x);
    ++next_;
  }
}

Tensor LadderPass::Finish() {
  RUNG_CHECK(next_ >= ladder_.spec().taps.size(), "ladder: a tap was not given");
  for (; next_ < ladder_.rungs().size(); ++next_) Climb(ladder_.rungs()[next_], next_, nullptr);
  return state_;
}

void LadderPass::ForEachTapTile(const Rung& rung, In tap, const std::function<void(In, int64_t)>& use) {
  Frame frame(ex_.arena());
  const int64_t N = tap.t.rows(), C = tap.t.cols();
  const TapNorm norm = ladder_.spec().tap_norm;
  const bool standardize = norm == TapNorm::kStandardize;
  const In mean = rung.mean, deviation = rung.inv_deviation;
  const Tensor tile =
      ex_.arena().Scratch(DType::kF32, std::min(N, kTapTile), C, Use::kTaps, "standardised tap rows");
  for (int64_t begin = 0; begin < N; begin += kTapTile) {
    const Tensor part = tile.Rows(0, std::min(kTapTile, N - begin));
    ops::Standardize(ex_, tap.t.Rows(begin, part.rows()), norm != TapNorm::kNone, kTapEps,
                     standardize ? &mean : nullptr, standardize ? &deviation : nullptr, Out{part});
    use(part, begin);
  }
}

void LadderPass::ProjectTap(const Rung& rung, In tap, const Tensor& out, bool add) {
  ForEachTapTile(rung, tap, [&](In tile, int64_t begin) {
    const Tensor y = out.Rows(begin, tile.t.rows());
    if (add) {
      ops::Project(ex_, tile, rung.tap.weight.value, Acc{y});
    } else {
      ops::Project(ex_, tile, rung.tap.weight.value, Out{y});
    }
  });
}

void LadderPass::Climb(const Rung& rung, size_t j, const In* x) {
  const int64_t N = rows_.rows(), S = ladder_.spec().S;
  const bool first = j == 0;
  // Lives inside this call unless it is kept: a free rung's input is the state itself.
  Frame frame(ex_.arena());
  Saved saved;
  saved.previous = state_;
  Tensor u = state_;
  if (rung.tapped) {
    const Tensor tap = Take(N, x->t.cols(), ex_.compute(), Use::kTaps, "tap");
    ops::Convert(ex_, *x, Out{tap});
    saved.tap = tap;
    if (saving_) u = ex_.arena().Keep(DType::kF32, N, S, Use::kRungs, "rung input");
    if (first) {
      ProjectTap(rung, tap, u, false);
    } else if (rung.alpha.value.empty()) {
      if (saving_) ops::Convert(ex_, state_, Out{u});
      ProjectTap(rung, tap, u, true);
    } else {
      const Tensor mu = ex_.arena().Scratch(DType::kF32, 1, 1, Use::kRungs, "gate");
      saved.projected = Take(N, S, DType::kF32, Use::kRungs, "projected tap");
      ProjectTap(rung, tap, saved.projected, false);
      ops::SigmoidGate(ex_, rung.alpha.value, kGateTemperature, Out{mu});
      ops::Mix(ex_, mu, state_, saved.projected, Out{u});
    }
  }
  saved.input = u;
  const nn::KvCache* cache = caches_.empty() ? nullptr : &caches_[j];
  if (!saving_) {
    rung.block.Forward(ex_, u, rows_, ladder_.rope(), cache, Out{u}, nullptr);
    return;
  }
  state_ = ex_.arena().Keep(DType::kF32, N, S, Use::kRungs, "rung state");
  const bool keep = ladder_.spec().memory == RungMemory::kKeep;
  rung.block.Forward(ex_, u, rows_, ladder_.rope(), cache, Out{state_}, keep ? &saved.block : nullptr);
  saved_.push_back(saved);
}

void LadderPass::Backward(Acc ds) {
  RUNG_CHECK(saved_.size() == ladder_.rungs().size(), "ladder: backward before the end of forward");
  for (size_t j = saved_.size(); j-- > 0;) {
    const Rung& rung = ladder_.rungs()[j];
    Saved& saved = saved_[j];
    if (ladder_.spec().memory == RungMemory::kKeep) {
      rung.block.Backward(ex_, rows_, ladder_.rope(), saved.block, ds);
    } else {
      KeepFrame kept(ex_.arena());
      Frame frame(ex_.arena());
      const Tensor again =
          ex_.arena().Scratch(DType::kF32, ds.t.rows(), ds.t.cols(), Use::kRungs, "rung state again");
      rung.block.Forward(ex_, saved.input, rows_, ladder_.rope(), nullptr, Out{again}, &saved.block);
      rung.block.Backward(ex_, rows_, ladder_.rope(), saved.block, ds);
    }
    if (rung.tapped) FuseBackward(rung, saved, j == 0, ds);
  }
}

void LadderPass::FuseBackward(const Rung& rung, const Saved& saved, bool first, Acc du) {
  Frame frame(ex_.arena());
  const int64_t N = du.t.rows(), S = du.t.cols();
  Tensor dp = du.t;  // gate sum: both summands get the gradient as it is
  if (!first && !rung.alpha.value.empty()) {
    dp = ex_.arena().Scratch(DType::kF32, N, S, Use::kRungs, "d projected tap");
    const Tensor dprevious = ex_.arena().Scratch(DType::kF32, N, S, Use::kRungs, "d previous state");
    const Tensor mu = ex_.arena().Scratch(DType::kF32, 1, 1, Use::kRungs, "gate");
    const Tensor dmu = ex_.arena().Scratch(DType::kF32, 1, 1, Use::kRungs, "d gate");
    ops::SigmoidGate(ex_, rung.alpha.value, kGateTemperature, Out{mu});
    ops::Zero(ex_, Out{dmu});
    ops::MixGrad(ex_, mu, du.t, saved.previous, saved.projected, Out{dprevious}, Out{dp}, Acc{dmu});
    ops::SigmoidGateGrad(ex_, dmu, mu, kGateTemperature, Acc{rung.alpha.grad});
    ops::Convert(ex_, dprevious, Out{du.t});
  }
  ForEachTapTile(rung, saved.tap, [&](In tile, int64_t begin) {
    ops::ProjectGradWeight(ex_, dp.Rows(begin, tile.t.rows()), tile, Acc{rung.tap.weight.grad});
  });
}

LadderCache::LadderCache(const LadderSpec& spec, int64_t rows)
    : slab_(static_cast<size_t>(2 * spec.rungs * rows * spec.S) * sizeof(float)) {
  float* base = slab_.as<float>();
  for (int64_t j = 0; j < spec.rungs; ++j, base += 2 * rows * spec.S) {
    rungs_.push_back({View(base, rows, spec.S), View(base + rows * spec.S, rows, spec.S)});
  }
}

}  // namespace rung::model
