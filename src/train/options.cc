#include "train/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "model/prune.h"

namespace rung::train {
namespace {

constexpr int64_t kHeadDim = 32;
constexpr int64_t kDefaultTaps = 5;
constexpr double kWidthShare = 4.5;   // C over S; experiments: docs/adr/0004
constexpr int64_t kDefaultRank = 64;  // as QLoRA (arXiv 2305.14314)

Result<std::vector<int64_t>> ResolveTaps(const TrainOptions& options, int64_t below) {
  const LadderOptions& o = options.ladder;
  if (options.method == Method::kXladder) {
    if (!o.taps.empty()) return UsageFailure("--taps: the taps of xladder are the top --delta layers");
    const int64_t delta = o.delta > 0 ? o.delta : std::min(kDefaultTaps, below);
    if (delta > below)
      return UsageFailure(fmt::format("--delta {}: only {} layers can be tapped", delta, below));
    return model::ParseLayers(fmt::format("top:{}", delta), below, "--delta");
  }
  if (o.delta > 0) return UsageFailure("--delta: of xladder only; a ladder has --taps");
  if (!o.taps.empty()) return model::ParseLayers(o.taps, below, "--taps");
  const int64_t spacing = std::max<int64_t>(1, below / kDefaultTaps);
  Result<std::vector<int64_t>> layers = model::ParseLayers(fmt::format("every:{}", spacing), below, "--taps");
  if (!layers.ok()) return layers;
  std::vector<int64_t> taps = std::move(layers).value();
  // A depth that five does not divide leaves taps too many, at the bottom.
  if (static_cast<int64_t>(taps.size()) > kDefaultTaps) taps.erase(taps.begin(), taps.end() - kDefaultTaps);
  return taps;
}

Result<int64_t> ResolveWidth(const LadderOptions& o, int64_t C) {
  if (o.width > 1.0) {
    if (o.width != std::floor(o.width) || o.width > 65536) {
      return UsageFailure(
          fmt::format("--width {}: a whole number, or a fraction of the model's width", o.width));
    }
    return static_cast<int64_t>(o.width);
  }
  const double share = o.width > 0.0 ? o.width : 1.0 / kWidthShare;
  const double heads = static_cast<double>(C) * share / static_cast<double>(kHeadDim);
  return std::max<int64_t>(1, std::llround(heads)) * kHeadDim;
}

Status ShapeRungs(const LadderOptions& o, const model::Config& config, model::LadderSpec* spec) {
  Result<int64_t> width = ResolveWidth(o, config.C);
  if (!width.ok()) return width.failure();
  spec->S = width.value();
  spec->kind = o.kind;
  if (o.kind == model::RungKind::kPlain) {
    if (o.norm || o.rotary) {
      return UsageFailure("--rung-norm, --rung-positions: plain rungs have neither norms nor positions");
    }
    if (o.heads > 1) return UsageFailure("--side-heads: plain rungs have one head");
    if (o.init != LadderInit::kRandom) return UsageFailure("--ladder-init: plain rungs begin at random");
    spec->head_dim = spec->S;
    spec->F = 4 * spec->S;
    return Ok{};
  }
  spec->norm = o.norm.value_or(config.norm);
  spec->rotary = o.rotary.value_or(!config.no_rope);
  if (o.init != LadderInit::kRandom) {
    if (o.heads > 0)
      return UsageFailure("--side-heads: heads of rungs made of the model's follow from --width");
    if (o.tap_map == model::TapMap::kPooled) {
      return UsageFailure(
          "--tap-map pooled: rungs made of the model's read some of its channels as they are: project");
    }
    if (o.fisher_samples < 1)
      return UsageFailure(fmt::format("--fisher-samples {}: at least 1", o.fisher_samples));
    return model::ShapePruned(config, spec);
  }
  const int64_t heads = o.heads > 0 ? o.heads : std::max<int64_t>(1, spec->S / kHeadDim);
  if (spec->S % heads != 0 || spec->S / heads % 2 != 0) {
    return UsageFailure(
        fmt::format("--width {}: must be {} heads of an even width{}", spec->S, heads,
                    o.heads > 0 ? "" : fmt::format(" (a multiple of {}, or set --side-heads)", kHeadDim)));
  }
  spec->head_dim = spec->S / heads;
  spec->F = std::llround(static_cast<double>(spec->S) * 8.0 / 3.0 / 16.0) * 16;
  return Ok{};
}

Result<model::LadderSpec> ResolveLadder(const TrainOptions& options, const model::Config& config) {
  const LadderOptions& o = options.ladder;
  model::LadderSpec spec;
  spec.rejoin = RejoinOf(options, config.L);
  if (spec.rejoin < 0 || spec.rejoin >= config.L) {
    return UsageFailure(fmt::format("--rejoin {}: 0 to {} layers below the top", spec.rejoin, config.L - 1));
  }
  Result<std::vector<int64_t>> taps = ResolveTaps(options, config.L - spec.rejoin);
  if (!taps.ok()) {
    if (o.rejoin || spec.rejoin == 0) return taps.failure();
    return UsageFailure(
        fmt::format("{}; by default the ladder rejoins {} layers below the top, and taps end there: "
                    "--rejoin 0 taps all layers",
                    taps.failure().message, spec.rejoin));
  }
  spec.taps = std::move(taps).value();
  const auto tapped = static_cast<int64_t>(spec.taps.size());
  spec.rungs = o.rungs > 0 ? o.rungs : options.method == Method::kXladder ? 2 * tapped : tapped;
  if (spec.rungs < tapped) {
    return UsageFailure(fmt::format("--rungs {}: {} taps need at least as many rungs", spec.rungs, tapped));
  }
  if (Status shaped = ShapeRungs(o, config, &spec); !shaped.ok()) return shaped.failure();
  const bool plain = o.kind == model::RungKind::kPlain;
  spec.gate = o.gate;
  spec.tap_map = o.tap_map;
  if (spec.tap_map == model::TapMap::kPooled && spec.S > config.C) {
    return UsageFailure(
        fmt::format("--tap-map pooled: the width {} is above the model's {}", spec.S, config.C));
  }
  // The prototype adds raw taps through one projection, at scale 1.
  spec.tap_norm = plain ? model::TapNorm::kNone : o.tap_norm;
  spec.output_scale = static_cast<float>(o.output_scale);
  return spec;
}

Result<model::LoraSpec> ResolveLora(const TrainOptions& options, const model::Config& config,
                                    int64_t lowest) {
  const LoraOptions& o = options.lora;
  model::LoraSpec spec;
  spec.R = o.r > 0 ? o.r : kDefaultRank;
  spec.alpha = o.alpha;
  spec.dropout = o.dropout;
  spec.rank_stabilized = o.rank_stabilized;
  Result<std::vector<std::string>> targets = model::ParseTargets(o.targets, config);
  if (!targets.ok()) return targets.failure();
  spec.targets = std::move(targets).value();
  const std::string all = lowest > 0 ? fmt::format("top:{}", config.L - lowest) : "all";
  Result<std::vector<int64_t>> layers =
      model::ParseLayers(o.layers.empty() ? all : o.layers, config.L, "--layers");
  if (!layers.ok()) return layers.failure();
  spec.layers = std::move(layers).value();
  return spec;
}

}  // namespace

int64_t RejoinOf(const TrainOptions& options, int64_t L) {
  return options.ladder.rejoin.value_or(RejoinsByDefault(options) ? L * 4 / 15 : 0);
}

Result<model::AdapterSpec> ResolveAdapter(const TrainOptions& options, const model::Config& config) {
  model::AdapterSpec spec;
  if (options.method != Method::kLora) {
    Result<model::LadderSpec> ladder = ResolveLadder(options, config);
    if (!ladder.ok()) return ladder.failure();
    spec.ladder = std::move(ladder).value();
  }
  if (options.method == Method::kLora || options.lora.r > 0) {
    if (spec.ladder && spec.ladder->rejoin == 0) {
      return UsageFailure(
          "--lora-r: beside a ladder, low-rank pairs stand above its joining point: give --rejoin too");
    }
    Result<model::LoraSpec> lora =
        ResolveLora(options, config, spec.ladder ? config.L - spec.ladder->rejoin : 0);
    if (!lora.ok()) return lora.failure();
    spec.lora = std::move(lora).value();
  }
  if (Status meaningful = model::CheckAdapterSpec(spec, config); !meaningful.ok())
    return meaningful.failure();
  return spec;
}

double ResolveLearningRate(const TrainOptions& options, const model::AdapterSpec& spec,
                           const model::Config& config) {
  if (options.learning_rate > 0) return options.learning_rate;
  // 3e-3 at S = 128 and 2e-3 at 256 were best: close to 1/sqrt(S).
  if (spec.ladder) return 3e-3 * std::sqrt(128.0 / static_cast<double>(spec.ladder->S));
  return 1e-3 * std::sqrt(576.0 / static_cast<double>(config.C));
}

}  // namespace rung::train
