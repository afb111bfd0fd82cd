// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <vector>

namespace rung::infer {

struct SampleOptions {
  double temperature = 0.0;  // 0: the most probable token
  double top_p = 1.0;        // smallest set of tokens with at least this probability; 1: all
  int64_t top_k = 0;         // 0: all
  uint64_t seed = 42;
};

class Sampler {
 public:
  explicit Sampler(const SampleOptions& options) : options_(options) {}

  // logits (V). A pure function of (logits, options, index): `index` counts the tokens of a generation.
  // Top-k is applied first, top-p to the probabilities of what it leaves. Ties go to the lower id.
  // Throws Error when the largest logit is not a finite number.
  int32_t Pick(const float* logits, int64_t V, uint64_t index);

 private:
  struct Candidate {
    float logit;
    int32_t id;
  };
  // The candidates in falling order, as far as top-k and top-p reach; returns their weight.
  double Narrow(float largest);
  double WeightOf(const Candidate& candidate, float largest) const;

  SampleOptions options_;
  std::vector<Candidate> candidates_;
};

}  // namespace rung::infer
