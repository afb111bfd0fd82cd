#include "train/options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace rung::train {
namespace {

constexpr int64_t kHeadDim = 32;
constexpr int64_t kDefaultTaps = 5;
constexpr double kWidthShare = 4.5;  // C over S; experiments: docs/adr/0004

}  // namespace

Result<model::LadderSpec> ResolveLadder(const TrainOptions& options, const model::Config& config) {
  model::LadderSpec spec;
  const int64_t spacing = std::max<int64_t>(1, config.L / kDefaultTaps);
  const std::string taps = !options.taps.empty() ? options.taps : fmt::format("every:{}", spacing);
  Result<std::vector<int64_t>> layers = model::ParseTaps(taps, config.L);
  if (!layers.ok()) return layers.failure();
  spec.taps = layers.value();
  // An L that five does not divide leaves one tap too many, at the bottom.
  if (options.taps.empty() && static_cast<int64_t>(spec.taps.size()) > kDefaultTaps) {
    spec.taps.erase(spec.taps.begin(), spec.taps.end() - kDefaultTaps);
  }
  spec.rungs = options.rungs > 0 ? options.rungs : static_cast<int64_t>(spec.taps.size());
  if (spec.rungs < static_cast<int64_t>(spec.taps.size())) {
    return Failure{
        fmt::format("--rungs {}: {} taps need at least as many rungs", spec.rungs, spec.taps.size()),
        ExitCode::kUsage};
  }
  const double share = static_cast<double>(config.C) / kWidthShare / static_cast<double>(kHeadDim);
  spec.S = options.width > 0 ? options.width : std::max<int64_t>(1, std::llround(share)) * kHeadDim;
  spec.head_dim = kHeadDim;
  if (spec.S % kHeadDim != 0) {
    return Failure{fmt::format("--width {}: must be a multiple of {}, the width of a head", spec.S, kHeadDim),
                   ExitCode::kUsage};
  }
  spec.F = std::llround(static_cast<double>(spec.S) * 8.0 / 3.0 / 16.0) * 16;
  spec.gate = options.gate;
  spec.tap_norm = options.tap_norm;
  spec.output_scale = options.output_scale > 0 ? static_cast<float>(options.output_scale) : 1.0f;
  spec.memory = options.rung_memory;
  return spec;
}

double ResolveLearningRate(const TrainOptions& options, const model::LadderSpec& spec) {
  if (options.learning_rate > 0) return options.learning_rate;
  // 3e-3 at S = 128 and 2e-3 at 256 were best: close to 1/sqrt(S).
  return 3e-3 * std::sqrt(128.0 / static_cast<double>(spec.S));
}

}  // namespace rung::train
