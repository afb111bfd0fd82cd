// Numbers that are trained, or frozen when they have no gradient, and the flat arrays that hold them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "exec/exec.h"
#include "tensor/tensor.h"

namespace rung::nn {

struct Param {
  std::string name;
  Tensor value;  // f32
  Tensor grad;   // the same shape; empty when frozen. Backward adds to it
  bool trainable() const { return !grad.empty(); }
};
using VisitParam = std::function<void(Param&)>;

// What an optimizer sees: all parameters behind each other.
struct FlatParams {
  Tensor values;                // (1,n) f32
  Tensor gradients;             // (1,n) f32; empty when nobody trains
  std::vector<int64_t> begins;  // of each parameter, ascending, and n at the end
  int64_t count() const { return begins.empty() ? 0 : begins.back(); }
};

// Owns the flat arrays of the parameters that `walk` visits, in that order; fresh memory is zero.
class ParamStore {
 public:
  using Walk = std::function<void(const VisitParam&)>;
  ParamStore() = default;
  // Sets value (and grad) of every parameter visited; shapes are read from value.
  ParamStore(const Walk& walk, bool with_gradients);
  // Sizes alone: the parameters keep null data. For plans.
  static ParamStore Planned(const Walk& walk);
  const FlatParams& flat() const { return flat_; }

 private:
  FlatParams flat_;
  std::unique_ptr<Slab> values_, gradients_;
};

}  // namespace rung::nn
