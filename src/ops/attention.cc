#include "ops/attention.h"

namespace rung::ops {
namespace {

// Multiply-adds of the useful triangle: scores and values, each D per visible pair.
double PairFlops(const cpu::AttentionShape& shape, std::span<const cpu::AttentionSpan> spans) {
  double pairs = 0;
  for (const cpu::AttentionSpan& span : spans) {
    const auto q = static_cast<double>(span.q_count), kv = static_cast<double>(span.kv_count);
    pairs += q * (kv - q) + q * (q + 1) / 2;
  }
  return 2.0 * pairs * static_cast<double>(shape.query_heads * shape.head_dim);
}

void CheckShapes(const cpu::AttentionShape& shape, const Tensor& q, const Tensor& k, const Tensor& v) {
  RUNG_CHECK(q.cols() == shape.query_heads * shape.head_dim, "attention: q must be (N, Hq*D)");
  RUNG_CHECK(k.cols() == shape.kv_heads * shape.head_dim && v.cols() == k.cols(),
             "attention: k, v must be (N, Hkv*D)");
  RUNG_CHECK(shape.query_heads % shape.kv_heads == 0, "attention: Hq must be a multiple of Hkv");
}

bool SameShape(const Tensor& a, const Tensor& b) { return a.rows() == b.rows() && a.cols() == b.cols(); }

bool IsLse(const Tensor& lse, const Tensor& q, const cpu::AttentionShape& shape) {
  return lse.rows() == q.rows() && lse.cols() == shape.query_heads && lse.contiguous();
}

}  // namespace

void Attention(Exec& ex, const cpu::AttentionShape& shape, std::span<const cpu::AttentionSpan> spans, In q,
               In k, In v, Out out, const Out* lse, Use use) {
  CheckShapes(shape, q.t, k.t, v.t);
  RUNG_CHECK(SameShape(out.t, q.t), "attention: out must be like q");
  RUNG_CHECK(!lse || IsLse(lse->t, q.t, shape), "attention: lse must be (N,Hq)");
  Frame frame(ex.arena());
  const size_t bytes = cpu::AttentionForwardScratch(ex.cpu(), shape, spans, SizeOf(q.t.dtype));
  std::byte* scratch =
      ex.arena().Scratch(DType::kF32, 1, static_cast<int64_t>((bytes + 3) / 4), use, "attention blocks").data;
  ex.Launch("attention", {2.0 * PairFlops(shape, spans), 0}, [&] {
    float* kept = lse ? lse->as<float>() : nullptr;
    if (q.t.dtype == DType::kBf16) {
      cpu::AttentionForward(ex.cpu(), shape, spans, q.as<Bf16>(), q.t.stride, k.as<Bf16>(), k.t.stride,
                            v.as<Bf16>(), v.t.stride, out.as<Bf16>(), out.t.stride, kept, scratch);
    } else {
      cpu::AttentionForward(ex.cpu(), shape, spans, q.as<float>(), q.t.stride, k.as<float>(), k.t.stride,
                            v.as<float>(), v.t.stride, out.as<float>(), out.t.stride, kept, scratch);
    }
  });
}

void AttentionGrad(Exec& ex, const cpu::AttentionShape& shape, std::span<const cpu::AttentionSpan> spans,
                   In q, In k, In v, In out, In dout, In lse, Out dq, Out dk, Out dv, Use use) {
  CheckShapes(shape, q.t, k.t, v.t);
  RUNG_CHECK(SameShape(out.t, q.t) && SameShape(dout.t, q.t), "attention_grad: out and dout must be like q");
  RUNG_CHECK(IsLse(lse.t, q.t, shape), "attention_grad: lse must be (N,Hq)");
  RUNG_CHECK(SameShape(dq.t, q.t), "attention_grad: dq must be like q");
  RUNG_CHECK(SameShape(dk.t, k.t) && SameShape(dv.t, v.t), "attention_grad: dk, dv must be like k, v");
  for (const cpu::AttentionSpan& span : spans) {
    RUNG_CHECK(span.q_begin == span.kv_begin && span.q_count == span.kv_count,
               "attention_grad: the keys of a span are its own rows");
  }
  Frame frame(ex.arena());
  const size_t bytes = cpu::AttentionBackwardScratch(ex.cpu(), shape, spans, SizeOf(q.t.dtype));
  std::byte* scratch =
      ex.arena().Scratch(DType::kF32, 1, static_cast<int64_t>((bytes + 3) / 4), use, "attention blocks").data;
  ex.Launch("attention_grad", {5.0 * PairFlops(shape, spans), 0}, [&] {
    const auto run = [&]<class T>(const T* queries) {
      cpu::AttentionBackward(ex.cpu(), shape, spans, queries, q.t.stride, k.as<T>(), k.t.stride, v.as<T>(),
                             v.t.stride, out.as<T>(), out.t.stride, dout.as<T>(), dout.t.stride,
                             lse.as<float>(), dq.as<float>(), dq.t.stride, dk.as<float>(), dk.t.stride,
                             dv.as<float>(), dv.t.stride, scratch);
    };
    if (q.t.dtype == DType::kBf16) {
      run(q.as<Bf16>());
    } else {
      run(q.as<float>());
    }
  });
}

}  // namespace rung::ops
