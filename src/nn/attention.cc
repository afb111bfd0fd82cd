#include <cmath>

#include "nn/block_parts.h"

namespace rung::nn {
namespace {

// Queries, keys and values of all rows: three arrays, or parts of one.
struct Heads {
  Tensor q, k, v;
};

int64_t FusedCols(const BlockShape& shape) { return (shape.Hq + 2 * shape.Hkv) * shape.D; }

// Elements from one head to the next.
int64_t HeadStep(const BlockShape& shape) {
  return shape.qkv == QkvRows::kInterleaved ? 3 * shape.D : shape.D;
}

// The parts of a fused array (N, (Hq+2*Hkv)*D). Interleaved ones reach from their first head to their last.
Heads PartsOf(const BlockShape& shape, const Tensor& fused) {
  const int64_t D = shape.D, q = shape.Hq * D, kv = shape.Hkv * D;
  if (shape.qkv == QkvRows::kStacked) {
    return {fused.Cols(0, q), fused.Cols(q, kv), fused.Cols(q + kv, kv)};
  }
  const int64_t reach = (shape.Hq - 1) * 3 * D + D;
  return {fused.Cols(0, reach), fused.Cols(D, reach), fused.Cols(2 * D, reach)};
}

void CheckFused(const BlockShape& shape, const BlockLoras& pairs) {
  if (shape.qkv == QkvRows::kSeparate) {
    RUNG_CHECK(!pairs.qkv, "attention: a pair beside a fused layer that there is not");
    return;
  }
  RUNG_CHECK(shape.qkv != QkvRows::kInterleaved || shape.Hq == shape.Hkv,
             "attention: interleaved heads have their own keys");
  RUNG_CHECK(shape.qk_norm == QkNorm::kNone, "attention: heads of a fused layer are not normalised");
  RUNG_CHECK(!pairs.q && !pairs.k && !pairs.v, "attention: pairs beside layers that are fused");
}

// The call's own keys or values go behind those already cached; attention then reads the cache, whose heads
// are dense.
void Append(Exec& ex, const BlockShape& shape, const RowLayout& rows, const Tensor& from,
            const Tensor& cache) {
  const bool interleaved = shape.qkv == QkvRows::kInterleaved;
  for (const cpu::AttentionSpan& span : rows.spans) {
    const Tensor to = cache.Rows(span.kv_begin + span.kv_count - span.q_count, span.q_count);
    const Tensor part = from.Rows(span.q_begin, span.q_count);
    // A head at a time: a column of blocks, whatever lies between.
    for (int64_t h = 0; interleaved && h < shape.Hkv; ++h) {
      ops::Convert(ex, part.Cols(h * 3 * shape.D, shape.D), Out{to.Cols(h * shape.D, shape.D)});
    }
    if (!interleaved) ops::Convert(ex, part, Out{to});
  }
}

// The rows that a norm of queries or keys sees: of every head, or of all heads together.
Tensor NormRows(const BlockShape& shape, const Tensor& heads) {
  return shape.qk_norm == QkNorm::kWide ? heads : heads.Reshape(heads.size() / shape.D, shape.D);
}

Tensor TakeStats(Exec& ex, const BlockShape& shape, const Norm& norm, int64_t N, int64_t heads) {
  const int64_t rows = shape.qk_norm == QkNorm::kWide ? N : N * heads;
  return Take(ex, shape, true, DType::kF32, norm.stat_rows(), rows, "rstd");
}

// Queries or keys: heads normalised, then turned. `raw` is the layer's output, `ready` what is attended;
// one memory when nothing is kept.
void FinishHeads(Exec& ex, const Norm& norm, const BlockShape& shape, const BlockCall& call, int64_t heads,
                 const Tensor& raw, const Tensor& ready, const Tensor& stats) {
  if (shape.qk_norm != QkNorm::kNone) {
    norm.Forward(ex, NormRows(shape, raw), Out{NormRows(shape, ready)}, stats);
  }
  if (call.rope.rotary > 0) {
    ops::Rope(ex, Acc{ready}, call.rows.position, call.rope, heads, HeadStep(shape), shape.D, 1);
  }
}

bool LearnsHeads(const Attention& layers, const BlockLoras& pairs) {
  return Learns(layers.q, pairs.q) || Learns(layers.k, pairs.k) || Learns(layers.v, pairs.v) ||
         Learns(layers.qkv, pairs.qkv);
}

// The gradient of FinishHeads, in place: a rotation's is the rotation back.
void FinishHeadsBackward(Exec& ex, const Norm& norm, const BlockShape& shape, const BlockCall& call,
                         int64_t heads, const Tensor& d, const Tensor& raw, const Tensor& stats) {
  if (call.rope.rotary > 0) {
    ops::Rope(ex, Acc{d}, call.rows.position, call.rope, heads, HeadStep(shape), shape.D, -1);
  }
  if (shape.qk_norm == QkNorm::kNone) return;
  const Tensor rows = NormRows(shape, d);
  norm.Backward(ex, rows, NormRows(shape, raw), stats, Out{rows});
}

// Memory for what the layers write and what attention reads: the same, but where a norm's input is kept.
void TakeHeads(Exec& ex, const BlockShape& shape, const Attention& layers, bool keep, int64_t N,
               Attention::Saved* s) {
  if (shape.qkv != QkvRows::kSeparate) {
    s->qkv = Take(ex, shape, keep, shape.act, N, FusedCols(shape), "queries, keys, values");
    const Heads parts = PartsOf(shape, s->qkv);
    s->q_raw = s->q = parts.q;
    s->k_raw = s->k = parts.k;
    s->v = parts.v;
    return;
  }
  const int64_t q_cols = shape.Hq * shape.D, kv_cols = shape.Hkv * shape.D;
  const bool apart = keep && shape.qk_norm != QkNorm::kNone;
  s->q = Take(ex, shape, keep, shape.act, N, q_cols, "queries");
  s->k = Take(ex, shape, keep, shape.act, N, kv_cols, "keys");
  s->v = Take(ex, shape, keep, shape.act, N, kv_cols, "values");
  s->q_raw = apart ? Take(ex, shape, true, shape.act, N, q_cols, "queries before norm") : s->q;
  s->k_raw = apart ? Take(ex, shape, true, shape.act, N, kv_cols, "keys before norm") : s->k;
  if (apart) {
    s->q_stats = TakeStats(ex, shape, layers.q_norm, N, shape.Hq);
    s->k_stats = TakeStats(ex, shape, layers.k_norm, N, shape.Hkv);
  }
}

}  // namespace

cpu::AttentionShape BlockShape::attention() const {
  const float scale = score_scale > 0.0f ? score_scale : 1.0f / std::sqrt(static_cast<float>(D));
  const int64_t step = qkv == QkvRows::kInterleaved ? 3 * D : 0;
  return {Hq, Hkv, D, scale, window, score_cap, step, step};
}

void Attention::Forward(Exec& ex, const BlockShape& shape, const BlockCall& call, In h, Acc y,
                        Saved* saved) const {
  RUNG_CHECK(!(saved && call.cache), "attention: training has no cache");
  Frame frame(ex.arena());
  const BlockLoras& pairs = PairsOf(call);
  CheckFused(shape, pairs);
  const int64_t N = h.t.rows();
  const bool keep = saved != nullptr;
  Saved s;
  TakeHeads(ex, shape, *this, keep, N, &s);
  s.out = Take(ex, shape, keep, shape.act, N, shape.Hq * shape.D, "attention out");
  if (keep) s.lse = Take(ex, shape, true, DType::kF32, N, shape.Hq, "softmax lse");
  s.q_low = TakeLow(ex, keep, N, pairs.q);
  s.k_low = TakeLow(ex, keep, N, pairs.k);
  s.v_low = TakeLow(ex, keep, N, pairs.v);
  s.o_low = TakeLow(ex, keep, N, pairs.o);
  s.qkv_low = TakeLow(ex, keep, N, pairs.qkv);

  if (shape.qkv == QkvRows::kSeparate) {
    ForwardTogether(ex, h,
                    {{&q, s.q_raw, {pairs.q, {call.draw}, s.q_low}},
                     {&k, s.k_raw, {pairs.k, {call.draw}, s.k_low}},
                     {&v, s.v, {pairs.v, {call.draw}, s.v_low}}});
  } else {
    ForwardTogether(ex, h, {{&qkv, s.qkv, {pairs.qkv, {call.draw}, s.qkv_low}}});
  }
  FinishHeads(ex, q_norm, shape, call, shape.Hq, s.q_raw, s.q, s.q_stats);
  FinishHeads(ex, k_norm, shape, call, shape.Hkv, s.k_raw, s.k, s.k_stats);
  cpu::AttentionShape attended = shape.attention();
  if (call.cache) {
    Append(ex, shape, call.rows, s.k, call.cache->k);
    Append(ex, shape, call.rows, s.v, call.cache->v);
    attended.kv_step = 0;
  }
  const Out lse_out{s.lse};
  ops::Attention(ex, attended, call.rows.spans, s.q, call.cache ? call.cache->k : s.k,
                 call.cache ? call.cache->v : s.v, Out{s.out}, keep ? &lse_out : nullptr, shape.use);
  if (shape.output_projection) {
    nn::Forward(ex, o, {pairs.o, {call.draw}, s.o_low}, s.out, y);
  } else {
    ops::Axpby(ex, 1.0f, s.out, 1.0f, y);
  }
  if (saved) *saved = s;
}

void Attention::Backward(Exec& ex, const BlockShape& shape, const BlockCall& call, In dy, In h,
                         const Saved& saved, const Out* dh) const {
  Frame frame(ex.arena());
  const BlockLoras& pairs = PairsOf(call);
  if (!dh && !LearnsHeads(*this, pairs)) {
    BackwardTrained(ex, o, {pairs.o, {call.draw}, saved.o_low}, dy, saved.out);
    return;
  }
  const int64_t N = h.t.rows();
  const bool separate = shape.qkv == QkvRows::kSeparate;
  const auto scratch = [&](DType dtype, int64_t cols, const char* label) {
    return ex.arena().Scratch(dtype, N, cols, shape.use, label);
  };
  Heads d;
  Tensor dqkv;
  if (separate) {
    d.q = scratch(DType::kF32, shape.Hq * shape.D, "d queries");
    d.k = scratch(DType::kF32, shape.Hkv * shape.D, "d keys");
    d.v = scratch(DType::kF32, shape.Hkv * shape.D, "d values");
  } else {
    dqkv = scratch(DType::kF32, FusedCols(shape), "d queries, keys, values");
    d = PartsOf(shape, dqkv);
  }
  {
    Frame inner(ex.arena());
    Tensor dout = dy.t;
    if (shape.output_projection) {
      dout = scratch(DType::kF32, shape.Hq * shape.D, "d attention out");
      nn::Backward(ex, o, {pairs.o, {call.draw}, saved.o_low}, dy, saved.out, Out{dout});
    }
    if (shape.act != DType::kF32) {
      const Tensor rounded = scratch(shape.act, shape.Hq * shape.D, "d attention out");
      ops::Convert(ex, dout, Out{rounded});
      dout = rounded;
    }
    ops::AttentionGrad(ex, shape.attention(), call.rows.spans, saved.q, saved.k, saved.v, saved.out, dout,
                       saved.lse, Out{d.q}, Out{d.k}, Out{d.v}, shape.use);
  }
  FinishHeadsBackward(ex, q_norm, shape, call, shape.Hq, d.q, saved.q_raw, saved.q_stats);
  FinishHeadsBackward(ex, k_norm, shape, call, shape.Hkv, d.k, saved.k_raw, saved.k_stats);
  const auto back = [&](const Linear& layer, const LoraUse& pair, const Tensor& d_heads, bool first) {
    if (!dh) return BackwardTrained(ex, layer, pair, d_heads, h);
    first ? nn::Backward(ex, layer, pair, d_heads, h, *dh)
          : nn::Backward(ex, layer, pair, d_heads, h, Acc{dh->t});
  };
  if (!separate) return back(qkv, {pairs.qkv, {call.draw}, saved.qkv_low}, dqkv, true);
  back(q, {pairs.q, {call.draw}, saved.q_low}, d.q, true);
  back(k, {pairs.k, {call.draw}, saved.k_low}, d.k, false);
  back(v, {pairs.v, {call.draw}, saved.v_low}, d.v, false);
}

bool Attention::Learns(const BlockCall& call) const {
  const BlockLoras& pairs = PairsOf(call);
  return LearnsHeads(*this, pairs) || nn::Learns(o, pairs.o);
}

void Attention::ForEachParam(const VisitParam& visit) {
  for (Linear* layer : {&q, &k, &v, &o}) layer->ForEachParam(visit);
}

}  // namespace rung::nn
