// AdamW over flat parameter arrays, with moments in f32 or in 8 bits.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/names.h"
#include "kernels/cpu/rows.h"
#include "nn/param.h"

namespace rung::train {

// How the two moments are kept: 8 bytes a number, or 2 and a 32nd (kernels/cpu/adamw8.h).
enum class Moments : uint8_t { kF32, k8Bit };
inline constexpr Named<Moments> kOptimizerNames[] = {{"adamw", Moments::kF32}, {"adamw8bit", Moments::k8Bit}};
static_assert(NamesAll(kOptimizerNames, Moments::k8Bit));

struct OptimizerOptions {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0.0;
  double max_grad_norm = 1.0;  // 0: no clipping
  Moments moments = Moments::kF32;
};

class Optimizer {
 public:
  // With k8Bit, parameters of fewer numbers keep f32 moments, as in bitsandbytes: their memory is nothing.
  static constexpr int64_t kLeast8Bit = 4096;

  // begins: of each parameter, ascending, and the count of all at the end (nn::FlatParams).
  Optimizer(const OptimizerOptions& options, const std::vector<int64_t>& begins);

  static size_t StateBytes(Moments moments, const std::vector<int64_t>& begins);

  struct Outcome {
    double norm = 0.0;     // of the mean gradient, before clipping
    bool skipped = false;  // the norm is not finite, or too large for 8 bits: nothing was changed
  };
  // One step with the gradient of the sum of losses over `targets` targets; the gradient is set to zero
  // after.
  Outcome Update(Exec& ex, const nn::FlatParams& params, double learning_rate, int64_t targets);

  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

  // Every array of the state, to save or to fill: with steps(), all that the next Update depends on. Arrays
  // run over the parameters that have them, in order; those without numbers are left out.
  //   f32     "m", "v"                    F32  one per number; with k8Bit, of the small parameters
  //   8 bits  "m.absmax", "v.absmax"      F32  one per block of 256 numbers, new blocks at every parameter
  //           "m.codes", "v.codes"        U8   one per number
  using VisitState =
      std::function<void(const std::string& name, const char* dtype, std::span<std::byte> bytes)>;
  void ForEachState(const VisitState& visit) const;

 private:
  // Numbers that are updated by one call: neighbours with f32 moments, or one parameter with 8-bit moments.
  struct Run {
    int64_t begin, count;
    int64_t moment;  // of its first number, among the f32 moments or among the codes
    int64_t block;   // its first, among the blocks; -1: f32 moments
  };
  // Sizes of the arrays; two of each stand behind each other in memory, in this order.
  struct Layout {
    Layout(Moments moments, const std::vector<int64_t>& begins);
    size_t Bytes() const;
    std::vector<Run> runs;
    int64_t f32 = 0, blocks = 0, codes = 0;
  };
  cpu::AdamW NextStep(double learning_rate, double gradient_scale);
  float* F32(int which) const { return memory_.as<float>() + which * layout_.f32; }  // m: 0, v: 1
  float* AbsMax(int which) const { return F32(2) + which * layout_.blocks; }
  int8_t* Codes(int which) const { return reinterpret_cast<int8_t*>(AbsMax(2)) + which * layout_.codes; }

  OptimizerOptions options_;
  Layout layout_;
  Slab memory_;
  int64_t steps_ = 0;
};

}  // namespace rung::train
