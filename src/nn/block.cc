#include "nn/block.h"

#include "nn/block_parts.h"

namespace rung::nn {
namespace {

bool HasInputNorms(const BlockShape& shape) { return shape.norms && !shape.norm_after_sum; }

// What attention and MLP write is not added to the stream as it is.
bool HasBranches(const BlockShape& shape) { return shape.output_norms || shape.residual_scale != 1.0f; }

void CheckShape(const BlockShape& shape) {
  RUNG_CHECK(!shape.parallel || HasInputNorms(shape), "block: a parallel block has norms of its input");
  RUNG_CHECK(!shape.norm_after_sum || !HasBranches(shape), "block: sums are normed, or what is added");
}

// The input of attention or MLP in the type of activations: normed, or as it is.
Tensor TakeInput(Exec& ex, const BlockShape& shape, int64_t N) {
  if (!HasInputNorms(shape) && shape.act == DType::kF32) return Tensor{};
  return ex.arena().Scratch(shape.act, N, shape.C, shape.use, "normed");
}
Tensor MakeInput(Exec& ex, const BlockShape& shape, const Norm& norm, const Tensor& from, const Tensor& to,
                 const Tensor& stats) {
  if (to.empty()) return from;
  if (HasInputNorms(shape)) {
    norm.Forward(ex, from, Out{to}, stats);
  } else {
    ops::Convert(ex, from, Out{to});
  }
  return to;
}

Tensor TakeStats(Exec& ex, const BlockShape& shape, const Norm& norm, int64_t N) {
  return Take(ex, shape, true, DType::kF32, norm.stat_rows(), N, "rstd");
}

// One of the two summands of a block.
template <class Layer>
struct Branch {
  const Layer& layer;
  const Norm& output_norm;
  Tensor out, stats;  // kept: what output_norm reads, and its statistics

  // y += m out(Layer(h))
  void Forward(Exec& ex, const BlockShape& shape, const BlockCall& call, In h, Acc y,
               typename Layer::Saved* saved) const {
    if (!HasBranches(shape)) {
      layer.Forward(ex, shape, call, h, y, saved);
      return;
    }
    Frame frame(ex.arena());
    const auto scratch = [&](const char* label) {
      return ex.arena().Scratch(DType::kF32, h.t.rows(), shape.C, shape.use, label);
    };
    const Tensor sum = out.empty() ? scratch("block branch") : out;
    ops::Zero(ex, Out{sum});
    layer.Forward(ex, shape, call, h, Acc{sum}, saved);
    Tensor added = sum;
    if (shape.output_norms) {
      if (!out.empty()) added = scratch("normed block branch");
      output_norm.Forward(ex, sum, Out{added}, stats);
    }
    ops::Axpby(ex, shape.residual_scale, added, 1.0f, y);
  }

  // dh = the gradient of h; nullptr: nobody wants it.
  void Backward(Exec& ex, const BlockShape& shape, const BlockCall& call, In dy, In h,
                const typename Layer::Saved& saved, const Out* dh) const {
    Frame frame(ex.arena());
    Tensor dout = dy.t;
    if (HasBranches(shape)) {
      dout = ex.arena().Scratch(DType::kF32, dy.t.rows(), shape.C, shape.use, "d block branch");
      ops::Convert(ex, dy, Out{dout});
      if (shape.residual_scale != 1.0f) ops::Scale(ex, shape.residual_scale, Acc{dout});
      if (shape.output_norms) output_norm.Backward(ex, dout, out, stats, Out{dout});
    }
    layer.Backward(ex, shape, call, dout, h, saved, dh);
  }
};

// What Backward will read besides the states of attention and MLP.
void TakeKept(Exec& ex, const DecoderBlock& block, int64_t N, DecoderBlock::Saved* s) {
  const BlockShape& shape = block.shape;
  const auto rows = [&](const char* label) { return Take(ex, shape, true, DType::kF32, N, shape.C, label); };
  if (!shape.parallel) s->mid = rows("residual middle");
  if (shape.norms || shape.norm_after_sum) {
    s->stats_in = TakeStats(ex, shape, block.attention_norm, N);
    s->stats_mid = TakeStats(ex, shape, block.mlp_norm, N);
  }
  if (shape.output_norms || shape.norm_after_sum) {
    s->attention_out = rows("attention before norm");
    s->mlp_out = rows("mlp before norm");
  }
  if (shape.output_norms) {
    s->attention_out_stats = TakeStats(ex, shape, block.attention_output_norm, N);
    s->mlp_out_stats = TakeStats(ex, shape, block.mlp_output_norm, N);
  }
}

}  // namespace

void DecoderBlock::Forward(Exec& ex, In x, const BlockCall& call, Out y, Saved* saved) const {
  Frame frame(ex.arena());
  const int64_t N = x.t.rows(), C = shape.C;
  CheckShape(shape);
  RUNG_CHECK(x.t.cols() == C && y.t.rows() == N && y.t.cols() == C, "block: x and y must be (N,C)");
  const bool keep = saved != nullptr, in_place = x.t.data == y.t.data;
  RUNG_CHECK(!(keep && in_place), "block: the backward pass needs the input");
  DecoderBlock::Saved s;
  if (keep) TakeKept(ex, *this, N, &s);
  s.x = x.t;
  const Tensor normed = TakeInput(ex, shape, N);
  const Branch<Attention> attend{attention, attention_output_norm, s.attention_out, s.attention_out_stats};
  const Branch<Mlp> widen{mlp, mlp_output_norm, s.mlp_out, s.mlp_out_stats};
  Attention::Saved* attention_saved = keep ? &s.attention : nullptr;
  Mlp::Saved* mlp_saved = keep ? &s.mlp : nullptr;
  const Tensor attended = MakeInput(ex, shape, attention_norm, x.t, normed, s.stats_in);

  if (shape.parallel) {
    // In place x is gone when the MLP runs.
    const Tensor second = in_place ? TakeInput(ex, shape, N) : normed;
    if (in_place) MakeInput(ex, shape, mlp_norm, x.t, second, s.stats_mid);
    if (!in_place) ops::Convert(ex, x, y);
    attend.Forward(ex, shape, call, attended, Acc{y.t}, attention_saved);
    if (!in_place) MakeInput(ex, shape, mlp_norm, x.t, second, s.stats_mid);
    widen.Forward(ex, shape, call, second, Acc{y.t}, mlp_saved);
  } else if (shape.norm_after_sum) {
    const Tensor sum = keep ? s.attention_out : y.t, mid = keep ? s.mid : y.t;
    const Tensor mlp_sum = keep ? s.mlp_out : y.t;
    if (!in_place) ops::Convert(ex, x, Out{sum});
    attention.Forward(ex, shape, call, attended, Acc{sum}, attention_saved);
    attention_norm.Forward(ex, sum, Out{mid}, s.stats_in);
    const Tensor mlp_in = MakeInput(ex, shape, mlp_norm, mid, normed, {});
    if (keep) ops::Convert(ex, mid, Out{mlp_sum});
    mlp.Forward(ex, shape, call, mlp_in, Acc{mlp_sum}, mlp_saved);
    mlp_norm.Forward(ex, mlp_sum, y, s.stats_mid);
  } else {
    const Tensor mid = keep ? s.mid : y.t;
    if (!in_place) ops::Convert(ex, x, Out{mid});
    attend.Forward(ex, shape, call, attended, Acc{mid}, attention_saved);
    const Tensor mlp_in = MakeInput(ex, shape, mlp_norm, mid, normed, s.stats_mid);
    if (keep) ops::Convert(ex, mid, y);
    widen.Forward(ex, shape, call, mlp_in, Acc{y.t}, mlp_saved);
  }
  if (saved) *saved = s;
}

void DecoderBlock::Backward(Exec& ex, const BlockCall& call, const Saved& saved, Acc dx, Reach reach) const {
  Frame frame(ex.arena());
  // Norms are trained together, and the lowest of them reads the input.
  const bool to_input = reach == Reach::kInput || attention_norm.gain.trainable();
  const int64_t N = dx.t.rows(), C = shape.C;
  const Tensor dh = ex.arena().Scratch(DType::kF32, N, C, shape.use, "d normed");
  const Out dh_out{dh};
  const Tensor normed = TakeInput(ex, shape, N);
  const Branch<Attention> attend{attention, attention_output_norm, saved.attention_out,
                                 saved.attention_out_stats};
  const Branch<Mlp> widen{mlp, mlp_output_norm, saved.mlp_out, saved.mlp_out_stats};
  // Normed inputs are made again: one pass over (N,C) instead of keeping two.
  const auto input = [&](const Norm& norm, const Tensor& from) {
    return MakeInput(ex, shape, norm, from, normed, {});
  };
  const auto back = [&](const Norm& norm, const Tensor& d, const Tensor& from, const Tensor& stats) {
    HasInputNorms(shape) ? norm.Backward(ex, d, from, stats, dx) : ops::Axpby(ex, 1.0f, d, 1.0f, dx);
  };
  if (shape.parallel) {
    const Tensor dmlp = ex.arena().Scratch(DType::kF32, N, C, shape.use, "d normed of mlp");
    const Out dmlp_out{dmlp};
    widen.Backward(ex, shape, call, dx.t, input(mlp_norm, saved.x), saved.mlp,
                   to_input ? &dmlp_out : nullptr);
    attend.Backward(ex, shape, call, dx.t, input(attention_norm, saved.x), saved.attention,
                    to_input ? &dh_out : nullptr);
    if (!to_input) return;
    back(mlp_norm, dmlp, saved.x, saved.stats_mid);
    back(attention_norm, dh, saved.x, saved.stats_in);
    return;
  }
  const auto unsum = [&](const Norm& norm, const Tensor& sum, const Tensor& stats) {
    if (shape.norm_after_sum) norm.Backward(ex, dx.t, sum, stats, Out{dx.t});
  };
  const bool past_mlp = to_input || attention.Learns(call);
  unsum(mlp_norm, saved.mlp_out, saved.stats_mid);
  widen.Backward(ex, shape, call, dx.t, input(mlp_norm, saved.mid), saved.mlp, past_mlp ? &dh_out : nullptr);
  if (!past_mlp) return;
  back(mlp_norm, dh, saved.mid, saved.stats_mid);
  unsum(attention_norm, saved.attention_out, saved.stats_in);
  attend.Backward(ex, shape, call, dx.t, input(attention_norm, saved.x), saved.attention,
                  to_input ? &dh_out : nullptr);
  if (to_input) back(attention_norm, dh, saved.x, saved.stats_in);
}

void DecoderBlock::ForEachParam(const VisitParam& visit) {
  const bool norms = shape.norms || shape.norm_after_sum;
  if (norms) attention_norm.ForEachParam(visit);
  attention.ForEachParam(visit);
  if (shape.output_norms) attention_output_norm.ForEachParam(visit);
  if (norms) mlp_norm.ForEachParam(visit);
  mlp.ForEachParam(visit);
  if (shape.output_norms) mlp_output_norm.ForEachParam(visit);
}

}  // namespace rung::nn
