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

  const Tensor h = ex.arena().Scratch(ex.compute(), M, C, Use::kHead, "normed head input");
  if (!learn) {
    backbone.final_norm().Forward(ex, z, Out{h}, nullptr);
    ops::HeadLoss(ex, h, backbone.head(), batch.target(), loss, nullptr, best);
    return;
  }
  const Tensor rstd = ex.arena().Scratch(DType::kF32, 1, M, Use::kHead, "rstd");
  const Tensor dh = ex.arena().Scratch(DType::kF32, M, C, Use::kHead, "d normed head input");
  const Tensor dz = ex.arena().Scratch(DType::kF32, M, C, Use::kHead, "d head input");
  const Out rstd_out{rstd}, dh_out{dh};
  const nn::Norm& norm = backbone.final_norm();
  norm.Forward(ex, z, Out{h}, &rstd_out);
  ops::HeadLoss(ex, h, backbone.head(), batch.target(), loss, &dh_out, best);
  ops::RmsNormGrad(ex, dh, z, norm.gain.value, norm.gain_offset, rstd, Out{dz}, nullptr);
  pass.Backward(Acc{dz});
}

}  // namespace rung::train
