#include "nn/block.h"

#include <algorithm>
#include <cmath>

#include "kernels/cpu/panel.h"

namespace rung::nn {
namespace {

// Kept when a backward pass will follow, else scratch of the current frame.
Tensor Take(Exec& ex, const BlockShape& shape, bool keep, DType dtype, int64_t rows, int64_t cols,
            const char* label) {
  return keep ? ex.arena().Keep(dtype, rows, cols, shape.saved_use, label)
              : ex.arena().Scratch(dtype, rows, cols, shape.use, label);
}

// The state of a low-rank pair, when there is one and it is kept.
Tensor TakeLow(Exec& ex, bool keep, int64_t rows, const Lora* lora) {
  if (!keep || !lora) return Tensor{};
  return ex.arena().Keep(DType::kF32, rows, lora->a.value.rows(), Use::kLowRank, "low-rank state");
}

// The call's own keys and values go behind those already cached; attention then reads the cache.
void Append(Exec& ex, const RowLayout& rows, const Tensor& from, const Tensor& cache) {
  for (const cpu::AttentionSpan& span : rows.spans) {
    const int64_t at = span.kv_begin + span.kv_count - span.q_count;
    ops::Convert(ex, from.Rows(span.q_begin, span.q_count), Out{cache.Rows(at, span.q_count)});
  }
}

const BlockLoras& PairsOf(const BlockCall& call) {
  static constexpr BlockLoras kNone;
  return call.loras ? *call.loras : kNone;
}

// Rows of the MLP at once. A dropout mask counts elements from the call's first row, so it sees them all.
int64_t MlpTile(const BlockShape& shape, const BlockLoras& pairs, int64_t N) {
  for (const Lora* pair : {pairs.gate, pairs.up, pairs.down}) {
    if (pair && pair->dropout > 0) return N;
  }
  return std::min(N, shape.mlp_rows);
}

// Rows of the next tile when `left` rows are left. Products of very few rows add in another order than the
// rest: none are left for the last tile.
int64_t NextTile(int64_t left, int64_t tile) {
  const int64_t rows = std::min(left, tile), tail = left - rows;
  return tail > 0 && tail <= cpu::kFewRows && rows > 2 * cpu::kFewRows ? rows - cpu::kFewRows : rows;
}

Tensor Tile(const Tensor& t, int64_t begin, int64_t rows) { return t.empty() ? t : t.Rows(begin, rows); }

}  // namespace

cpu::AttentionShape BlockShape::attention() const {
  return {Hq, Hkv, D, 1.0f / std::sqrt(static_cast<float>(D))};
}

void Norm::Forward(Exec& ex, In x, Out y, const Out* rstd) const {
  ops::RmsNorm(ex, x, gain.value, gain_offset, eps, y, rstd);
}

void Norm::Backward(Exec& ex, In dy, In x, In rstd, Acc dx) const {
  const Acc dgain{gain.grad};
  ops::RmsNormGrad(ex, dy, x, gain.value, gain_offset, rstd, dx, gain.trainable() ? &dgain : nullptr);
}

void Norm::Backward(Exec& ex, In dy, In x, In rstd, Out dx) const {
  const Acc dgain{gain.grad};
  ops::RmsNormGrad(ex, dy, x, gain.value, gain_offset, rstd, dx, gain.trainable() ? &dgain : nullptr);
}

namespace {

// Queries or keys: heads normalised, then turned. `raw` is the layer's output, `ready` what is attended;
// one memory when nothing is kept.
void FinishHeads(Exec& ex, const Norm& norm, const BlockShape& shape, const BlockCall& call,
                 const Tensor& raw, const Tensor& ready, const Tensor& rstd) {
  if (shape.qk_norm) {
    const int64_t heads = raw.size() / shape.D;
    const Out rstd_out{rstd};
    norm.Forward(ex, raw.Reshape(heads, shape.D), Out{ready.Reshape(heads, shape.D)},
                 rstd.empty() ? nullptr : &rstd_out);
  }
  if (call.rope.rotary > 0) ops::Rope(ex, Acc{ready}, call.rows.position, call.rope, shape.D, 1);
}

// The gradient of FinishHeads, in place: a rotation's is the rotation back.
void FinishHeadsBackward(Exec& ex, const Norm& norm, const BlockShape& shape, const BlockCall& call,
                         const Tensor& d, const Tensor& raw, const Tensor& rstd) {
  if (call.rope.rotary > 0) ops::Rope(ex, Acc{d}, call.rows.position, call.rope, shape.D, -1);
  if (!shape.qk_norm) return;
  const int64_t heads = raw.size() / shape.D;
  const Tensor rows = d.Reshape(heads, shape.D);
  norm.Backward(ex, rows, raw.Reshape(heads, shape.D), rstd, Out{rows});
}

}  // namespace

void Attention::Forward(Exec& ex, const BlockShape& shape, const BlockCall& call, In h, Acc y,
                        Saved* saved) const {
  RUNG_CHECK(!(saved && call.cache), "attention: training has no cache");
  Frame frame(ex.arena());
  const BlockLoras& pairs = PairsOf(call);
  const int64_t N = h.t.rows(), q_cols = shape.Hq * shape.D, kv_cols = shape.Hkv * shape.D;
  const bool keep = saved != nullptr, apart = keep && shape.qk_norm;
  Saved s;
  s.q = Take(ex, shape, keep, shape.act, N, q_cols, "queries");
  s.k = Take(ex, shape, keep, shape.act, N, kv_cols, "keys");
  s.v = Take(ex, shape, keep, shape.act, N, kv_cols, "values");
  s.q_raw = apart ? Take(ex, shape, true, shape.act, N, q_cols, "queries before norm") : s.q;
  s.k_raw = apart ? Take(ex, shape, true, shape.act, N, kv_cols, "keys before norm") : s.k;
  if (apart) {
    s.q_rstd = Take(ex, shape, true, DType::kF32, 1, N * shape.Hq, "rstd");
    s.k_rstd = Take(ex, shape, true, DType::kF32, 1, N * shape.Hkv, "rstd");
  }
  s.out = Take(ex, shape, keep, shape.act, N, q_cols, "attention out");
  if (keep) s.lse = Take(ex, shape, true, DType::kF32, N, shape.Hq, "softmax lse");
  s.q_low = TakeLow(ex, keep, N, pairs.q);
  s.k_low = TakeLow(ex, keep, N, pairs.k);
  s.v_low = TakeLow(ex, keep, N, pairs.v);
  s.o_low = TakeLow(ex, keep, N, pairs.o);

  ForwardTogether(ex, h,
                  {{&q, s.q_raw, {pairs.q, call.draw, s.q_low}},
                   {&k, s.k_raw, {pairs.k, call.draw, s.k_low}},
                   {&v, s.v, {pairs.v, call.draw, s.v_low}}});
  FinishHeads(ex, q_norm, shape, call, s.q_raw, s.q, s.q_rstd);
  FinishHeads(ex, k_norm, shape, call, s.k_raw, s.k, s.k_rstd);
  if (call.cache) {
    Append(ex, call.rows, s.k, call.cache->k);
    Append(ex, call.rows, s.v, call.cache->v);
  }
  const Out lse_out{s.lse};
  ops::Attention(ex, shape.attention(), call.rows.spans, s.q, call.cache ? call.cache->k : s.k,
                 call.cache ? call.cache->v : s.v, Out{s.out}, keep ? &lse_out : nullptr, shape.use);
  if (shape.output_projection) {
    nn::Forward(ex, o, {pairs.o, call.draw, s.o_low}, s.out, y);
  } else {
    ops::Axpby(ex, 1.0f, s.out, 1.0f, y);
  }
  if (saved) *saved = s;
}

void Attention::Backward(Exec& ex, const BlockShape& shape, const BlockCall& call, In dy, In h,
                         const Saved& saved, Out dh) const {
  Frame frame(ex.arena());
  const BlockLoras& pairs = PairsOf(call);
  const int64_t N = h.t.rows();
  const auto scratch = [&](DType dtype, int64_t cols, const char* label) {
    return ex.arena().Scratch(dtype, N, cols, shape.use, label);
  };
  const Tensor dq = scratch(DType::kF32, shape.Hq * shape.D, "d queries");
  const Tensor dk = scratch(DType::kF32, shape.Hkv * shape.D, "d keys");
  const Tensor dv = scratch(DType::kF32, shape.Hkv * shape.D, "d values");
  {
    Frame inner(ex.arena());
    Tensor dout = dy.t;
    if (shape.output_projection) {
      dout = scratch(DType::kF32, shape.Hq * shape.D, "d attention out");
      nn::Backward(ex, o, {pairs.o, call.draw, saved.o_low}, dy, saved.out, Out{dout});
    }
    if (shape.act != DType::kF32) {
      const Tensor rounded = scratch(shape.act, shape.Hq * shape.D, "d attention out");
      ops::Convert(ex, dout, Out{rounded});
      dout = rounded;
    }
    ops::AttentionGrad(ex, shape.attention(), call.rows.spans, saved.q, saved.k, saved.v, saved.out, dout,
                       saved.lse, Out{dq}, Out{dk}, Out{dv}, shape.use);
  }
  FinishHeadsBackward(ex, q_norm, shape, call, dq, saved.q_raw, saved.q_rstd);
  FinishHeadsBackward(ex, k_norm, shape, call, dk, saved.k_raw, saved.k_rstd);
  nn::Backward(ex, q, {pairs.q, call.draw, saved.q_low}, dq, h, dh);
  nn::Backward(ex, k, {pairs.k, call.draw, saved.k_low}, dk, h, Acc{dh.t});
  nn::Backward(ex, v, {pairs.v, call.draw, saved.v_low}, dv, h, Acc{dh.t});
}

void Attention::ForEachParam(const VisitParam& visit) {
  for (Linear* layer : {&q, &k, &v, &o}) layer->ForEachParam(visit);
}

void Mlp::Forward(Exec& ex, const BlockShape& shape, const BlockCall& call, In h, Acc y, Saved* saved) const {
  Frame frame(ex.arena());
  const BlockLoras& pairs = PairsOf(call);
  const int64_t N = h.t.rows(), tile = MlpTile(shape, pairs, N);
  const bool keep = saved != nullptr;
  const int64_t held = keep ? N : tile;  // rows of gate and up that exist at once
  Saved s;
  if (shape.gated) s.gate = Take(ex, shape, keep, shape.act, held, shape.F, "mlp gate");
  s.up = Take(ex, shape, keep, shape.act, held, shape.F, "mlp up");
  s.gate_low = TakeLow(ex, keep, N, pairs.gate);
  s.up_low = TakeLow(ex, keep, N, pairs.up);
  s.down_low = TakeLow(ex, keep, N, pairs.down);
  // Without a backward pass the product overwrites one of its inputs.
  const Tensor product = keep ? ex.arena().Scratch(shape.act, tile, shape.F, shape.use, "mlp product")
                         : shape.gated ? s.gate
                                       : s.up;
  for (int64_t begin = 0, rows = 0; begin < N; begin += rows) {
    rows = NextTile(N - begin, tile);
    const int64_t at = keep ? begin : 0;
    const In x = h.t.Rows(begin, rows);
    const Tensor up_rows = s.up.Rows(at, rows), act = product.Rows(0, rows);
    const LinearUse into_up{&up, up_rows, {pairs.up, call.draw, Tile(s.up_low, begin, rows)}};
    if (shape.gated) {
      const Tensor gate_rows = s.gate.Rows(at, rows);
      ForwardTogether(ex, x,
                      {{&gate, gate_rows, {pairs.gate, call.draw, Tile(s.gate_low, begin, rows)}}, into_up});
      const In factor = up_rows;
      ops::Activate(ex, shape.activation, gate_rows, &factor, Out{act});
    } else {
      ForwardTogether(ex, x, {into_up});
      ops::Activate(ex, shape.activation, up_rows, nullptr, Out{act});
    }
    nn::Forward(ex, down, {pairs.down, call.draw, Tile(s.down_low, begin, rows)}, act,
                Acc{y.t.Rows(begin, rows)});
  }
  if (saved) *saved = s;
}

void Mlp::Backward(Exec& ex, const BlockShape& shape, const BlockCall& call, In dy, In h, const Saved& saved,
                   Out dh) const {
  Frame frame(ex.arena());
  const BlockLoras& pairs = PairsOf(call);
  const int64_t N = h.t.rows(), tile = MlpTile(shape, pairs, N);
  const auto scratch = [&](DType dtype, const char* label) {
    return ex.arena().Scratch(dtype, tile, shape.F, shape.use, label);
  };
  const Tensor product = scratch(shape.act, "mlp product"), dproduct = scratch(DType::kF32, "d mlp product");
  const Tensor dgate_tile = shape.gated ? scratch(DType::kF32, "d mlp gate") : Tensor{};
  for (int64_t begin = 0, rows = 0; begin < N; begin += rows) {
    rows = NextTile(N - begin, tile);
    const In x = h.t.Rows(begin, rows), dy_rows = dy.t.Rows(begin, rows);
    const Tensor act = product.Rows(0, rows), dact = dproduct.Rows(0, rows), dx = dh.t.Rows(begin, rows);
    const Tensor up_rows = saved.up.Rows(begin, rows);
    const Tensor gate_rows = Tile(saved.gate, begin, rows), dgate = Tile(dgate_tile, 0, rows);
    const Tensor& inner = shape.gated ? gate_rows : up_rows;  // what the activation is applied to
    const In factor = up_rows;
    // The product is cheaper to make again than to keep.
    ops::Activate(ex, shape.activation, inner, shape.gated ? &factor : nullptr, Out{act});
    nn::Backward(ex, down, {pairs.down, call.draw, Tile(saved.down_low, begin, rows)}, dy_rows, act,
                 Out{dact});
    // d up takes the memory of d product, element by element.
    const Out dup{dact};
    ops::ActivateGrad(ex, shape.activation, dact, inner, shape.gated ? &factor : nullptr,
                      Out{shape.gated ? dgate : dact}, shape.gated ? &dup : nullptr);
    nn::Backward(ex, up, {pairs.up, call.draw, Tile(saved.up_low, begin, rows)}, dact, x, Out{dx});
    if (shape.gated) {
      nn::Backward(ex, gate, {pairs.gate, call.draw, Tile(saved.gate_low, begin, rows)}, dgate, x, Acc{dx});
    }
  }
}

void Mlp::ForEachParam(const VisitParam& visit) {
  for (Linear* layer : {&gate, &up, &down}) layer->ForEachParam(visit);
}

void DecoderBlock::Forward(Exec& ex, In x, const BlockCall& call, Out y, Saved* saved) const {
  Frame frame(ex.arena());
  const int64_t N = x.t.rows(), C = shape.C;
  RUNG_CHECK(x.t.cols() == C && y.t.rows() == N && y.t.cols() == C, "block: x and y must be (N,C)");
  const bool keep = saved != nullptr, in_place = x.t.data == y.t.data;
  RUNG_CHECK(!(keep && in_place), "block: the backward pass needs the input");
  DecoderBlock::Saved s;
  s.x = x.t;
  s.mid = keep ? Take(ex, shape, true, DType::kF32, N, C, "residual middle") : y.t;
  if (keep && shape.norms) {
    s.rstd_in = Take(ex, shape, true, DType::kF32, 1, N, "rstd");
    s.rstd_mid = Take(ex, shape, true, DType::kF32, 1, N, "rstd");
  }
  const Tensor normed = shape.norms ? ex.arena().Scratch(shape.act, N, C, shape.use, "normed") : Tensor{};
  const auto norm = [&](const Norm& layer, const Tensor& from, const Tensor& rstd) {
    const Out rstd_out{rstd};
    if (shape.norms) layer.Forward(ex, from, Out{normed}, keep ? &rstd_out : nullptr);
    return shape.norms ? normed : from;
  };

  const Tensor attended = norm(attention_norm, x.t, s.rstd_in);
  if (!in_place) ops::Convert(ex, x, Out{s.mid});
  attention.Forward(ex, shape, call, attended, Acc{s.mid}, keep ? &s.attention : nullptr);
  const Tensor mlp_in = norm(mlp_norm, s.mid, s.rstd_mid);
  if (keep) ops::Convert(ex, s.mid, y);
  mlp.Forward(ex, shape, call, mlp_in, Acc{y.t}, keep ? &s.mlp : nullptr);
  if (saved) *saved = s;
}

void DecoderBlock::Backward(Exec& ex, const BlockCall& call, const Saved& saved, Acc dx) const {
  Frame frame(ex.arena());
  const int64_t N = dx.t.rows(), C = shape.C;
  const Tensor dh = ex.arena().Scratch(DType::kF32, N, C, shape.use, "d normed");
  const Tensor normed = shape.norms ? ex.arena().Scratch(shape.act, N, C, shape.use, "normed") : Tensor{};
  // Normed inputs are made again: one pass over (N,C) instead of keeping two.
  const auto norm_again = [&](const Norm& layer, const Tensor& from) {
    if (shape.norms) layer.Forward(ex, from, Out{normed}, nullptr);
    return shape.norms ? normed : from;
  };
  const auto back = [&](const Norm& layer, const Tensor& from, const Tensor& rstd) {
    shape.norms ? layer.Backward(ex, dh, from, rstd, dx) : ops::Axpby(ex, 1.0f, dh, 1.0f, dx);
  };
  mlp.Backward(ex, shape, call, dx.t, norm_again(mlp_norm, saved.mid), saved.mlp, Out{dh});
  back(mlp_norm, saved.mid, saved.rstd_mid);
  attention.Backward(ex, shape, call, dx.t, norm_again(attention_norm, saved.x), saved.attention, Out{dh});
  back(attention_norm, saved.x, saved.rstd_in);
}

void DecoderBlock::ForEachParam(const VisitParam& visit) {
  if (attention_norm.gain.value.rows() > 0 && shape.norms) visit(attention_norm.gain);
  attention.ForEachParam(visit);
  if (mlp_norm.gain.value.rows() > 0 && shape.norms) visit(mlp_norm.gain);
  mlp.ForEachParam(visit);
}

}  // namespace rung::nn
