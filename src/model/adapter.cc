#include "model/adapter.h"

#include <fmt/format.h>

#include <algorithm>

namespace rung::model {

int64_t AdapterSpec::first_crossed(int64_t L) const {
  int64_t first = L;
  if (ladder) first = L - ladder->rejoin;
  if (lora) first = std::min(first, lora->layers.front());
  return first;
}

Status CheckAdapterSpec(const AdapterSpec& spec, const Config& config) {
  if (!spec.ladder && !spec.lora) return UsageFailure("an adapter has a ladder or low-rank pairs");
  if (!spec.ladder) return Ok{};
  const int64_t join = config.L - spec.ladder->rejoin;
  if (spec.ladder->rejoin < 0 || join < 1) {
    return UsageFailure(fmt::format("--rejoin {}: must leave at least one of {} layers below",
                                    spec.ladder->rejoin, config.L));
  }
  if (spec.ladder->taps.empty() || spec.ladder->taps.back() >= join) {
    return UsageFailure(
        fmt::format("--taps: a ladder that rejoins {} layers below the top taps layers 0 to {}",
                    spec.ladder->rejoin, join - 1));
  }
  if (spec.lora && spec.lora->layers.front() < join) {
    return UsageFailure(
        fmt::format("low-rank pairs beside a ladder must lie above its joining point (layers {} to {}): "
                    "below it they would change the taps, and nothing flows back through taps",
                    join, config.L - 1));
  }
  return Ok{};
}

Adapter::Adapter(const Config& config, const AdapterSpec& spec, int64_t positions, bool tables) {
  if (spec.ladder) ladder_ = std::make_unique<Ladder>(config, *spec.ladder, positions, tables);
  if (spec.lora) lora_ = std::make_unique<LoraSet>(config, *spec.lora);
  RUNG_CHECK(ladder_ || lora_, "adapter: nothing to train");
}

Adapter Adapter::Planned(const Config& config, const AdapterSpec& spec, int64_t positions) {
  Adapter adapter(config, spec, positions, false);
  adapter.store_ = nn::ParamStore::Planned([&](const nn::VisitParam& visit) { adapter.ForEachParam(visit); });
  // A plan walks the backward pass: gradients have shapes too.
  adapter.ForEachParam([](nn::Param& param) { param.grad = param.value; });
  return adapter;
}

Adapter Adapter::Allocate(const Config& config, const AdapterSpec& spec, bool with_gradients,
                          int64_t positions) {
  Adapter adapter(config, spec, positions, true);
  adapter.store_ =
      nn::ParamStore([&](const nn::VisitParam& visit) { adapter.ForEachParam(visit); }, with_gradients);
  return adapter;
}

Adapter Adapter::Make(const Config& config, const AdapterSpec& spec, uint64_t seed, bool with_gradients,
                      int64_t positions) {
  Adapter adapter = Allocate(config, spec, with_gradients, positions);
  if (adapter.ladder_) adapter.ladder_->Initialize(seed);
  if (adapter.lora_) adapter.lora_->Initialize(seed);
  return adapter;
}

AdapterSpec Adapter::spec() const {
  AdapterSpec spec;
  if (ladder_) spec.ladder = ladder_->spec();
  if (lora_) spec.lora = lora_->spec();
  return spec;
}

void Adapter::ForEachParam(const nn::VisitParam& visit) const {
  if (ladder_) ladder_->ForEachParam(visit);
  if (lora_) lora_->ForEachParam(visit);
}

void Adapter::ForEachBuffer(const std::function<void(const std::string&, Tensor&)>& visit) const {
  if (ladder_) ladder_->ForEachBuffer(visit);
}

}  // namespace rung::model
