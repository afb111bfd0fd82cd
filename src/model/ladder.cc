#include "model/ladder.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/rng.h"

namespace rung::model {
namespace {

nn::Param Shaped(std::string name, int64_t rows, int64_t cols) {
  nn::Param param;
  param.name = std::move(name);
  param.value = View(static_cast<float*>(nullptr), rows, cols);
  return param;
}

nn::Linear Trained(const std::string& name, int64_t out, int64_t in, bool bias) {
  nn::Linear layer;
  layer.trained = true;
  layer.weight = Shaped(name + ".weight", out, in);
  if (bias) layer.trained_bias = Shaped(name + ".bias", 1, out);
  return layer;
}

nn::Norm TrainedNorm(const std::string& name, nn::NormKind kind, int64_t size) {
  nn::Norm norm;
  norm.kind = kind;
  norm.gain = Shaped(name + ".weight", 1, size);
  if (kind == nn::NormKind::kLayer) norm.bias = Shaped(name + ".bias", 1, size);
  return norm;
}

nn::DecoderBlock TrainedBlock(const std::string& name, const nn::BlockShape& shape, nn::NormKind norm) {
  nn::DecoderBlock block;
  const int64_t C = shape.C, q = shape.Hq * shape.D, kv = shape.Hkv * shape.D;
  const bool bias = !shape.norms;
  block.shape = shape;
  if (shape.norms) {
    block.attention_norm = TrainedNorm(name + ".attn_norm", norm, C);
    block.mlp_norm = TrainedNorm(name + ".mlp_norm", norm, C);
  }
  block.attention.q = Trained(name + ".q", q, C, bias);
  block.attention.k = Trained(name + ".k", kv, C, bias);
  block.attention.v = Trained(name + ".v", kv, C, bias);
  if (shape.output_projection) block.attention.o = Trained(name + ".o", C, q, bias);
  if (shape.gated) block.mlp.gate = Trained(name + ".gate", shape.F, C, bias);
  block.mlp.up = Trained(name + ".up", shape.F, C, bias);
  block.mlp.down = Trained(name + ".down", C, shape.F, bias);
  return block;
}

// Uniform in +-bound. One substream per parameter.
void Uniform(const nn::Param& param, float bound, uint64_t seed, uint32_t substream) {
  const Rng rng(seed, Stream::kInit, substream);
  float* out = Out{param.value}.as<float>();
  for (int64_t i = 0; i < param.value.size(); ++i) {
    out[i] = bound * (2.0f * rng.Uniform(static_cast<uint64_t>(i)) - 1.0f);
  }
}

// Glorot and Bengio, 2010.
float XavierBound(const nn::Param& param) {
  return std::sqrt(6.0f / static_cast<float>(param.value.rows() + param.value.cols()));
}

bool WritesResidual(const std::string& name) {
  return name.ends_with(".o.weight") || name.ends_with(".down.weight");
}

Result<int64_t> ParseCount(std::string_view text, const std::string& whole, const std::string& flag) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return UsageFailure(fmt::format("{} {}: \"{}\" is not a whole number", flag, whole, text));
  }
  return value;
}

}  // namespace

Result<std::vector<int64_t>> ParseLayers(const std::string& text, int64_t L, const std::string& flag) {
  std::vector<int64_t> layers;
  const auto refuse = [&](const std::string& why) {
    return UsageFailure(
        fmt::format("{} {}: {}; write all, every:k, top:k or a list of layers such as 5,11,17 (the "
                    "model has layers 0 to {})",
                    flag, text, why, L - 1));
  };
  if (text == "all") {
    for (int64_t l = 0; l < L; ++l) layers.push_back(l);
    return layers;
  }
  if (const size_t colon = text.find(':'); colon != std::string::npos) {
    const std::string kind = text.substr(0, colon);
    Result<int64_t> count = ParseCount(std::string_view(text).substr(colon + 1), text, flag);
    if (!count.ok()) return count.failure();
    const int64_t k = count.value();
    if (k < 1 || k > L) return refuse(fmt::format("k must be 1 to {}", L));
    if (kind == "top") {
      for (int64_t l = L - k; l < L; ++l) layers.push_back(l);
    } else if (kind == "every") {
      for (int64_t l = L - 1; l >= 0; l -= k) layers.insert(layers.begin(), l);
    } else {
      return refuse(fmt::format("\"{}\" is not known", kind));
    }
    return layers;
  }
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    Result<int64_t> layer = ParseCount(std::string_view(text).substr(begin, end - begin), text, flag);
    if (!layer.ok()) return layer.failure();
    if (layer.value() < 0 || layer.value() >= L)
      return refuse(fmt::format("there is no layer {}", layer.value()));
    if (!layers.empty() && layer.value() <= layers.back()) return refuse("layers must ascend");
    layers.push_back(layer.value());
    begin = end + 1;
  }
  return layers;
}

nn::BlockShape LadderSpec::block() const {
  nn::BlockShape shape;
  shape.C = S;
  shape.D = head_dim;
  shape.Hq = heads > 0 ? heads : S / head_dim;
  shape.Hkv = kv_heads > 0 ? kv_heads : shape.Hq;
  shape.F = F;
  shape.act = DType::kF32;
  shape.use = shape.saved_use = Use::kRungs;
  if (kind == RungKind::kPlain) {
    shape.norms = shape.output_projection = shape.gated = false;
    shape.activation = cpu::Activation::kRelu;
  }
  return shape;
}

int64_t LadderSpec::longest_path(int64_t L) const {
  int64_t longest = L;
  for (size_t j = 0; j < taps.size(); ++j) {
    longest = std::max(longest, taps[j] + 1 + rungs - static_cast<int64_t>(j) + rejoin);
  }
  return longest;
}

Ladder::Ladder(const Config& config, const LadderSpec& spec, int64_t positions, bool tables) : spec_(spec) {
  RUNG_CHECK(!spec.taps.empty() && spec.rungs >= static_cast<int64_t>(spec.taps.size()),
             "ladder: rungs >= taps >= 1");
  RUNG_CHECK(spec.rejoin >= 0 && spec.taps.back() < config.L - spec.rejoin,
             "ladder: taps lie below the layer it joins at");
  RUNG_CHECK(spec.S > 0 && positions > 0, "ladder: width and positions");
  const nn::BlockShape shape = spec.block();
  RUNG_CHECK(shape.Hq > 0 && shape.Hq % shape.Hkv == 0, "ladder: key heads divide query heads");
  RUNG_CHECK(shape.output_projection || shape.Hq * shape.D == shape.C,
             "ladder: heads without a projection fill the width");
  const bool plain = spec.kind == RungKind::kPlain;
  const int64_t tapped = spec.tap_map == TapMap::kPooled ? spec.S : config.C;
  if (plain) shared_tap_ = std::make_unique<nn::Linear>(Trained("tap", spec.S, tapped, true));
  for (int64_t j = 0; j < spec.rungs; ++j) rungs_.push_back(MakeRung(config, j));
  up_ = Trained("up", config.C, spec.S, plain);
  rope_.rotary = plain || !spec.rotary ? 0 : spec.head_dim;
  rope_.cos = rope_.sin = View(static_cast<float*>(nullptr), positions, spec.head_dim / 2);
  if (tables) MakeTables(config, positions);
}

Rung Ladder::MakeRung(const Config& config, int64_t j) const {
  Rung rung;
  const std::string name = fmt::format("rungs.{}", j);
  rung.tapped = j < static_cast<int64_t>(spec_.taps.size());
  if (rung.tapped) {
    if (!shared_tap_) {
      rung.tap =
          Trained(name + ".tap", spec_.S, spec_.tap_map == TapMap::kPooled ? spec_.S : config.C, false);
    }
    rung.mean = rung.inv_deviation = View(static_cast<float*>(nullptr), 1, config.C);
    if (spec_.gate != Gate::kSum && j > 0) {
      rung.alpha = Shaped(name + ".gate.alpha", 1, spec_.gate == Gate::kInterpolateVector ? spec_.S : 1);
    }
  }
  rung.block = TrainedBlock(name + ".block", spec_.block(), spec_.norm);
  return rung;
}

void Ladder::MakeTables(const Config& config, int64_t positions) {
  buffers_ = std::make_unique<Slab>(spec_.taps.size() * 2 * static_cast<size_t>(config.C) * sizeof(float));
  float* buffer = buffers_->as<float>();
  ForEachBuffer([&](const std::string& name, Tensor& tensor) {
    tensor = View(buffer, 1, config.C);
    if (name.ends_with("inv_deviation")) std::fill_n(buffer, config.C, 1.0f);
    buffer += config.C;
  });
  if (rope_.rotary == 0) return;
  // Rungs turn their queries by the backbone's base frequency at their own head width, or by chosen ones of
  // the backbone's frequencies.
  RopeConfig own;
  own.theta = config.rope.theta;
  const bool chosen = !spec_.rope_pairs.empty();
  const int64_t rotary = chosen ? config.rotary() : spec_.head_dim;
  RopeAngles all = MakeRopeAngles(chosen ? config.rope : own, rotary, positions);
  if (chosen) {
    const auto pairs = static_cast<size_t>(rotary / 2);
    for (size_t p = 0; p < static_cast<size_t>(positions); ++p) {
      for (const int64_t pair : spec_.rope_pairs) {
        angles_.cos.push_back(all.cos[p * pairs + static_cast<size_t>(pair)]);
        angles_.sin.push_back(all.sin[p * pairs + static_cast<size_t>(pair)]);
      }
    }
  } else {
    angles_ = std::move(all);
  }
  rope_.cos = View(angles_.cos.data(), positions, spec_.head_dim / 2);
  rope_.sin = View(angles_.sin.data(), positions, spec_.head_dim / 2);
}

void Ladder::ForEachParam(const nn::VisitParam& visit) {
  if (shared_tap_) shared_tap_->ForEachParam(visit);
  for (Rung& rung : rungs_) {
    if (rung.tapped) rung.tap.ForEachParam(visit);
    if (!rung.alpha.value.empty()) visit(rung.alpha);
    rung.block.ForEachParam(visit);
  }
  up_.ForEachParam(visit);
}

void Ladder::ForEachBuffer(const std::function<void(const std::string&, Tensor&)>& visit) {
  if (spec_.tap_norm != TapNorm::kStandardize) return;
  for (size_t j = 0; j < rungs_.size(); ++j) {
    if (!rungs_[j].tapped) continue;
    visit(fmt::format("rungs.{}.tap.mean", j), rungs_[j].mean);
    visit(fmt::format("rungs.{}.tap.inv_deviation", j), rungs_[j].inv_deviation);
  }
}

void Ladder::Initialize(uint64_t seed) {
  const bool plain = spec_.kind == RungKind::kPlain;
  const float residual = 1.0f / std::sqrt(2.0f * static_cast<float>(spec_.rungs));
  float fan_in_bound = 0.0f;  // of the matrix that a bias stands beside
  uint32_t substream = 0;
  ForEachParam([&](nn::Param& param) {
    const bool zero =
        param.name.starts_with("up.") || param.name.ends_with(".alpha") || param.name.ends_with("_norm.bias");
    if (param.name.ends_with("_norm.weight")) {
      std::fill_n(Out{param.value}.as<float>(), param.value.size(), 1.0f);
    } else if (plain && !zero) {
      if (param.value.rows() > 1) fan_in_bound = 1.0f / std::sqrt(static_cast<float>(param.value.cols()));
      Uniform(param, fan_in_bound, seed, substream);
    } else if (!zero) {
      Uniform(param, (WritesResidual(param.name) ? residual : 1.0f) * XavierBound(param), seed, substream);
    }
    ++substream;
  });
}

LadderCache::LadderCache(const LadderSpec& spec, int64_t rows) : slab_(Bytes(spec, rows)) {
  const nn::BlockShape shape = spec.block();
  const int64_t width = shape.Hkv * shape.D;
  float* base = slab_.as<float>();
  for (int64_t j = 0; j < spec.rungs; ++j, base += 2 * rows * width) {
    rungs_.push_back({View(base, rows, width), View(base + rows * width, rows, width)});
  }
}

size_t LadderCache::Bytes(const LadderSpec& spec, int64_t rows) {
  const nn::BlockShape shape = spec.block();
  return static_cast<size_t>(2 * spec.rungs * rows * shape.Hkv * shape.D) * sizeof(float);
}

}  // namespace rung::model
