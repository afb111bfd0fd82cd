#include "nn/linear.h"

namespace rung::nn {
namespace {

ops::FrozenProduct Frozen(const Linear& layer, const Tensor& y, bool add) {
  return {&layer.frozen, layer.bias.empty() ? nullptr : layer.bias.data(), y, add};
}

void GradWeight(Exec& ex, const Linear& layer, In dy, In x) {
  RUNG_CHECK(layer.trained, "linear: a frozen weight has no backward pass here");
  ops::ProjectGradWeight(ex, dy, x, Acc{layer.weight.grad});
}

}  // namespace

void Linear::Forward(Exec& ex, In x, Out y) const { ForwardTogether(ex, x, {{this, y.t}}); }

void Linear::Forward(Exec& ex, In x, Acc y) const {
  if (trained) {
    ops::Project(ex, x, weight.value, y);
    return;
  }
  const ops::FrozenProduct product = Frozen(*this, y.t, true);
  ops::ProjectFrozen(ex, x, {&product, 1});
}

void Linear::Backward(Exec& ex, In dy, In x, Out dx) const {
  GradWeight(ex, *this, dy, x);
  ops::ProjectGradInput(ex, dy, weight.value, dx);
}

void Linear::Backward(Exec& ex, In dy, In x, Acc dx) const {
  GradWeight(ex, *this, dy, x);
  ops::ProjectGradInput(ex, dy, weight.value, dx);
}

void ForwardTogether(Exec& ex, In x, std::initializer_list<LinearUse> uses) {
  std::vector<ops::FrozenProduct> frozen;
  for (const LinearUse& use : uses) {
    if (use.layer->trained) {
      ops::Project(ex, x, use.layer->weight.value, Out{use.y});
    } else {
      frozen.push_back(Frozen(*use.layer, use.y, false));
    }
  }
  if (!frozen.empty()) ops::ProjectFrozen(ex, x, frozen);
}

}  // namespace rung::nn
