#include "train/step.h"

namespace rung::train {

void Step(Exec& ex, const model::Backbone& backbone, const model::Adapter* adapter,
          const model::BatchInput& batch, bool learn, Out loss, const Out* best) {
  KeepFrame kept(ex.arena());
  Frame frame(ex.arena());
  const int64_t M = batch.target_count(), C = backbone.config().C;
  const Tensor z = ex.arena().Scratch(DType::kF32, M, C, Use::kHead, "head input");

  model::Pass pass(ex, backbone, adapter, batch.pass(), learn, {});
  pass.Forward(Out{z});

  // Its gradient takes its memory.
  const Out dz{z};
  {
    At at(ex, "the head");
    backbone.Loss(ex, z, batch.target(), loss, learn ? &dz : nullptr, best);
  }
  if (learn) pass.Backward(Acc{z});
}

}  // namespace rung::train
