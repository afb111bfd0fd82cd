// Fisher information of the weights of some layers: what rungs are pruned by (model/prune.h).
//
//   I(w) = sum over examples of (d loss / d w)^2      loss: of one example, the mean of its targets' nats
//
// The backward pass of a frozen block gives no gradients of weights. A measured layer is run backward as a
// trained one instead: the same block with its weights decoded to f32, one layer at a time. So the engine has
// one backward pass, and memory is that of one layer twice, beside the importances.
#pragma once

#include <memory>
#include <span>

#include "data/batch.h"
#include "model/prune.h"
#include "train/options.h"
#include "train/plan.h"

namespace rung::train {

class Fisher {
 public:
  struct Need {
    uint64_t importances = 0, layer = 0, arena = 0;  // bytes
    uint64_t total() const { return importances + layer + arena; }
  };
  // `backbone` may be planned.
  static Need Plan(const ComputeOptions& compute, const model::Backbone& backbone,
                   const std::vector<int64_t>& layers, std::span<const data::Example> examples);
  // Of `layers`, ascending, over `examples`, a pass for each; those without targets count for nothing. Takes
  // the memory of the plan, and keeps the importances.
  Fisher(const ComputeOptions& compute, const model::Backbone& backbone, const std::vector<int64_t>& layers,
         std::span<const data::Example> examples);

  // For model::SelectPruned; this outlives it. Of the measured layers only.
  model::Importance importance() const;

 private:
  struct Pass;
  std::vector<int64_t> layers_, cols_;  // cols_, begins_: of each matrix of a block
  std::vector<int64_t> begins_;
  int64_t layer_size_ = 0;
  std::unique_ptr<Slab> importances_;  // layer by layer, matrix by matrix
};

// The row of a plan. Importances are measured and gone before anything of the training step exists: what
// counts is how much more than that they take.
PlanItem ImportanceItem(const Fisher::Need& need, const MemoryPlan& plan);

}  // namespace rung::train
