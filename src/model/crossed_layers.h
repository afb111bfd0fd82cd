// The layers that a backward pass crosses: from one of the backbone's up to its top.
#pragma once

#include <functional>
#include <vector>

#include "model/backbone.h"
#include "model/ladder_pass.h"

namespace rung::model {

class CrossedLayers {
 public:
  using CallOf = std::function<nn::BlockCall(int64_t layer)>;
  // Runs a layer's backward pass by `back(block)`: of the model's block, or of another of its shape in its
  // place.
  using Back = std::function<void(const nn::DecoderBlock& block)>;
  using Around = std::function<void(int64_t layer, const Back& back)>;

  // Layers from `first` on. kKeep: what Backward reads is kept; kRecompute: each layer's input alone, and the
  // layer is run again.
  CrossedLayers(const Backbone& backbone, int64_t first, BlockMemory memory, CallOf call)
      : backbone_(backbone), first_(first), memory_(memory), call_(std::move(call)) {}

  // The output (N,C) f32 of the last layer, scratch of the caller's frame, for x (N,C) f32, the input of the
  // first one, which the caller keeps for Backward.
  Tensor Forward(Exec& ex, Tensor x);
  // Turns the gradient of the output into that of x, adding to those of what is trained. reach: of the first
  // layer. around (kRecompute only): nullptr: each layer as it is.
  void Backward(Exec& ex, Acc dx, nn::Reach reach, const Around& around = nullptr);

 private:
  struct Crossed {
    Tensor x;  // (N,C): the layer's input
    nn::DecoderBlock::Saved block;
  };
  const Backbone& backbone_;
  int64_t first_;
  BlockMemory memory_;
  CallOf call_;
  std::vector<Crossed> crossed_;
};

}  // namespace rung::model
