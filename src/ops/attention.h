// Causal attention over packed sequences. Shapes and formulas: kernels/cpu/attention.h.
#pragma once

#include <span>

#include "exec/exec.h"
#include "kernels/cpu/attention.h"

namespace rung::ops {

//   q, out (N, Hq*D)   k, v (Nkv, Hkv*D)   all T      lse (N,Hq) f32, nullptr when no backward will follow
// Spans lie within q and k; those of a call that runs cover the rows of q, in order. Where the shape has
// steps, q, k, v (and their gradients) are as wide as their last head reaches. `use` names the row of the
// plan that the scratch counts for.
void Attention(Exec& ex, const cpu::AttentionShape& shape, std::span<const cpu::AttentionSpan> spans, In q,
               In k, In v, Out out, const Out* lse, Use use);

//   q, out, dout (N, Hq*D)   k, v (N, Hkv*D)   all f32 or all T      lse (N,Hq) f32, as Attention kept it
//   dq (N, Hq*D)   dk, dv (N, Hkv*D)   f32
// Over whole sequences: keys of a span are its own rows (no cache).
void AttentionGrad(Exec& ex, const cpu::AttentionShape& shape, std::span<const cpu::AttentionSpan> spans,
                   In q, In k, In v, In out, In dout, In lse, Out dq, Out dk, Out dv, Use use);

}  // namespace rung::ops
