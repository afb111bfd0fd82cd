// The memory of fine-tuning as arXiv 2512.14237 adds it up in closed form, to stand beside our own plans:
//
//   M_model = P/2 + 2n                 4-bit weights, trained parameters in bf16
//   M_optim = 6n                       two 8-bit moments, an f32 master copy
//   M_grads = 2n                       bf16
//   M_acts  = s b h L (34 + 5 a s / h) + s b n / h
//
// with P parameters of the model, n trained, s tokens of a sequence, b sequences, h the hidden size, L layers
// and a attention heads. The bytes of a layer are Korthikanti's count (arXiv 2205.05198) for 16-bit
// activations, an MLP of 4h and attention that keeps its (s,s) matrices. The paper's text is quoted with
// "5a/h" there, without the s: attention would then cost nothing to speak of, so we take it for a misprint
// and use Korthikanti's form.
#pragma once

#include <cstdint>

#include "model/config.h"
#include "model/ladder.h"

namespace rung::train {

// Bytes.
struct FormulaMemory {
  double weights = 0.0, parameters = 0.0, gradients = 0.0, optimizer = 0.0;
  double linear = 0.0;     // activations of the trained layers but for attention's matrices: 34 s b h L
  double attention = 0.0;  // attention's matrices: 5 a s^2 b L
  double low_rank = 0.0;   // s b n / h
  double taps = 0.0;       // of a ladder
  double transient = 0.0;  // one frozen layer while it runs, beside a ladder
  double total() const;
};

// `tokens` (s b) in sequences of `sequence` (s), as real numbers: the last sequence may be shorter.
FormulaMemory QloraFormula(const model::Config& config, int64_t trained, int64_t tokens, int64_t sequence);

// The same bookkeeping for a ladder [inferred: the paper's text of it is not at hand]: the layers are the
// rungs, taps are kept in 16 bits, and one frozen layer runs at a time.
//
//   M_acts = s b S l (34 + 5 a' s / S) + 2 s b h t + s b h (34 + 5 a s / h)
//
// with l rungs of width S and a' heads, t taps.
FormulaMemory LadderFormula(const model::Config& config, const model::LadderSpec& spec, int64_t trained,
                            int64_t tokens, int64_t sequence);

}  // namespace rung::train
