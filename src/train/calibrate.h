// Statistics of the frozen model over the first training tokens, from which the ladder's two scales follow.
#pragma once

#include "data/packer.h"
#include "model/forward.h"

namespace rung::train {

inline constexpr int64_t kCalibrationTokens = 4000;

// Runs the backbone over batches of `plan` until kCalibrationTokens rows were seen, then sets
//   mean, inv_deviation   per channel of each RMS-normalised tap (tap_norm standardize)
//   output_scale          the median over rows of the RMS of the hidden state that the ladder joins
//                         (of the last layer, or of the one it rejoins at), times `scale_factor`
// Residual streams of real models grow to an RMS of 35 to 200: without these scales a ladder hardly learns.
void Calibrate(Exec& ex, const model::Backbone& backbone, const data::EpochPlan& plan,
               const data::Examples& examples, float scale_factor, model::Ladder* ladder);

// The first `layers` frozen layers over one batch: what calibration and benchmarks run.
void CalibrationPass(Exec& ex, const model::Backbone& backbone, const model::BatchInput& batch,
                     int64_t layers, const model::TapSink& sink);

}  // namespace rung::train
