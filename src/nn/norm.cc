#include "nn/norm.h"

namespace rung::nn {
namespace {

template <class Into>  // Acc or Out
void BackwardInto(Exec& ex, const Norm& norm, In dy, In x, In stats, Into dx) {
  const Acc dgain{norm.gain.grad}, dbias{norm.bias.grad};
  const Acc* gain = norm.gain.trainable() ? &dgain : nullptr;
  if (norm.kind == NormKind::kRms) {
    ops::RmsNormGrad(ex, dy, x, norm.gain.value, norm.gain_offset, stats, dx, gain);
  } else {
    ops::LayerNormGrad(ex, dy, x, norm.gain.value, stats, dx, gain, norm.bias.trainable() ? &dbias : nullptr);
  }
}

}  // namespace

void Norm::Forward(Exec& ex, In x, Out y, const Tensor& stats) const {
  const Out kept{stats};
  const Out* into = stats.empty() ? nullptr : &kept;
  if (kind == NormKind::kRms) {
    ops::RmsNorm(ex, x, gain.value, gain_offset, eps, y, into);
  } else {
    ops::LayerNorm(ex, x, gain.value, bias.value, eps, y, into);
  }
}

void Norm::Backward(Exec& ex, In dy, In x, In stats, Acc dx) const {
  BackwardInto(ex, *this, dy, x, stats, dx);
}

void Norm::Backward(Exec& ex, In dy, In x, In stats, Out dx) const {
  BackwardInto(ex, *this, dy, x, stats, dx);
}

void Norm::ForEachParam(const VisitParam& visit) {
  for (Param* param : {&gain, &bias}) {
    if (!param->value.empty()) visit(*param);
  }
}

}  // namespace rung::nn
