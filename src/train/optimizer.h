// AdamW over the ladder's flat arrays, with f32 moments.
#pragma once

#include <cstdint>

#include "model/ladder.h"

namespace rung::train {

struct OptimizerOptions {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0.0;
  double max_grad_norm = 1.0;  // 0: no clipping
};

class Optimizer {
 public:
  Optimizer(const OptimizerOptions& options, int64_t parameter_count);

  static size_t StateBytes(int64_t parameter_count) {
    return static_cast<size_t>(parameter_count) * 2 * sizeof(float);
  }

  struct Outcome {
    double norm = 0.0;     // of the mean gradient, before clipping
    bool skipped = false;  // the norm is not finite: nothing was changed
  };
  // One step with the gradient of the sum of losses over `targets` targets; the gradient is set to zero
  // after.
  Outcome Update(Exec& ex, model::Ladder& ladder, double learning_rate, int64_t targets);

  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }
  Tensor m() const { return m_; }  // (1,n)
  Tensor v() const { return v_; }

 private:
  OptimizerOptions options_;
  Slab memory_;
  Tensor m_, v_;
  int64_t steps_ = 0;
};

}  // namespace rung::train
