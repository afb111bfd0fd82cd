// y = x W^T + b. One layer for all uses: W is frozen in any storage format, or trained in f32; a low-rank
// pair may stand beside a frozen one.
//
// Backward:  dx += dy W      dW += dy^T x, db += sum dy   (trained only)
#pragma once

#include <initializer_list>
#include <vector>

#include "nn/lora.h"
#include "ops/products.h"

namespace rung::nn {

struct Linear {
  format::Matrix frozen;    // (O,K); data may be null while planning
  std::vector<float> bias;  // (O) or empty; frozen
  Param weight;             // (O,K) when trained; then `frozen` and `bias` are unused
  Param trained_bias;       // (1,O), or empty
  bool trained = false;

  int64_t out_features() const { return trained ? weight.value.rows() : frozen.rows; }
  int64_t in_features() const { return trained ? weight.value.cols() : frozen.cols; }

  void Forward(Exec& ex, In x, Out y) const;
  void Forward(Exec& ex, In x, Acc y) const;
  // dy (N,O) f32; x is what Forward saw (not read when frozen). dx (N,K) f32 is overwritten.
  void Backward(Exec& ex, In dy, In x, Out dx) const;
  // The trained layer's own gradients alone, where nobody wants dx.
  void BackwardWeight(Exec& ex, In dy, In x) const;

  // Visits what is trained.
  void ForEachParam(const VisitParam& visit);
};

// A low-rank pair in one call. No pair: lora is nullptr.
struct LoraUse {
  const Lora* lora = nullptr;
  Draw draw;
  Tensor u;  // (N,R) f32: kept by the caller when Backward will follow; empty: scratch of the call
};
void Forward(Exec& ex, const Linear& layer, const LoraUse& pair, In x, Acc y);
void Backward(Exec& ex, const Linear& layer, const LoraUse& pair, In dy, In x, Out dx);
void Backward(Exec& ex, const Linear& layer, const LoraUse& pair, In dy, In x, Acc dx);
// The gradients of what is trained of layer and pair, where nobody wants dx.
void BackwardTrained(Exec& ex, const Linear& layer, const LoraUse& pair, In dy, In x);

// Several layers that read the same x: frozen ones in one launch.
struct LinearUse {
  const Linear* layer;
  Tensor y;
  LoraUse pair = {};
};
void ForwardTogether(Exec& ex, In x, std::initializer_list<LinearUse> uses);

}  // namespace rung::nn
