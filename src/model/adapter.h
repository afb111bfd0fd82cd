// What is trained beside a frozen backbone: a ladder, low-rank pairs, or both.
#pragma once

#include <memory>
#include <optional>

#include "model/ladder_pass.h"
#include "model/lora.h"

namespace rung::model {

struct AdapterSpec {
  std::optional<LadderSpec> ladder;
  std::optional<LoraSpec> lora;

  // The first layer that the backward pass crosses; L: none. Layers below it are only ever run forward.
  int64_t first_crossed(int64_t L) const;
};
// Refuses what has no meaning: nothing at all; taps at or above the joining point; low-rank pairs below the
// joining point of a ladder, whose gradients would have to flow through the taps.
Status CheckAdapterSpec(const AdapterSpec& spec, const Config& config);

// Owns parameters and gradients as flat arrays: those of the ladder, then those of the pairs.
class Adapter {
 public:
  // `positions`: the longest sequence that will be run.
  //
  // Shapes alone: parameters have null data. For plans.
  static Adapter Planned(const Config& config, const AdapterSpec& spec, int64_t positions);
  // Memory and tables; parameters are zero.
  static Adapter Allocate(const Config& config, const AdapterSpec& spec, bool with_gradients,
                          int64_t positions);
  // Randomly initialised; its output is zero.
  static Adapter Make(const Config& config, const AdapterSpec& spec, uint64_t seed, bool with_gradients,
                      int64_t positions);

  AdapterSpec spec() const;
  Ladder* ladder() { return ladder_.get(); }
  const Ladder* ladder() const { return ladder_.get(); }
  LoraSet* lora() { return lora_.get(); }
  const LoraSet* lora() const { return lora_.get(); }
  int64_t first_crossed(int64_t L) const { return spec().first_crossed(L); }

  void ForEachParam(const nn::VisitParam& visit) const;
  // Arrays that are kept with the parameters but not trained: see Ladder::ForEachBuffer.
  void ForEachBuffer(const std::function<void(const std::string&, Tensor&)>& visit) const;
  const nn::FlatParams& params() const { return store_.flat(); }
  int64_t parameter_count() const { return params().count(); }

  MemoryPolicy policy;

 private:
  Adapter(const Config& config, const AdapterSpec& spec, int64_t positions, bool tables);

  std::unique_ptr<Ladder> ladder_;
  std::unique_ptr<LoraSet> lora_;
  nn::ParamStore store_;
};

}  // namespace rung::model
