// Ops over flat parameter arrays, and statistics.
#pragma once

#include "exec/exec.h"
#include "kernels/cpu/adamw8.h"
#include "kernels/cpu/rows.h"

namespace rung::ops {

// The Euclidean norm of x (1,n), summed in f64 in blocks of fixed size. Zero while planning.
double Norm(Exec& ex, In x);

// y += x^2, element by element, flat (1,n) arrays.
void AddSquares(Exec& ex, In x, Acc y);

// One AdamW step over flat (1,n) arrays.
void AdamW(Exec& ex, const cpu::AdamW& step, In gradient, Acc weight, Acc m, Acc v);

// The same with moments in 8 bits: codes (1,n) i8, whose bits are those of the codes 0..255, and absmax
// (1,cpu::AdamW8Blocks(n)).
void AdamW8(Exec& ex, const cpu::AdamW& step, In gradient, Acc weight, Acc m_codes, Acc m_absmax, Acc v_codes,
            Acc v_absmax);

// Per-channel sums of the rows of x (N,C) T, RMS-normalised when asked, in f64 arrays of C; row_rms (1,N).
void Moments(Exec& ex, In x, bool normalize, float eps, double* sum, double* sum_squares, Out row_rms);

}  // namespace rung::ops
