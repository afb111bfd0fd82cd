#include <algorithm>

#include "kernels/cpu/panel.h"
#include "nn/block_parts.h"

namespace rung::nn {
namespace {

// Rows of the next tile when `left` rows are left. Products of very few rows add in another order than the
// rest: none are left for the last tile.
int64_t NextTile(int64_t left, int64_t tile) {
  const int64_t rows = std::min(left, tile), tail = left - rows;
  return tail > 0 && tail <= cpu::kFewRows && rows > 2 * cpu::kFewRows ? rows - cpu::kFewRows : rows;
}

Tensor Tile(const Tensor& t, int64_t begin, int64_t rows) { return t.empty() ? t : t.Rows(begin, rows); }

// Memory of gate and up, before the activation: two arrays, or parts of one.
void TakeInner(Exec& ex, const BlockShape& shape, bool keep, int64_t rows, Mlp::Saved* s) {
  const int64_t F = shape.F;
  if (shape.fused_gate_up) {
    const Tensor both = Take(ex, shape, keep, shape.act, rows, 2 * F, "mlp gate and up");
    s->gate = both.Cols(0, F);
    s->up = both.Cols(F, F);
    return;
  }
  if (shape.gated) s->gate = Take(ex, shape, keep, shape.act, rows, F, "mlp gate");
  s->up = Take(ex, shape, keep, shape.act, rows, F, "mlp up");
}

// Gate and up of a fused layer as the one array that they are parts of.
Tensor Whole(const Tensor& gate) {
  Tensor both = gate;
  both.col_count = 2 * gate.cols();
  return both;
}

void CheckFused(const BlockShape& shape, const BlockLoras& pairs) {
  RUNG_CHECK(!shape.fused_gate_up || (shape.gated && !pairs.gate && !pairs.up),
             "mlp: gate and up are one layer, and so are their pairs");
  RUNG_CHECK(shape.fused_gate_up || !pairs.gate_up, "mlp: a pair beside a fused layer that there is not");
  // The product of gate and up is a part of that array, and bf16 products read pairs of columns.
  RUNG_CHECK(!shape.fused_gate_up || shape.act == DType::kF32 || shape.F % 2 == 0,
             "mlp: fused layers in bf16 have an even width");
}

}  // namespace

void Mlp::Forward(Exec& ex, const BlockShape& shape, const BlockCall& call, In h, Acc y, Saved* saved) const {
  Frame frame(ex.arena());
  const BlockLoras& pairs = PairsOf(call);
  CheckFused(shape, pairs);
  const int64_t N = h.t.rows(), tile = std::min(N, shape.mlp_rows);
  const bool keep = saved != nullptr;
  Saved s;
  TakeInner(ex, shape, keep, keep ? N : tile, &s);  // the rows of gate and up that exist at once
  s.gate_low = TakeLow(ex, keep, N, pairs.gate);
  s.up_low = TakeLow(ex, keep, N, pairs.up);
  s.gate_up_low = TakeLow(ex, keep, N, pairs.gate_up);
  s.down_low = TakeLow(ex, keep, N, pairs.down);
  // Without a backward pass the product overwrites one of its inputs.
  const Tensor product = keep ? ex.arena().Scratch(shape.act, tile, shape.F, shape.use, "mlp product")
                         : shape.gated ? s.gate
                                       : s.up;
  for (int64_t begin = 0, rows = 0; begin < N; begin += rows) {
    rows = NextTile(N - begin, tile);
    const int64_t at = keep ? begin : 0;
    const In x = h.t.Rows(begin, rows);
    const Tensor up_rows = s.up.Rows(at, rows), gate_rows = Tile(s.gate, at, rows);
    const Tensor act = product.Rows(0, rows);
    const auto pair = [&](const Lora* lora, const Tensor& low) {
      return LoraUse{lora, {call.draw, begin}, Tile(low, begin, rows)};
    };
    if (shape.fused_gate_up) {
      ForwardTogether(ex, x, {{&gate_up, Whole(gate_rows), pair(pairs.gate_up, s.gate_up_low)}});
    } else if (shape.gated) {
      ForwardTogether(
          ex, x,
          {{&gate, gate_rows, pair(pairs.gate, s.gate_low)}, {&up, up_rows, pair(pairs.up, s.up_low)}});
    } else {
      ForwardTogether(ex, x, {{&up, up_rows, pair(pairs.up, s.up_low)}});
    }
    const In factor = up_rows;
    ops::Activate(ex, shape.activation, shape.gated ? gate_rows : up_rows, shape.gated ? &factor : nullptr,
                  Out{act});
    nn::Forward(ex, down, pair(pairs.down, s.down_low), act, Acc{y.t.Rows(begin, rows)});
  }
  if (saved) *saved = s;
}

void Mlp::Backward(Exec& ex, const BlockShape& shape, const BlockCall& call, In dy, In h, const Saved& saved,
                   const Out* dh) const {
  Frame frame(ex.arena());
  const BlockLoras& pairs = PairsOf(call);
  const int64_t N = h.t.rows(), F = shape.F, tile = std::min(N, shape.mlp_rows);
  const bool fused = shape.fused_gate_up;
  const bool past_down =
      dh || Learns(gate, pairs.gate) || Learns(up, pairs.up) || Learns(gate_up, pairs.gate_up);
  const auto scratch = [&](DType dtype, int64_t cols, const char* label) {
    return ex.arena().Scratch(dtype, tile, cols, shape.use, label);
  };
  const Tensor product = scratch(shape.act, F, "mlp product");
  const Tensor both = fused ? scratch(DType::kF32, 2 * F, "d mlp gate and up") : Tensor{};
  const Tensor dproduct = fused ? both.Cols(F, F) : scratch(DType::kF32, F, "d mlp product");
  const Tensor dgate_tile = fused         ? both.Cols(0, F)
                            : shape.gated ? scratch(DType::kF32, F, "d mlp gate")
                                          : Tensor{};
  for (int64_t begin = 0, rows = 0; begin < N; begin += rows) {
    rows = NextTile(N - begin, tile);
    const In x = h.t.Rows(begin, rows), dy_rows = dy.t.Rows(begin, rows);
    const Tensor act = product.Rows(0, rows), dact = dproduct.Rows(0, rows);
    const Tensor up_rows = saved.up.Rows(begin, rows);
    const Tensor gate_rows = Tile(saved.gate, begin, rows), dgate = Tile(dgate_tile, 0, rows);
    const Tensor& inner = shape.gated ? gate_rows : up_rows;  // what the activation is applied to
    const In factor = up_rows;
    const auto pair = [&](const Lora* lora, const Tensor& low) {
      return LoraUse{lora, {call.draw, begin}, Tile(low, begin, rows)};
    };
    // The product is cheaper to make again than to keep.
    ops::Activate(ex, shape.activation, inner, shape.gated ? &factor : nullptr, Out{act});
    const LoraUse down_pair = pair(pairs.down, saved.down_low);
    if (!past_down) {
      BackwardTrained(ex, down, down_pair, dy_rows, act);
      continue;
    }
    nn::Backward(ex, down, down_pair, dy_rows, act, Out{dact});
    // d up takes the memory of d product, element by element.
    const Out dup{dact};
    ops::ActivateGrad(ex, shape.activation, dact, inner, shape.gated ? &factor : nullptr,
                      Out{shape.gated ? dgate : dact}, shape.gated ? &dup : nullptr);
    const auto back = [&](const Linear& layer, const LoraUse& use, const Tensor& d, bool first) {
      if (!dh) return BackwardTrained(ex, layer, use, d, x);
      const Tensor dx = dh->t.Rows(begin, rows);
      first ? nn::Backward(ex, layer, use, d, x, Out{dx}) : nn::Backward(ex, layer, use, d, x, Acc{dx});
    };
    if (fused) {
      back(gate_up, pair(pairs.gate_up, saved.gate_up_low), both.Rows(0, rows), true);
      continue;
    }
    back(up, pair(pairs.up, saved.up_low), dact, true);
    if (shape.gated) back(gate, pair(pairs.gate, saved.gate_low), dgate, false);
  }
}

void Mlp::ForEachParam(const VisitParam& visit) {
  for (Linear* layer : {&gate, &up, &down}) layer->ForEachParam(visit);
}

}  // namespace rung::nn
