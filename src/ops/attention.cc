#include "ops/attention.h"

#include "ops/common.h"

namespace rung::ops {
namespace {

// Multiply-adds of the useful triangle, or band: scores and values, each D per visible pair.
double PairFlops(const cpu::AttentionShape& shape, std::span<const cpu::AttentionSpan> spans) {
  // Pairs of queries at the first n positions.
  const auto pairs_of = [&](int64_t n) {
    const auto all = static_cast<double>(n), window = static_cast<double>(shape.window);
    if (shape.window == 0 || n <= shape.window) return all * (all + 1) / 2;
    return window * (window + 1) / 2 + (all - window) * window;
  };
  double pairs = 0;
  for (const cpu::AttentionSpan& span : spans) {
    pairs += pairs_of(span.kv_count) - pairs_of(span.kv_count - span.q_count);
  }
  return 2.0 * pairs * static_cast<double>(shape.query_heads * shape.head_dim);
}

// Columns of heads that lie `step` apart (0: side by side).
int64_t WidthOf(int64_t heads, int64_t step, int64_t head_dim) {
  return step > 0 ? (heads - 1) * step + head_dim : heads * head_dim;
}

void CheckShapes(const cpu::AttentionShape& shape, const Tensor& q, const Tensor& k, const Tensor& v) {
  RUNG_CHECK(shape.query_heads % shape.kv_heads == 0, "attention: Hq must be a multiple of Hkv");
  RUNG_CHECK((shape.q_step == 0 || shape.q_step >= shape.head_dim) &&
                 (shape.kv_step == 0 || shape.kv_step >= shape.head_dim),
             "attention: heads must not overlap");
  RUNG_CHECK(shape.window >= 0 && shape.score_cap >= 0.0f, "attention: window and cap are positive, or 0");
  RUNG_CHECK(q.cols() == WidthOf(shape.query_heads, shape.q_step, shape.head_dim),
             "attention: q must be (N, Hq*D), or as wide as its last head reaches");
  RUNG_CHECK(k.cols() == WidthOf(shape.kv_heads, shape.kv_step, shape.head_dim) && SameShape(v, k),
             "attention: k, v must be (N, Hkv*D), or as wide as their last head reaches");
}

// Spans are rows of q and k. A call that runs has every query in one span, in order: what no span covers
// would stay as the memory was. A plan may be a bound for many calls, with spans that overlap.
void CheckSpans(const Exec& ex, std::span<const cpu::AttentionSpan> spans, int64_t queries, int64_t keys) {
  int64_t row = 0;
  bool in_order = true;
  for (const cpu::AttentionSpan& span : spans) {
    RUNG_CHECK(span.q_begin >= 0 && span.q_count >= 0 && span.q_begin + span.q_count <= queries,
               "attention: the queries of a span are rows of q");
    RUNG_CHECK(span.kv_begin >= 0 && span.kv_count >= span.q_count && span.kv_begin + span.kv_count <= keys,
               "attention: the keys of a span are rows of k, at least one a query");
    in_order = in_order && span.q_begin == row;
    row += span.q_count;
  }
  RUNG_CHECK(ex.planning() || (in_order && row == queries), "attention: spans cover all rows of q, in order");
}

// out and dout, whose heads lie side by side.
bool IsDense(const Tensor& out, const Tensor& q, const cpu::AttentionShape& shape) {
  return out.rows() == q.rows() && out.cols() == shape.query_heads * shape.head_dim;
}

bool IsLse(const Tensor& lse, const Tensor& q, const cpu::AttentionShape& shape) {
  return lse.rows() == q.rows() && lse.cols() == shape.query_heads && lse.contiguous();
}

}  // namespace

void Attention(Exec& ex, const cpu::AttentionShape& shape, std::span<const cpu::AttentionSpan> spans, In q,
               In k, In v, Out out, const Out* lse, Use use) {
  CheckShapes(shape, q.t, k.t, v.t);
  CheckSpans(ex, spans, q.t.rows(), k.t.rows());
  RUNG_CHECK(IsDense(out.t, q.t, shape), "attention: out must be (N, Hq*D)");
  RUNG_CHECK(!lse || IsLse(lse->t, q.t, shape), "attention: lse must be (N,Hq)");
  Frame frame(ex.arena());
  std::byte* scratch = KernelScratch(
      ex, cpu::AttentionForwardScratch(ex.cpu(), shape, spans, SizeOf(q.t.dtype)), use, "attention blocks");
  ex.Launch("attention", {2.0 * PairFlops(shape, spans), 0}, {out.t, lse ? lse->t : Tensor{}}, [&] {
    float* kept = lse ? lse->as<float>() : nullptr;
    OnElementsOf(q, [&]<class T>(const T* queries) {
      cpu::AttentionForward(ex.cpu(), shape, spans, queries, q.t.stride, k.as<T>(), k.t.stride, v.as<T>(),
                            v.t.stride, out.as<T>(), out.t.stride, kept, scratch);
    });
  });
}

void AttentionGrad(Exec& ex, const cpu::AttentionShape& shape, std::span<const cpu::AttentionSpan> spans,
                   In q, In k, In v, In out, In dout, In lse, Out dq, Out dk, Out dv, Use use) {
  CheckShapes(shape, q.t, k.t, v.t);
  CheckSpans(ex, spans, q.t.rows(), k.t.rows());
  RUNG_CHECK(k.t.rows() == q.t.rows(), "attention_grad: k, v have the rows of q");
  RUNG_CHECK(IsDense(out.t, q.t, shape) && IsDense(dout.t, q.t, shape),
             "attention_grad: out and dout must be (N, Hq*D)");
  RUNG_CHECK(IsLse(lse.t, q.t, shape), "attention_grad: lse must be (N,Hq)");
  RUNG_CHECK(SameShape(dq.t, q.t), "attention_grad: dq must be like q");
  RUNG_CHECK(SameShape(dk.t, k.t) && SameShape(dv.t, v.t), "attention_grad: dk, dv must be like k, v");
  for (const cpu::AttentionSpan& span : spans) {
    RUNG_CHECK(span.q_begin == span.kv_begin && span.q_count == span.kv_count,
               "attention_grad: the keys of a span are its own rows");
  }
  Frame frame(ex.arena());
  std::byte* scratch = KernelScratch(
      ex, cpu::AttentionBackwardScratch(ex.cpu(), shape, spans, SizeOf(q.t.dtype)), use, "attention blocks");
  ex.Launch("attention_grad", {5.0 * PairFlops(shape, spans), 0}, {dq.t, dk.t, dv.t}, [&] {
    OnElementsOf(q, [&]<class T>(const T* queries) {
      cpu::AttentionBackward(ex.cpu(), shape, spans, queries, q.t.stride, k.as<T>(), k.t.stride, v.as<T>(),
                             v.t.stride, out.as<T>(), out.t.stride, dout.as<T>(), dout.t.stride,
                             lse.as<float>(), dq.as<float>(), dq.t.stride, dk.as<float>(), dk.t.stride,
                             dv.as<float>(), dv.t.stride, scratch);
    });
  });
}

}  // namespace rung::ops
