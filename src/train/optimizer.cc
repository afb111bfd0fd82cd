#include "train/optimizer.h"

#include <cmath>

#include "ops/rows.h"
#include "ops/update.h"

namespace rung::train {
namespace {
constexpr double kLargest8BitNorm = 1e18;
}  // namespace

Optimizer::Layout::Layout(Moments moments, const std::vector<int64_t>& begins) {
  for (size_t i = 0; i + 1 < begins.size(); ++i) {
    const int64_t begin = begins[i], count = begins[i + 1] - begin;
    RUNG_CHECK(count >= 0, "optimizer: parameters must ascend");
    if (moments == Moments::k8Bit && count >= kLeast8Bit) {
      runs.push_back({begin, count, codes, blocks});
      codes += count;
      blocks += cpu::AdamW8Blocks(count);
      continue;
    }
    if (!runs.empty() && runs.back().block < 0) {
      runs.back().count += count;
    } else {
      runs.push_back({begin, count, f32, -1});
    }
    f32 += count;
  }
}

size_t Optimizer::Layout::Bytes() const {
  return 2 * (static_cast<size_t>(f32 + blocks) * sizeof(float) + static_cast<size_t>(codes));
}

Optimizer::Optimizer(const OptimizerOptions& options, const std::vector<int64_t>& begins)
    : options_(options), layout_(options.moments, begins), memory_(layout_.Bytes()) {}

size_t Optimizer::StateBytes(Moments moments, const std::vector<int64_t>& begins) {
  return Layout(moments, begins).Bytes();
}

cpu::AdamW Optimizer::NextStep(double learning_rate, double gradient_scale) {
  const auto t = static_cast<double>(++steps_);
  cpu::AdamW step{};
  step.learning_rate = static_cast<float>(learning_rate);
  step.beta1 = static_cast<float>(options_.beta1);
  step.beta2 = static_cast<float>(options_.beta2);
  step.epsilon = static_cast<float>(options_.epsilon);
  step.decay = static_cast<float>(options_.weight_decay);
  step.bias1 = static_cast<float>(1.0 - std::pow(options_.beta1, t));
  step.bias2 = static_cast<float>(1.0 - std::pow(options_.beta2, t));
  step.gradient_scale = static_cast<float>(gradient_scale);
  return step;
}

Optimizer::Outcome Optimizer::Update(Exec& ex, const nn::FlatParams& params, double learning_rate,
                                     int64_t targets) {
  const double mean = 1.0 / static_cast<double>(targets);
  const double norm = ops::Norm(ex, params.gradients) * mean;
  const bool clipped = options_.max_grad_norm > 0 && norm > options_.max_grad_norm;
  // Squares of larger numbers overflow, and an 8-bit block does not recover from an infinite scale.
  const bool too_large = options_.moments == Moments::k8Bit && !clipped && norm > kLargest8BitNorm;
  if (!std::isfinite(norm) || too_large) {
    ops::Zero(ex, Out{params.gradients});
    return {norm, true};
  }
  const cpu::AdamW step = NextStep(learning_rate, mean * (clipped ? options_.max_grad_norm / norm : 1.0));
  for (const Run& run : layout_.runs) {
    const Tensor gradient = params.gradients.Cols(run.begin, run.count);
    const Acc value{params.values.Cols(run.begin, run.count)};
    if (run.block < 0) {
      const auto moment = [&](int which) { return Acc{View(F32(which) + run.moment, 1, run.count)}; };
      ops::AdamW(ex, step, gradient, value, moment(0), moment(1));
    } else {
      const int64_t blocks = cpu::AdamW8Blocks(run.count);
      const auto codes = [&](int which) { return Acc{View(Codes(which) + run.moment, 1, run.count)}; };
      const auto absmax = [&](int which) { return Acc{View(AbsMax(which) + run.block, 1, blocks)}; };
      ops::AdamW8(ex, step, gradient, value, codes(0), absmax(0), codes(1), absmax(1));
    }
  }
  ops::Zero(ex, Out{params.gradients});
  return {norm, false};
}

void Optimizer::ForEachState(const VisitState& visit) const {
  const auto array = [&](const char* name, const char* dtype, auto* data, int64_t count) {
    if (count > 0) visit(name, dtype, std::as_writable_bytes(std::span(data, static_cast<size_t>(count))));
  };
  array("m", "F32", F32(0), layout_.f32);
  array("v", "F32", F32(1), layout_.f32);
  array("m.absmax", "F32", AbsMax(0), layout_.blocks);
  array("v.absmax", "F32", AbsMax(1), layout_.blocks);
  array("m.codes", "U8", Codes(0), layout_.codes);
  array("v.codes", "U8", Codes(1), layout_.codes);
}

}  // namespace rung::train
