#include "train/optimizer.h"

#include <cmath>

#include "ops/update.h"

namespace rung::train {

Optimizer::Optimizer(const OptimizerOptions& options, int64_t parameter_count)
    : options_(options), memory_(StateBytes(parameter_count)) {
  m_ = View(memory_.as<float>(), 1, parameter_count);
  v_ = View(memory_.as<float>() + parameter_count, 1, parameter_count);
}

Optimizer::Outcome Optimizer::Update(Exec& ex, model::Ladder& ladder, double learning_rate, int64_t targets) {
  const Tensor gradient = ladder.gradients();
  const double mean = 1.0 / static_cast<double>(targets);
  const double norm = ops::Norm(ex, gradient) * mean;
  const bool finite = std::isfinite(norm);
  if (finite) {
    ++steps_;
    const double clip =
        options_.max_grad_norm > 0 && norm > options_.max_grad_norm ? options_.max_grad_norm / norm : 1.0;
    const auto t = static_cast<double>(steps_);
    cpu::AdamW step{};
    step.learning_rate = static_cast<float>(learning_rate);
    step.beta1 = static_cast<float>(options_.beta1);
    step.beta2 = static_cast<float>(options_.beta2);
    step.epsilon = static_cast<float>(options_.epsilon);
    step.decay = static_cast<float>(options_.weight_decay);
    step.bias1 = static_cast<float>(1.0 - std::pow(options_.beta1, t));
    step.bias2 = static_cast<float>(1.0 - std::pow(options_.beta2, t));
    step.gradient_scale = static_cast<float>(mean * clip);
    ops::AdamW(ex, step, gradient, Acc{ladder.values()}, Acc{m_}, Acc{v_});
  }
  ops::Zero(ex, Out{gradient});
  return {norm, !finite};
}

}  // namespace rung::train
