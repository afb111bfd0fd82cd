#include "nn/block.h"

#include <cmath>

namespace rung::nn {
namespace {

// Kept when a backward pass will follow, else scratch of the current frame.
Tensor Take(Exec& ex, bool keep, DType dtype, int64_t rows, int64_t cols, Use use, const char* label) {
  return keep ? ex.arena().Keep(dtype, rows, cols, use, label)
              : ex.arena().Scratch(dtype, rows, cols, use, label);
}

void NormHeads(Exec& ex, const Norm& norm, const BlockShape& shape, const Tensor& x) {
  const Tensor heads = x.Reshape(x.rows() * x.cols() / shape.D, shape.D);
  norm.Forward(ex, heads, Out{heads}, nullptr);
}

// The call's own keys and values go behind those already cached; attention then reads the cache.
void Append(Exec& ex, const RowLayout& rows, const Tensor& from, const Tensor& cache) {
  for (const cpu::AttentionSpan& span : rows.spans) {
    const int64_t at = span.kv_begin + span.kv_count - span.q_count;
    ops::Convert(ex, from.Rows(span.q_begin, span.q_count), Out{cache.Rows(at, span.q_count)});
  }
}

}  // namespace

cpu::AttentionShape BlockShape::attention() const {
  return {Hq, Hkv, D, 1.0f / std::sqrt(static_cast<float>(D))};
}

void Norm::Forward(Exec& ex, In x, Out y, const Out* rstd) const {
  ops::RmsNorm(ex, x, gain.value, gain_offset, eps, y, rstd);
}

void Norm::Backward(Exec& ex, In dy, In x, In rstd, Acc dx) const {
  if (gain.trainable()) {
    const Acc dgain{gain.grad};
    ops::RmsNormGrad(ex, dy, x, gain.value, gain_offset, rstd, dx, &dgain);
  } else {
    ops::RmsNormGrad(ex, dy, x, gain.value, gain_offset, rstd, dx, nullptr);
  }
}

void Attention::Forward(Exec& ex, const BlockShape& shape, In h, const RowLayout& rows,
                        const ops::RopeTable& rope, const KvCache* cache, Acc y, Saved* saved) const {
  RUNG_CHECK(!(saved && cache), "attention: training has no cache");
  RUNG_CHECK(!(saved && shape.qk_norm), "attention: no backward pass through q/k norms");
  Frame frame(ex.arena());
  const int64_t N = h.t.rows();
  const bool keep = saved != nullptr;
  const Tensor qs = Take(ex, keep, shape.act, N, shape.Hq * shape.D, shape.use, "queries");
  const Tensor ks = Take(ex, keep, shape.act, N, shape.Hkv * shape.D, shape.use, "keys");
  const Tensor vs = Take(ex, keep, shape.act, N, shape.Hkv * shape.D, shape.use, "values");
  const Tensor out = Take(ex, keep, shape.act, N, shape.Hq * shape.D, shape.use, "attention out");
  const Tensor lse = keep ? ex.arena().Keep(DType::kF32, N, shape.Hq, shape.use, "softmax lse") : Tensor{};

  ForwardTogether(ex, h, {{&q, qs}, {&k, ks}, {&v, vs}});
  if (shape.qk_norm) {
    NormHeads(ex, q_norm, shape, qs);
    NormHeads(ex, k_norm, shape, ks);
  }
  ops::Rope(ex, Acc{qs}, rows.position, rope, shape.D, 1);
  ops::Rope(ex, Acc{ks}, rows.position, rope, shape.D, 1);
  if (cache) {
    Append(ex, rows, ks, cache->k);
    Append(ex, rows, vs, cache->v);
  }
  const Out lse_out{lse};
  ops::Attention(ex, shape.attention(), rows.spans, qs, cache ? cache->k : ks, cache ? cache->v : vs,
                 Out{out}, keep ? &lse_out : nullptr, shape.use);
  o.Forward(ex, out, y);
  if (saved) *saved = {qs, ks, vs, out, lse};
}

void Attention::Backward(Exec& ex, const BlockShape& shape, In dy, In h, const RowLayout& rows,
                         const ops::RopeTable& rope, const Saved& saved, Out dh) const {
  Frame frame(ex.arena());
  const int64_t N = h.t.rows();
  const auto scratch = [&](int64_t cols, const char* label) {
    return ex.arena().Scratch(DType::kF32, N, cols, shape.use, label);
  };
  const Tensor dout = scratch(shape.Hq * shape.D, "d attention out");
  const Tensor dq = scratch(shape.Hq * shape.D, "d queries");
  const Tensor dk = scratch(shape.Hkv * shape.D, "d keys"), dv = scratch(shape.Hkv * shape.D, "d values");

  o.Backward(ex, dy, saved.out, Out{dout});
  ops::AttentionGrad(ex, shape.attention(), rows.spans, saved.q, saved.k, saved.v, saved.out, dout, saved.lse,
                     Out{dq}, Out{dk}, Out{dv}, shape.use);
  // A rotation's gradient is the rotation back.
  ops::Rope(ex, Acc{dq}, rows.position, rope, shape.D, -1);
  ops::Rope(ex, Acc{dk}, rows.position, rope, shape.D, -1);
  q.Backward(ex, dq, h, dh);
  k.Backward(ex, dk, h, Acc{dh.t});
  v.Backward(ex, dv, h, Acc{dh.t});
}

void Mlp::Forward(Exec& ex, const BlockShape& shape, In h, Acc y, Saved* saved) const {
  Frame frame(ex.arena());
  const int64_t N = h.t.rows();
  const bool keep = saved != nullptr;
  const Tensor g = Take(ex, keep, shape.act, N, shape.F, shape.use, "mlp gate");
  // Without a backward pass the product overwrites its own input.
  const Tensor act = keep ? ex.arena().Scratch(shape.act, N, shape.F, shape.use, "mlp product") : g;
  if (shape.gated) {
    const Tensor u = Take(ex, keep, shape.act, N, shape.F, shape.use, "mlp up");
    ForwardTogether(ex, h, {{&gate, g}, {&up, u}});
    const In up_in = u;
    ops::Activate(ex, shape.activation, g, &up_in, Out{act});
    if (saved) *saved = {g, u};
  } else {
    gate.Forward(ex, h, Out{g});
    ops::Activate(ex, shape.activation, g, nullptr, Out{act});
    if (saved) *saved = {g, Tensor{}};
  }
  down.Forward(ex, act, y);
}

void Mlp::Backward(Exec& ex, const BlockShape& shape, In dy, In h, const Saved& saved, Out dh) const {
  Frame frame(ex.arena());
  const int64_t N = h.t.rows();
  const Tensor act = ex.arena().Scratch(DType::kF32, N, shape.F, shape.use, "mlp product");
  const Tensor dact = ex.arena().Scratch(DType::kF32, N, shape.F, shape.use, "d mlp product");
  const In up_in = saved.up;
  // The product is cheaper to make again than to keep.
  ops::Activate(ex, shape.activation, saved.gate, shape.gated ? &up_in : nullptr, Out{act});
  down.Backward(ex, dy, act, Out{dact});
  // The forward values are not read again: their memory takes the gradients.
  const Out dup{saved.up};
  ops::ActivateGrad(ex, shape.activation, dact, saved.gate, shape.gated ? &up_in : nullptr, Out{saved.gate},
                    shape.gated ? &dup : nullptr);
  gate.Backward(ex, saved.gate, h, dh);
  if (shape.gated) up.Backward(ex, saved.up, h, Acc{dh.t});
}

void DecoderBlock::Forward(Exec& ex, In x, const RowLayout& rows, const ops::RopeTable& rope,
                           const KvCache* cache, Out y, Saved* saved) const {
  Frame frame(ex.arena());
  const int64_t N = x.t.rows(), C = shape.C;
  RUNG_CHECK(x.t.cols() == C && y.t.rows() == N && y.t.cols() == C, "block: x and y must be (N,C)");
  const bool keep = saved != nullptr;
  const bool in_place = x.t.data == y.t.data;
  RUNG_CHECK(!(keep && in_place), "block: the backward pass needs the input");

  const Tensor h = ex.arena().Scratch(shape.act, N, C, shape.use, "normed");
  const Tensor mid = keep ? ex.arena().Keep(DType::kF32, N, C, shape.use, "residual middle") : y.t;
  const Tensor rstd_in = keep ? ex.arena().Keep(DType::kF32, 1, N, shape.use, "rstd") : Tensor{};
  const Tensor rstd_mid = keep ? ex.arena().Keep(DType::kF32, 1, N, shape.use, "rstd") : Tensor{};
  const Out rstd_in_out{rstd_in}, rstd_mid_out{rstd_mid};

  attention_norm.Forward(ex, x, Out{h}, keep ? &rstd_in_out : nullptr);
  if (!in_place) ops::Convert(ex, x, Out{mid});
  attention.Forward(ex, shape, h, rows, rope, cache, Acc{mid}, keep ? &saved->attention : nullptr);
  mlp_norm.Forward(ex, mid, Out{h}, keep ? &rstd_mid_out : nullptr);
  if (keep) ops::Convert(ex, mid, y);
  mlp.Forward(ex, shape, h, Acc{y.t}, keep ? &saved->mlp : nullptr);
  if (saved) {
    saved->x = x.t;
    saved->mid = mid;
    saved->rstd_in = rstd_in;
    saved->rstd_mid = rstd_mid;
  }
}

void DecoderBlock::Backward(Exec& ex, const RowLayout& rows, const ops::RopeTable& rope, const Saved& saved,
                            Acc dx) const {
  Frame frame(ex.arena());
  const int64_t N = dx.t.rows(), C = shape.C;
  const Tensor h = ex.arena().Scratch(DType::kF32, N, C, shape.use, "normed");
  const Tensor dh = ex.arena().Scratch(DType::kF32, N, C, shape.use, "d normed");
  // Normed inputs are made again: one pass over (N,C) instead of keeping two.
  mlp_norm.Forward(ex, saved.mid, Out{h}, nullptr);
  mlp.Backward(ex, shape, dx.t, h, saved.mlp, Out{dh});
  mlp_norm.Backward(ex, dh, saved.mid, saved.rstd_mid, dx);

  attention_norm.Forward(ex, saved.x, Out{h}, nullptr);
  attention.Backward(ex, shape, dx.t, h, rows, rope, saved.attention, Out{dh});
  attention_norm.Backward(ex, dh, saved.x, saved.rstd_in, dx);
}

void DecoderBlock::ForEachParam(const std::function<void(Param&)>& visit) {
  visit(attention_norm.gain);
  for (Linear* layer : {&attention.q, &attention.k, &attention.v, &attention.o}) visit(layer->weight);
  visit(mlp_norm.gain);
  for (Linear* layer : {&mlp.gate, &mlp.up, &mlp.down}) visit(layer->weight);
}

}  // namespace rung::nn
