#include "infer/sampler.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/rng.h"

namespace rung::infer {
namespace {

// The lowest id of the largest logit. A NaN wins over every number, so that it cannot hide.
int64_t Largest(const float* logits, int64_t V) {
  int64_t best = 0;
  for (int64_t v = 1; v < V && !std::isnan(logits[best]); ++v) {
    if (!(logits[v] <= logits[best])) best = v;
  }
  return best;
}

}  // namespace

double Sampler::WeightOf(const Candidate& candidate, float largest) const {
  const double distance = static_cast<double>(candidate.logit) - static_cast<double>(largest);
  return std::exp(distance / options_.temperature);
}

double Sampler::Narrow(float largest) {
  const auto below = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit < b.logit : a.id > b.id;
  };
  const size_t all = candidates_.size();
  const size_t k = options_.top_k > 0 ? std::min(static_cast<size_t>(options_.top_k), all) : all;
  // A heap gives the few that are wanted without sorting the vocabulary.
  std::make_heap(candidates_.begin(), candidates_.end(), below);
  auto end = candidates_.end();
  const auto pop = [&] { std::pop_heap(candidates_.begin(), end--, below); };

  double sum = 0.0;
  if (k < all) {
    for (size_t i = 0; i < k; ++i) {
      pop();
      sum += WeightOf(*end, largest);
    }
  } else {
    for (const Candidate& candidate : candidates_) sum += WeightOf(candidate, largest);
  }
  double kept = 0.0;
  size_t count = 0;
  while (count < k && (count == 0 || kept < options_.top_p * sum)) {
    // With top-k the largest are already at the end, largest last.
    if (k == all) pop();
    kept += WeightOf(candidates_[all - 1 - count], largest);
    ++count;
  }
  std::reverse(candidates_.begin(), candidates_.end());
  candidates_.resize(count);
  return kept;
}

int32_t Sampler::Pick(const float* logits, int64_t V, uint64_t index) {
  const int64_t best = Largest(logits, V);
  const float largest = logits[best];
  if (!std::isfinite(largest)) {
    throw Error(ExitCode::kNonFinite,
                "the model's output is not a finite number: its weights or the adapter are damaged");
  }
  if (options_.temperature <= 0.0) return static_cast<int32_t>(best);

  candidates_.clear();
  double kept = 0.0;
  for (int64_t v = 0; v < V; ++v) candidates_.push_back({logits[v], static_cast<int32_t>(v)});
  if (options_.top_p < 1.0 || (options_.top_k > 0 && options_.top_k < V)) {
    kept = Narrow(largest);
  } else {
    for (const Candidate& candidate : candidates_) kept += WeightOf(candidate, largest);
  }
  const double wanted = static_cast<double>(Rng(options_.seed, Stream::kSample).Uniform(index)) * kept;
  double passed = 0.0;
  for (const Candidate& candidate : candidates_) {
    passed += WeightOf(candidate, largest);
    if (wanted < passed) return candidate.id;
  }
  return static_cast<int32_t>(best);  // only rounding of the sums leads here
}

}  // namespace rung::infer
