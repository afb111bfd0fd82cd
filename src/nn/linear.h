// y = x W^T + b. One layer for all uses: W is frozen in any storage format, or trained in f32.
//
// Backward:  dx += dy W      dW += dy^T x   (trained only)
#pragma once

#include <initializer_list>
#include <vector>

#include "nn/param.h"
#include "ops/products.h"

namespace rung::nn {

struct Linear {
  format::Matrix frozen;    // (O,K); data may be null while planning
  std::vector<float> bias;  // (O) or empty; frozen
  Param weight;             // (O,K) when trained; then `frozen` is unused
  bool trained = false;

  int64_t out_features() const { return trained ? weight.value.rows() : frozen.rows; }
  int64_t in_features() const { return trained ? weight.value.cols() : frozen.cols; }

  void Forward(Exec& ex, In x, Out y) const;
  void Forward(Exec& ex, In x, Acc y) const;
  // x is what Forward saw. dx is overwritten or added to.
  void Backward(Exec& ex, In dy, In x, Out dx) const;
  void Backward(Exec& ex, In dy, In x, Acc dx) const;
};

// Several layers that read the same x: frozen ones in one launch.
struct LinearUse {
  const Linear* layer;
  Tensor y;
};
void ForwardTogether(Exec& ex, In x, std::initializer_list<LinearUse> uses);

}  // namespace rung::nn
