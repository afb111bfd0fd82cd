// What is trained: a ladder, an xladder or low-rank pairs, and how it is made.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/names.h"
#include "model/adapter.h"

namespace rung::train {

// What is trained. xladder is a ladder whose taps are the top layers, with as many free rungs behind them.
enum class Method : uint8_t { kLadder, kXladder, kLora };
inline constexpr Named<Method> kMethodNames[] = {
    {"ladder", Method::kLadder}, {"xladder", Method::kXladder}, {"lora", Method::kLora}};
static_assert(NamesAll(kMethodNames, Method::kLora));
inline const char* NameOf(Method method) { return NameIn(kMethodNames, method); }

// Where a ladder's rungs begin: random numbers, or the backbone's own weights, the most important kept, by
// magnitude or by Fisher information over some training samples.
enum class LadderInit : uint8_t { kRandom, kPruned, kFisher };
inline constexpr Named<LadderInit> kLadderInitNames[] = {
    {"random", LadderInit::kRandom}, {"pruned", LadderInit::kPruned}, {"fisher", LadderInit::kFisher}};
static_assert(NamesAll(kLadderInitNames, LadderInit::kFisher));

// Zeros and empty: chosen from the model's shape.
struct LadderOptions {
  std::string taps = "";  // see model::ParseLayers
  int64_t rungs = 0;
  int64_t delta = 0;   // xladder: tapped top layers
  double width = 0.0;  // up to 1: a fraction of the model's
  int64_t heads = 0;   // of a rung
  model::RungKind kind = model::RungKind::kDecoder;
  model::Gate gate = model::Gate::kSum;
  model::TapNorm tap_norm = model::TapNorm::kStandardize;
  model::TapMap tap_map = model::TapMap::kFull;
  // Of decoder rungs; nothing: the backbone's own.
  std::optional<nn::NormKind> norm;
  std::optional<bool> rotary;
  std::optional<int64_t> rejoin;  // nothing: see RejoinOf
  double output_scale = 1.0;      // factor of the measured scale
  LadderInit init = LadderInit::kRandom;
  int64_t fisher_samples = 64;
};

struct LoraOptions {
  int64_t r = 0;  // 0: 64 for method lora, none beside a ladder
  double alpha = 16.0, dropout = 0.0;
  bool rank_stabilized = false;
  std::string targets = "all", layers = "";  // layers empty: all, or those above a ladder's joining point
};

}  // namespace rung::train
