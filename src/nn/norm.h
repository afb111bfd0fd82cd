// Normalisation of rows: RMSNorm (arXiv 1910.07467) or LayerNorm (arXiv 1607.06450), frozen or trained.
#pragma once

#include "nn/param.h"
#include "ops/rows.h"

namespace rung::nn {

enum class NormKind : uint8_t { kRms, kLayer };

struct Norm {
  NormKind kind = NormKind::kRms;
  Param gain;                // (1,C)
  Param bias;                // (1,C), or empty; kLayer only
  float gain_offset = 0.0f;  // some families store gain - 1; kRms only
  float eps = 1e-5f;

  int64_t stat_rows() const { return kind == NormKind::kRms ? 1 : 2; }
  // x f32 or T, y T, or f32 like x; it may be x. stats (stat_rows, N) f32; empty when no backward will
  // follow.
  void Forward(Exec& ex, In x, Out y, const Tensor& stats = {}) const;
  // dx += ..., or dx = ...; the gradients of gain and bias when they are trained.
  void Backward(Exec& ex, In dy, In x, In stats, Acc dx) const;
  void Backward(Exec& ex, In dy, In x, In stats, Out dx) const;

  // Visits gain and bias, where there are any: they are trained when they are given gradients.
  void ForEachParam(const VisitParam& visit);
};

}  // namespace rung::nn
