#include "nn/linear.h"

namespace rung::nn {
namespace {

ops::FrozenProduct Frozen(const Linear& layer, const Tensor& y, bool add) {
  return {&layer.frozen, layer.bias.empty() ? nullptr : layer.bias.data(), y, add};
}

void AddPair(Exec& ex, const Linear& layer, const LoraUse& pair, In x, Acc y) {
  if (!pair.lora) return;
  RUNG_CHECK(!layer.trained, "linear: a pair belongs beside a frozen weight");
  Frame frame(ex.arena());
  const Tensor u = !pair.u.empty() ? pair.u
                                   : ex.arena().Scratch(DType::kF32, x.t.rows(), pair.lora->a.value.rows(),
                                                        Use::kLowRank, "low-rank state");
  pair.lora->Forward(ex, x, pair.draw, y, Out{u});
}

// dy in the compute type: as it is, or scratch of the caller's frame.
Tensor InCompute(Exec& ex, In dy) {
  if (dy.t.dtype == ex.compute()) return dy.t;
  const Tensor dyt = ex.arena().Scratch(ex.compute(), dy.t.rows(), dy.t.cols(), Use::kBackbone, "d output");
  ops::Convert(ex, dy, Out{dyt});
  return dyt;
}

void BackwardInto(Exec& ex, const Linear& layer, const LoraUse& pair, In dy, In x, const Tensor& dx,
                  bool add) {
  if (layer.trained) {
    RUNG_CHECK(!pair.lora, "linear: a pair belongs beside a frozen weight");
    layer.BackwardWeight(ex, dy, x);
    add ? ops::ProjectGradInput(ex, dy, layer.weight.value, Acc{dx})
        : ops::ProjectGradInput(ex, dy, layer.weight.value, Out{dx});
    return;
  }
  Frame frame(ex.arena());
  const Tensor dyt = InCompute(ex, dy);
  add ? ops::ProjectFrozenGradInput(ex, dyt, layer.frozen, Acc{dx})
      : ops::ProjectFrozenGradInput(ex, dyt, layer.frozen, Out{dx});
  const Acc into{dx};
  if (pair.lora) pair.lora->Backward(ex, dy, dyt, x, pair.draw, pair.u, &into);
}

}  // namespace

void Linear::Forward(Exec& ex, In x, Out y) const { ForwardTogether(ex, x, {{this, y.t}}); }

void Linear::Forward(Exec& ex, In x, Acc y) const { nn::Forward(ex, *this, {}, x, y); }

void Linear::Backward(Exec& ex, In dy, In x, Out dx) const {
  BackwardInto(ex, *this, {}, dy, x, dx.t, false);
}

void Linear::BackwardWeight(Exec& ex, In dy, In x) const {
  RUNG_CHECK(trained, "linear: a frozen weight has no gradient");
  ops::ProjectGradWeight(ex, dy, x, Acc{weight.grad});
  if (!trained_bias.value.empty()) ops::SumRows(ex, dy, Acc{trained_bias.grad});
}

void Linear::ForEachParam(const VisitParam& visit) {
  if (!trained) return;
  visit(weight);
  if (!trained_bias.value.empty()) visit(trained_bias);
}

void Forward(Exec& ex, const Linear& layer, const LoraUse& pair, In x, Acc y) {
  if (layer.trained) {
    ops::Project(ex, x, layer.weight.value, y);
    if (!layer.trained_bias.value.empty()) ops::AddBias(ex, layer.trained_bias.value, y);
    return;
  }
  const ops::FrozenProduct product = Frozen(layer, y.t, true);
  ops::ProjectFrozen(ex, x, {&product, 1});
  AddPair(ex, layer, pair, x, y);
}

void Backward(Exec& ex, const Linear& layer, const LoraUse& pair, In dy, In x, Out dx) {
  BackwardInto(ex, layer, pair, dy, x, dx.t, false);
}

void Backward(Exec& ex, const Linear& layer, const LoraUse& pair, In dy, In x, Acc dx) {
  BackwardInto(ex, layer, pair, dy, x, dx.t, true);
}

void BackwardTrained(Exec& ex, const Linear& layer, const LoraUse& pair, In dy, In x) {
  if (layer.trained) layer.BackwardWeight(ex, dy, x);
  if (!pair.lora) return;
  RUNG_CHECK(!layer.trained, "linear: a pair belongs beside a frozen weight");
  Frame frame(ex.arena());
  pair.lora->Backward(ex, dy, InCompute(ex, dy), x, pair.draw, pair.u, nullptr);
}

void ForwardTogether(Exec& ex, In x, std::initializer_list<LinearUse> uses) {
  std::vector<ops::FrozenProduct> frozen;
  for (const LinearUse& use : uses) {
    if (use.layer->trained) {
      ops::Project(ex, x, use.layer->weight.value, Out{use.y});
      if (!use.layer->trained_bias.value.empty()) ops::AddBias(ex, use.layer->trained_bias.value, Acc{use.y});
    } else {
      frozen.push_back(Frozen(*use.layer, use.y, false));
    }
  }
  if (!frozen.empty()) ops::ProjectFrozen(ex, x, frozen);
  for (const LinearUse& use : uses) AddPair(ex, *use.layer, use.pair, x, Acc{use.y});
}

}  // namespace rung::nn
