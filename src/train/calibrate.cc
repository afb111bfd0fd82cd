#include "train/calibrate.h"

#include <algorithm>
#include <cmath>

#include "ops/update.h"

namespace rung::train {
namespace {

// A channel that never moves gets a bounded factor instead of a division by zero.
constexpr double kSmallestVariance = 1e-10;

struct Sums {
  std::vector<double> sum, sum_squares;
};

}  // namespace

void CalibrationPass(Exec& ex, const model::Backbone& backbone, const model::BatchInput& batch,
                     int64_t layers, const model::TapSink& sink) {
  Frame frame(ex.arena());
  const int64_t N = batch.pass().ids.cols();
  const Tensor x = ex.arena().Scratch(DType::kF32, N, backbone.config().C, Use::kBackbone, "residual stream");
  backbone.Forward(ex, batch.pass().ids, batch.pass().rows, layers, Out{x}, sink);
}

void Calibrate(Exec& ex, const model::Backbone& backbone, const data::EpochPlan& plan,
               const data::Examples& examples, float scale_factor, model::Ladder* ladder) {
  const std::vector<int64_t>& taps = ladder->spec().taps;
  const int64_t C = backbone.config().C, layers = backbone.config().L - ladder->spec().rejoin;
  const auto width = static_cast<size_t>(C);
  std::vector<Sums> sums(taps.size(), Sums{std::vector<double>(width), std::vector<double>(width)});
  std::vector<double> unused_sum(width), unused_squares(width);
  std::vector<float> row_rms, all_rms;
  RUNG_CHECK(ladder->spec().tap_norm != model::TapNorm::kNone, "taps as they are need no calibration");

  int64_t seen = 0;
  for (size_t b = 0; b < plan.batches.size() && seen < kCalibrationTokens; ++b) {
    const data::Batch batch = data::MakeBatch(plan, static_cast<int64_t>(b), examples);
    const model::BatchInput input(batch);
    row_rms.resize(static_cast<size_t>(batch.rows()));
    const Out rms{View(row_rms.data(), 1, batch.rows())};
    CalibrationPass(ex, backbone, input, layers, [&](int64_t layer, In x) {
      const auto tap = std::find(taps.begin(), taps.end(), layer);
      if (tap != taps.end()) {
        Sums& s = sums[static_cast<size_t>(tap - taps.begin())];
        ops::Moments(ex, x, true, model::kTapEps, s.sum.data(), s.sum_squares.data(), rms);
      }
      if (layer == layers - 1) {
        if (tap == taps.end())
          ops::Moments(ex, x, false, model::kTapEps, unused_sum.data(), unused_squares.data(), rms);
        all_rms.insert(all_rms.end(), row_rms.begin(), row_rms.end());
      }
    });
    seen += batch.rows();
  }
  RUNG_CHECK(seen > 0, "calibration needs at least one row");

  std::nth_element(all_rms.begin(), all_rms.begin() + static_cast<int64_t>(all_rms.size() / 2),
                   all_rms.end());
  ladder->set_output_scale(scale_factor * all_rms[all_rms.size() / 2]);
  if (ladder->spec().tap_norm != model::TapNorm::kStandardize) return;
  const auto n = static_cast<double>(seen);
  for (size_t j = 0; j < taps.size(); ++j) {
    float* mean = Out{ladder->rungs()[j].mean}.as<float>();
    float* inverse = Out{ladder->rungs()[j].inv_deviation}.as<float>();
    for (size_t c = 0; c < width; ++c) {
      const double average = sums[j].sum[c] / n;
      const double variance = sums[j].sum_squares[c] / n - average * average;
      mean[c] = static_cast<float>(average);
      inverse[c] = static_cast<float>(1.0 / std::sqrt(std::max(variance, kSmallestVariance)));
    }
  }
}

}  // namespace rung::train
