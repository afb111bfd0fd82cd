#include "ops/rows.h"

#include <cstring>

#include "ops/common.h"

namespace rung::ops {
namespace {

// body(x, y) of a norm: from f32 to either type, or from bf16 to bf16.
template <class Body>
void OnNormed(In x, Out y, const Body& body) {
  if (x.t.dtype == DType::kBf16) {
    body(x.as<Bf16>(), y.as<Bf16>());
  } else {
    OnElementsOf(y, [&](auto* to) { body(x.as<float>(), to); });
  }
}

void RmsNormGradInto(Exec& ex, In dy, In x, In gain, float gain_offset, In rstd, const Tensor& dx, bool add,
                     const Acc* dgain) {
  RUNG_CHECK(SameShape(dy.t, x.t) && SameShape(dx, x.t), "rms_norm_grad: dy and dx must be (N,C) like x");
  RUNG_CHECK(IsVector(gain.t, x.t.cols()), "rms_norm_grad: gain must be (1,C)");
  RUNG_CHECK(IsVector(rstd.t, x.t.rows()), "rms_norm_grad: rstd must be (1,N)");
  RUNG_CHECK(!dgain || IsVector(dgain->t, x.t.cols()), "rms_norm_grad: dgain must be (1,C)");
  ex.Launch("rms_norm_grad", {}, {dx, dgain ? dgain->t : Tensor{}}, [&] {
    OnElementsOf(x, [&](const auto* data) {
      cpu::RmsNormGrad(ex.cpu(), dy.as<float>(), dy.t.stride, data, x.t.stride, gain.as<float>(), gain_offset,
                       rstd.as<float>(), x.t.rows(), x.t.cols(), add, Out{dx}.as<float>(), dx.stride,
                       dgain ? dgain->as<float>() : nullptr);
    });
  });
}

void LayerNormGradInto(Exec& ex, In dy, In x, In gain, In stats, const Tensor& dx, bool add, const Acc* dgain,
                       const Acc* dbias) {
  const int64_t N = x.t.rows(), C = x.t.cols();
  RUNG_CHECK(SameShape(dy.t, x.t) && SameShape(dx, x.t), "layer_norm_grad: dy and dx must be (N,C) like x");
  RUNG_CHECK(IsVector(gain.t, C), "layer_norm_grad: gain must be (1,C)");
  RUNG_CHECK(stats.t.rows() == 2 && stats.t.cols() == N, "layer_norm_grad: stats must be (2,N)");
  RUNG_CHECK((!dgain || IsVector(dgain->t, C)) && (!dbias || IsVector(dbias->t, C)),
             "layer_norm_grad: dgain and dbias must be (1,C)");
  ex.Launch("layer_norm_grad", {}, {dx, dgain ? dgain->t : Tensor{}, dbias ? dbias->t : Tensor{}}, [&] {
    OnElementsOf(x, [&](const auto* data) {
      cpu::LayerNormGrad(ex.cpu(), dy.as<float>(), dy.t.stride, data, x.t.stride, gain.as<float>(),
                         stats.as<float>(), stats.t.stride, N, C, add, Out{dx}.as<float>(), dx.stride,
                         dgain ? dgain->as<float>() : nullptr, dbias ? dbias->as<float>() : nullptr);
    });
  });
}

void CheckDropout(const Dropout& dropout, const Tensor& x) {
  RUNG_CHECK(dropout.p >= 0.0f && dropout.p < 1.0f, "dropout: p must be in [0,1)");
  RUNG_CHECK(dropout.draw >> 30 == 0 && dropout.first_row >= 0 &&
                 (dropout.first_row + x.rows()) * x.cols() >> 34 == 0,
             "dropout: draw is below 2^30, rows*C below 2^34");
}

bool OneOrPerChannel(const Tensor& mu, const Tensor& a) {
  return mu.rows() == 1 && (mu.cols() == 1 || mu.cols() == a.cols());
}

}  // namespace

void RmsNorm(Exec& ex, In x, In gain, float gain_offset, float eps, Out y, const Out* rstd) {
  const int64_t N = x.t.rows(), C = x.t.cols();
  RUNG_CHECK(SameShape(x.t, y.t), "rms_norm: y must be (N,C) like x");
  RUNG_CHECK(gain.t.cols() == C, "rms_norm: gain must be (1,C)");
  RUNG_CHECK(!rstd || rstd->t.cols() == N, "rms_norm: rstd must be (1,N)");
  ex.Launch("rms_norm", {}, {y.t, rstd ? rstd->t : Tensor{}}, [&] {
    OnNormed(x, y, [&](const auto* from, auto* to) {
      cpu::RmsNorm(ex.cpu(), from, x.t.stride, gain.as<float>(), gain_offset, eps, N, C, to, y.t.stride,
                   rstd ? rstd->as<float>() : nullptr);
    });
  });
}

void RmsNormGrad(Exec& ex, In dy, In x, In gain, float gain_offset, In rstd, Acc dx, const Acc* dgain) {
  RmsNormGradInto(ex, dy, x, gain, gain_offset, rstd, dx.t, true, dgain);
}
void RmsNormGrad(Exec& ex, In dy, In x, In gain, float gain_offset, In rstd, Out dx, const Acc* dgain) {
  RmsNormGradInto(ex, dy, x, gain, gain_offset, rstd, dx.t, false, dgain);
}

void LayerNorm(Exec& ex, In x, In gain, In bias, float eps, Out y, const Out* stats) {
  const int64_t N = x.t.rows(), C = x.t.cols();
  RUNG_CHECK(SameShape(x.t, y.t), "layer_norm: y must be (N,C) like x");
  RUNG_CHECK(IsVector(gain.t, C) && (bias.t.empty() || IsVector(bias.t, C)),
             "layer_norm: gain and bias must be (1,C)");
  RUNG_CHECK(!stats || (stats->t.rows() == 2 && stats->t.cols() == N), "layer_norm: stats must be (2,N)");
  ex.Launch("layer_norm", {}, {y.t, stats ? stats->t : Tensor{}}, [&] {
    OnNormed(x, y, [&](const auto* from, auto* to) {
      cpu::LayerNorm(ex.cpu(), from, x.t.stride, gain.as<float>(),
                     bias.t.empty() ? nullptr : bias.as<float>(), eps, N, C, to, y.t.stride,
                     stats ? stats->as<float>() : nullptr, stats ? stats->t.stride : 0);
    });
  });
}

void LayerNormGrad(Exec& ex, In dy, In x, In gain, In stats, Acc dx, const Acc* dgain, const Acc* dbias) {
  LayerNormGradInto(ex, dy, x, gain, stats, dx.t, true, dgain, dbias);
}
void LayerNormGrad(Exec& ex, In dy, In x, In gain, In stats, Out dx, const Acc* dgain, const Acc* dbias) {
  LayerNormGradInto(ex, dy, x, gain, stats, dx.t, false, dgain, dbias);
}

void Rope(Exec& ex, Acc x, In position, const RopeTable& table, int64_t heads, int64_t step, int64_t head_dim,
          int direction) {
  const int64_t N = x.t.rows();
  RUNG_CHECK(heads > 0 && step >= head_dim && (heads - 1) * step + head_dim <= x.t.cols(),
             "rope: the heads must lie apart within the columns of x");
  RUNG_CHECK(position.t.cols() == N, "rope: position must be (1,N)");
  RUNG_CHECK(table.rotary > 0 && table.rotary % 2 == 0 && table.rotary <= head_dim,
             "rope: rotary must be even and at most D");
  RUNG_CHECK(table.cos.cols() >= table.rotary / 2, "rope: cos must be (positions, at least rotary/2)");
  RUNG_CHECK(SameShape(table.cos, table.sin) && table.cos.stride == table.sin.stride,
             "rope: sin must be like cos");
  ex.Launch("rope", {}, {x.t}, [&] {
    OnElementsOf(x, [&](auto* data) {
      cpu::Rope(ex.cpu(), data, x.t.stride, position.as<int32_t>(), In(table.cos).as<float>(),
                In(table.sin).as<float>(), table.cos.stride, N, heads, step, head_dim, table.rotary,
                table.half, direction);
    });
  });
}

void Activate(Exec& ex, cpu::Activation activation, In gate, const In* up, Out y) {
  const int64_t N = gate.t.rows(), F = gate.t.cols();
  RUNG_CHECK(SameShape(gate.t, y.t) && (!up || SameShape(gate.t, up->t)), "activate: shapes must agree");
  ex.Launch("activate", {}, {y.t}, [&] {
    OnElementsOf(y, [&]<class T>(T* to) {
      cpu::Activate(ex.cpu(), activation, gate.as<T>(), gate.t.stride, up ? up->as<T>() : nullptr,
                    up ? up->t.stride : 0, N, F, to, y.t.stride);
    });
  });
}

void ActivateGrad(Exec& ex, cpu::Activation activation, In dy, In gate, const In* up, Out dgate,
                  const Out* dup) {
  RUNG_CHECK(SameShape(dy.t, gate.t) && SameShape(dgate.t, gate.t), "activate_grad: shapes must agree");
  RUNG_CHECK((up == nullptr) == (dup == nullptr), "activate_grad: up and dup go together");
  ex.Launch("activate_grad", {}, {dgate.t, dup ? dup->t : Tensor{}}, [&] {
    OnElementsOf(gate, [&]<class T>(const T* data) {
      cpu::ActivateGrad(ex.cpu(), activation, dy.as<float>(), dy.t.stride, data, gate.t.stride,
                        up ? up->as<T>() : nullptr, up ? up->t.stride : 0, gate.t.rows(), gate.t.cols(),
                        dgate.as<float>(), dgate.t.stride, dup ? dup->as<float>() : nullptr,
                        dup ? dup->t.stride : 0);
    });
  });
}

void Convert(Exec& ex, In x, Out y) {
  RUNG_CHECK(SameShape(x.t, y.t), "convert: shapes must agree");
  ex.Launch("convert", {}, {y.t}, [&] {
    const int64_t N = x.t.rows(), C = x.t.cols();
    OnElementsOf(x, [&](const auto* from) {
      OnElementsOf(y, [&](auto* to) { cpu::Convert(ex.cpu(), from, x.t.stride, N, C, to, y.t.stride); });
    });
  });
}

void Standardize(Exec& ex, In x, bool normalize, float eps, const In* mean, const In* inv_deviation, Out y) {
  RUNG_CHECK(SameShape(x.t, y.t), "standardize: y must be (N,C) like x");
  RUNG_CHECK((mean == nullptr) == (inv_deviation == nullptr), "standardize: mean and deviation go together");
  RUNG_CHECK(!mean || (IsVector(mean->t, x.t.cols()) && IsVector(inv_deviation->t, x.t.cols())),
             "standardize: mean and deviation must be (1,C)");
  ex.Launch("standardize", {}, {y.t}, [&] {
    const float* m = mean ? mean->as<float>() : nullptr;
    const float* d = inv_deviation ? inv_deviation->as<float>() : nullptr;
    OnElementsOf(x, [&](const auto* data) {
      cpu::Standardize(ex.cpu(), data, x.t.stride, normalize, eps, m, d, x.t.rows(), x.t.cols(),
                       y.as<float>(), y.t.stride);
    });
  });
}

void AddBias(Exec& ex, In bias, Acc y) {
  RUNG_CHECK(bias.t.rows() == 1 && bias.t.cols() == y.t.cols(), "add_bias: bias must be (1,C)");
  ex.Launch("add_bias", {}, {y.t}, [&] {
    cpu::AddBias(ex.cpu(), bias.as<float>(), y.t.rows(), y.t.cols(), y.as<float>(), y.t.stride);
  });
}

void SumRows(Exec& ex, In dy, Acc dbias) {
  RUNG_CHECK(dbias.t.rows() == 1 && dbias.t.cols() == dy.t.cols(), "sum_rows: dbias must be (1,C)");
  ex.Launch("sum_rows", {}, {dbias.t}, [&] {
    cpu::SumRows(ex.cpu(), dy.as<float>(), dy.t.stride, dy.t.rows(), dy.t.cols(), dbias.as<float>());
  });
}

void QuantizeRows(Exec& ex, In x, Out q, Out scale) {
  RUNG_CHECK(SameShape(x.t, q.t), "quantize_rows: q must be (N,C) like x");
  RUNG_CHECK(scale.t.rows() == 1 && scale.t.cols() == x.t.rows(), "quantize_rows: scale must be (1,N)");
  ex.Launch("quantize_rows", {}, {q.t, scale.t}, [&] {
    OnElementsOf(x, [&](const auto* data) {
      cpu::QuantizeRows(ex.cpu(), data, x.t.stride, x.t.rows(), x.t.cols(), q.as<int8_t>(), q.t.stride,
                        scale.as<float>());
    });
  });
}

void DequantizeRows(Exec& ex, In q, In scale, Out y) {
  RUNG_CHECK(SameShape(q.t, y.t), "dequantize_rows: y must be (N,C) like q");
  RUNG_CHECK(scale.t.rows() == 1 && scale.t.cols() == q.t.rows(), "dequantize_rows: scale must be (1,N)");
  ex.Launch("dequantize_rows", {}, {y.t}, [&] {
    OnElementsOf(y, [&](auto* to) {
      cpu::DequantizeRows(ex.cpu(), q.as<int8_t>(), q.t.stride, scale.as<float>(), q.t.rows(), q.t.cols(), to,
                          y.t.stride);
    });
  });
}

void PoolColumns(Exec& ex, In x, Out y) {
  RUNG_CHECK(y.t.rows() == x.t.rows() && y.t.cols() > 0 && y.t.cols() <= x.t.cols(),
             "pool_columns: y must be (N,S), S at most C");
  ex.Launch("pool_columns", {}, {y.t}, [&] {
    OnElementsOf(x, [&](const auto* data) {
      cpu::PoolColumns(ex.cpu(), data, x.t.stride, x.t.rows(), x.t.cols(), y.as<float>(), y.t.stride,
                       y.t.cols());
    });
  });
}

void Drop(Exec& ex, const Dropout& dropout, In x, Out y) {
  RUNG_CHECK(SameShape(x.t, y.t), "drop: y must be (N,C) like x");
  CheckDropout(dropout, x.t);
  ex.Launch("drop", {}, {y.t}, [&] {
    OnElementsOf(y, [&]<class T>(T* to) {
      cpu::Drop(ex.cpu(), dropout, x.as<T>(), x.t.stride, x.t.rows(), x.t.cols(), to, y.t.stride);
    });
  });
}

void DropGrad(Exec& ex, const Dropout& dropout, In dy, Acc dx) {
  RUNG_CHECK(SameShape(dy.t, dx.t), "drop_grad: dx must be (N,C) like dy");
  CheckDropout(dropout, dy.t);
  ex.Launch("drop_grad", {}, {dx.t}, [&] {
    cpu::DropGrad(ex.cpu(), dropout, dy.as<float>(), dy.t.stride, dy.t.rows(), dy.t.cols(), dx.as<float>(),
                  dx.t.stride);
  });
}

void Gather(Exec& ex, In x, In index, Out y) {
  RUNG_CHECK(y.t.rows() == index.t.cols() && y.t.cols() == x.t.cols(), "gather: y must be (M,C)");
  ex.Launch("gather", {}, {y.t}, [&] {
    cpu::GatherRows(ex.cpu(), x.as<float>(), x.t.stride, index.as<int32_t>(), y.t.rows(), y.t.cols(),
                    y.as<float>(), y.t.stride);
  });
}

void Scatter(Exec& ex, In x, In index, Out y) {
  RUNG_CHECK(x.t.rows() == index.t.cols() && y.t.cols() == x.t.cols(), "scatter: x must be (M,C)");
  RUNG_CHECK(y.t.contiguous(), "scatter: y is contiguous");
  ex.Launch("scatter", {}, {y.t}, [&] {
    std::memset(y.t.data, 0, static_cast<size_t>(y.t.size()) * sizeof(float));
    cpu::ScatterRows(ex.cpu(), x.as<float>(), x.t.stride, index.as<int32_t>(), x.t.rows(), x.t.cols(),
                     y.as<float>(), y.t.stride);
  });
}

void Axpby(Exec& ex, float a, In x, float b, Acc y) {
  RUNG_CHECK(SameShape(x.t, y.t), "axpby: shapes must agree");
  ex.Launch("axpby", {}, {y.t}, [&] {
    cpu::Axpby(ex.cpu(), a, x.as<float>(), x.t.stride, b, y.as<float>(), y.t.stride, x.t.rows(), x.t.cols());
  });
}

void Scale(Exec& ex, float a, Acc x) {
  ex.Launch("scale", {}, {x.t}, [&] {
    cpu::Axpby(ex.cpu(), a, x.as<float>(), x.t.stride, 0.0f, x.as<float>(), x.t.stride, x.t.rows(),
               x.t.cols());
  });
}

void Cap(Exec& ex, float cap, Acc x) {
  RUNG_CHECK(cap > 0.0f, "cap: it is positive");
  ex.Launch("cap", {}, {x.t},
            [&] { cpu::Cap(ex.cpu(), cap, x.as<float>(), x.t.stride, x.t.rows(), x.t.cols()); });
}

void Mix(Exec& ex, In mu, In a, In b, Out out) {
  RUNG_CHECK(SameShape(a.t, b.t) && SameShape(a.t, out.t), "mix: shapes must agree");
  RUNG_CHECK(OneOrPerChannel(mu.t, a.t), "mix: mu must be (1,1) or (1,C)");
  RUNG_CHECK(a.t.contiguous() && b.t.contiguous() && out.t.contiguous(), "mix: tensors are contiguous");
  ex.Launch("mix", {}, {out.t}, [&] {
    cpu::Mix(ex.cpu(), mu.as<float>(), mu.t.cols() > 1, a.as<float>(), b.as<float>(), a.t.rows(), a.t.cols(),
             out.as<float>());
  });
}

void MixGrad(Exec& ex, In mu, In dout, In a, In b, Out da, Out db, Acc dmu) {
  RUNG_CHECK(SameShape(a.t, b.t) && SameShape(a.t, dout.t), "mix_grad: shapes must agree");
  RUNG_CHECK(SameShape(a.t, da.t) && SameShape(a.t, db.t), "mix_grad: da, db must be (N,C) like a");
  RUNG_CHECK(OneOrPerChannel(mu.t, a.t) && SameShape(mu.t, dmu.t),
             "mix_grad: mu, dmu must be (1,1) or (1,C)");
  RUNG_CHECK(
      a.t.contiguous() && b.t.contiguous() && dout.t.contiguous() && da.t.contiguous() && db.t.contiguous(),
      "mix_grad: tensors are contiguous");
  ex.Launch("mix_grad", {}, {da.t, db.t, dmu.t}, [&] {
    cpu::MixGrad(ex.cpu(), mu.as<float>(), mu.t.cols() > 1, dout.as<float>(), a.as<float>(), b.as<float>(),
                 a.t.rows(), a.t.cols(), da.as<float>(), db.as<float>(), dmu.as<float>());
  });
}

void SigmoidGate(Exec& ex, In alpha, float temperature, Out mu) {
  RUNG_CHECK(SameShape(alpha.t, mu.t), "sigmoid_gate: shapes must agree");
  RUNG_CHECK(alpha.t.contiguous() && mu.t.contiguous(), "sigmoid_gate: tensors are contiguous");
  ex.Launch("sigmoid_gate", {}, {mu.t},
            [&] { cpu::SigmoidGate(alpha.as<float>(), temperature, mu.t.size(), mu.as<float>()); });
}

void SigmoidGateGrad(Exec& ex, In dmu, In mu, float temperature, Acc dalpha) {
  RUNG_CHECK(SameShape(dmu.t, mu.t) && SameShape(dmu.t, dalpha.t), "sigmoid_gate_grad: shapes must agree");
  RUNG_CHECK(dmu.t.contiguous() && mu.t.contiguous() && dalpha.t.contiguous(),
             "sigmoid_gate_grad: tensors are contiguous");
  ex.Launch("sigmoid_gate_grad", {}, {dalpha.t}, [&] {
    cpu::SigmoidGateGrad(dmu.as<float>(), mu.as<float>(), temperature, mu.t.size(), dalpha.as<float>());
  });
}

void Zero(Exec& ex, Out x) {
  RUNG_CHECK(x.t.contiguous(), "zero: x is contiguous");
  ex.Launch("zero", {}, {x.t},
            [&] { std::memset(x.t.data, 0, static_cast<size_t>(x.t.size()) * SizeOf(x.t.dtype)); });
}

}  // namespace rung::ops
