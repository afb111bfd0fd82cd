#include "train/paper_formula.h"

#include <algorithm>

namespace rung::train {
namespace {

constexpr double kLinearBytes = 34.0, kMatrixBytes = 5.0;

double Real(int64_t value) { return static_cast<double>(value); }

// What does not depend on the batch.
FormulaMemory States(const model::Config& config, int64_t trained) {
  FormulaMemory memory;
  const double n = Real(trained);
  memory.weights = Real(config.parameter_count()) / 2.0;
  memory.parameters = 2.0 * n;
  memory.gradients = 2.0 * n;
  memory.optimizer = 6.0 * n;
  return memory;
}

}  // namespace

double FormulaMemory::total() const {
  return weights + parameters + gradients + optimizer + linear + attention + low_rank + taps + transient;
}

FormulaMemory QloraFormula(const model::Config& config, int64_t trained, int64_t tokens, int64_t sequence) {
  FormulaMemory memory = States(config, trained);
  const double T = Real(tokens), s = Real(std::min(tokens, sequence));
  const double h = Real(config.C), L = Real(config.L), a = Real(config.Hq);
  memory.linear = kLinearBytes * T * h * L;
  memory.attention = kMatrixBytes * a * s * T * L;
  memory.low_rank = T * Real(trained) / h;
  return memory;
}

FormulaMemory LadderFormula(const model::Config& config, const model::LadderSpec& spec, int64_t trained,
                            int64_t tokens, int64_t sequence) {
  FormulaMemory memory = States(config, trained);
  const double T = Real(tokens), s = Real(std::min(tokens, sequence)), h = Real(config.C);
  const double rungs = Real(spec.rungs), heads = Real(spec.block().Hq);
  memory.linear = kLinearBytes * T * Real(spec.S) * rungs;
  memory.attention = kMatrixBytes * heads * s * T * rungs;
  memory.taps = 2.0 * T * h * Real(static_cast<int64_t>(spec.taps.size()));
  memory.transient = T * (kLinearBytes * h + kMatrixBytes * Real(config.Hq) * s);
  return memory;
}

}  // namespace rung::train
