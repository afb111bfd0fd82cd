// Causal attention over packed sequences. Shapes and formulas: kernels/cpu/attention.h.
#pragma once

#include <span>

#include "exec/exec.h"
#include "kernels/cpu/attention.h"

namespace rung::ops {

//   q, out (N, Hq*D)   k, v (Nkv, Hkv*D)   all T      lse (N,Hq) f32, nullptr when no backward will follow
// `use` names the row of the plan that the scratch counts for.
void Attention(Exec& ex, const cpu::AttentionShape& shape, std::span<const cpu::AttentionSpan> spans, In q,
               In k, In v, Out out, const Out* lse, Use use);

// q, k, v, out, dout all f32 or all T; lse and the gradients f32. Needs a forward pass that kept lse over
// whole sequences (no cache).
void AttentionGrad(Exec& ex, const cpu::AttentionShape& shape, std::span<const cpu::AttentionSpan> spans,
                   In q, In k, In v, In out, In dout, In lse, Out dq, Out dk, Out dv, Use use);

}  // namespace rung::ops
