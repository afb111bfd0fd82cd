#include "eval/batch_runner.h"

#include "train/plan.h"
#include "train/step.h"

namespace rung::eval {

Exec& BatchRunner::Reserve(const data::Batch& batch) {
  const train::ComputeOptions& compute = subject_.compute;
  const size_t bytes =
      train::PlanStep(compute.context, compute.compute, subject_.backbone, subject_.adapter, batch, false)
          .peak.bytes;
  if (slab_ && bytes <= slab_->bytes()) return *exec_;
  exec_.reset();
  slab_.reset();  // before its successor is made
  slab_ = std::make_unique<Slab>(bytes);
  exec_ = std::make_unique<Exec>(Arena(slab_->base(), slab_->bytes()), compute.context, compute.compute);
  return *exec_;
}

std::vector<float> BatchRunner::Losses(const data::Batch& batch) {
  Exec& ex = Reserve(batch);
  const model::BatchInput input(batch);
  const int64_t M = input.target_count();
  std::vector<float> loss(static_cast<size_t>(M));
  std::vector<int32_t> best(static_cast<size_t>(M));
  const Out best_out{View(best.data(), 1, M)};
  train::Step(ex, subject_.backbone, subject_.adapter, input, false, Out{View(loss.data(), 1, M)}, &best_out);
  return loss;
}

}  // namespace rung::eval
