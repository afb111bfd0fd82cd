#include "model/crossed_layers.h"

namespace rung::model {

Tensor CrossedLayers::Forward(Exec& ex, Tensor x) {
  const int64_t L = backbone_.config().L;
  for (int64_t layer = first_; layer < L; ++layer) {
    At at(ex, "layer", layer);
    Crossed crossed{x, {}};
    // The last one's output is read once more, by whoever called.
    const Tensor y =
        layer + 1 < L
            ? ex.arena().Keep(DType::kF32, x.rows(), x.cols(), Use::kSaved, "crossed layer's input")
            : ex.arena().Scratch(DType::kF32, x.rows(), x.cols(), Use::kBackbone, "residual stream");
    const bool keep = memory_ == BlockMemory::kKeep;
    backbone_.block(layer).Forward(ex, x, call_(layer), Out{y}, keep ? &crossed.block : nullptr);
    crossed_.push_back(crossed);
    x = y;
  }
  return x;
}

void CrossedLayers::Backward(Exec& ex, Acc dx, nn::Reach reach, const Around& around) {
  RUNG_CHECK(!around || memory_ == BlockMemory::kRecompute, "crossed layers: what was kept is of one block");
  for (size_t i = crossed_.size(); i-- > 0;) {
    const int64_t layer = first_ + static_cast<int64_t>(i);
    const nn::Reach to = i == 0 ? reach : nn::Reach::kInput;
    At at(ex, "the backward pass of layer", layer);
    Crossed& crossed = crossed_[i];
    if (memory_ == BlockMemory::kKeep) {
      backbone_.block(layer).Backward(ex, call_(layer), crossed.block, dx, to);
      continue;
    }
    KeepFrame kept(ex.arena());
    Frame frame(ex.arena());
    const Tensor again =
        ex.arena().Scratch(DType::kF32, dx.t.rows(), dx.t.cols(), Use::kBackbone, "layer's output again");
    const auto back = [&](const nn::DecoderBlock& block) {
      block.Forward(ex, crossed.x, call_(layer), Out{again}, &crossed.block);
      block.Backward(ex, call_(layer), crossed.block, dx, to);
    };
    if (around) {
      around(layer, back);
    } else {
      back(backbone_.block(layer));
    }
  }
}

}  // namespace rung::model
