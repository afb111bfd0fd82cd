// The backward pass works on tiles of up to 128 queries x 64 keys, all five products by panels:
//
//   S = Q K^T, dP = dO V^T          panels: the 64 keys and values, packed once per block of keys
//   dV^T += dO^T P, dK^T += Q^T dS  panels: the tile itself; transposed, so that a product is always 64
//   columns wide dQ += dS K                      panel: the 64 keys by columns
//
// A task owns one range of keys of one kv head: their dk and dv, summed over queries and the group's heads in
// order, and a share of dq. Ranges depend on the shape alone; their shares of dq are added up in order of
// keys.
#include <algorithm>
#include <numbers>

#include "base/threads.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/panel.h"

namespace rung::cpu {
namespace {

constexpr int64_t kQueryTile = 128;
// Up to four ranges of at least 256 keys: parallelism for one long sequence at three extra copies of dq.
constexpr int64_t kRanges = 4, kLeastRange = 256;

struct BackwardArguments {
  const float *q, *k, *v, *out, *dout, *lse;
  int64_t ldq, ldk, ldv, ldo, lddo;
  float *dq, *dk, *dv;
  int64_t lddq, lddk, lddv;
};

struct ThreadScratch {
  float *score, *dp;                    // (kQueryTile, 64): p and ds after the softmax
  float *keys, *values, *keys_by_cols;  // panels of one block of keys
  float *p_panel, *ds_panel;            // panels of depth kQueryTile
  float *dk, *dv;                       // (D, 64), transposed sums
};

class Backward {
 public:
  Backward(const Context& context, const AttentionShape& shape, std::span<const AttentionSpan> spans,
           const BackwardArguments& arguments, std::byte* scratch)
      : shape_(shape),
        spans_(spans),
        a_(arguments),
        D_(shape.head_dim),
        group_(shape.query_heads / shape.kv_heads) {
    panel_ = PanelFor<float>(context.isa);
    kernels_ = AttentionFor<float>(context.isa);
    Pieces pieces(scratch);
    int64_t heads = 0, shares = 0;
    for (const AttentionSpan& span : spans) {
      heads += shape.query_heads * HeadFloats(span);
      shares += ShareFloats(span);
    }
    heads_ = pieces.Take<float>(heads);
    shares_ = pieces.Take<float>(shares);
    threads_begin_ = scratch ? scratch + pieces.used() : nullptr;
    Pieces one(nullptr);
    Lay(&one);
    thread_bytes_ = one.used();
    bytes_ = pieces.used() + thread_bytes_ * static_cast<size_t>(context.threads);
  }

  size_t bytes() const { return bytes_; }

  void Run(int threads) {
    TaskCounter prepare, range, merge;
    OnEachThread(threads, [&](int thread) {
      Pieces pieces(threads_begin_ + thread_bytes_ * static_cast<size_t>(thread));
      const ThreadScratch scratch = Lay(&pieces);
      while (Prepare(prepare.Next())) {
      }
      Barrier(threads);
      while (Range(range.Next(), scratch)) {
      }
      Barrier(threads);
      while (Merge(merge.Next())) {
      }
    });
  }

 private:
  int64_t width() const { return shape_.query_heads * D_; }

  static int64_t RangeKeys(const AttentionSpan& span) {
    return RoundUp(std::max(kLeastRange, CeilDiv(span.kv_count, kRanges)), kPanelRows);
  }
  static int64_t Ranges(const AttentionSpan& span) { return CeilDiv(span.kv_count, RangeKeys(span)); }
  // Never a power of two: columns 2^k apart would fall into the same cache sets.
  static int64_t PaddedQueries(const AttentionSpan& span) { return RoundUp(span.q_count, 32) + 16; }
  // Of one query head: Q^T and dO^T (D, padded queries), then delta and lse in base 2.
  int64_t HeadFloats(const AttentionSpan& span) const { return (2 * D_ + 2) * PaddedQueries(span); }
  // Range r > 0 writes dq of the queries from its first key on; range 0 writes dq itself.
  int64_t ShareOffset(const AttentionSpan& span, int64_t range) const {
    int64_t rows = 0;
    for (int64_t r = 1; r < range; ++r) rows += span.q_count - r * RangeKeys(span);
    return rows * width();
  }
  int64_t ShareFloats(const AttentionSpan& span) const { return ShareOffset(span, Ranges(span)); }

  ThreadScratch Lay(Pieces* pieces) const {
    ThreadScratch s;
    s.score = pieces->Take<float>(kQueryTile * kPanelRows);
    s.dp = pieces->Take<float>(kQueryTile * kPanelRows);
    s.keys = pieces->Take<float>(PanelElements(D_));
    s.values = pieces->Take<float>(PanelElements(D_));
    s.keys_by_cols = pieces->Take<float>(CeilDiv(D_, kPanelRows) * PanelElements(kPanelRows));
    s.p_panel = pieces->Take<float>(PanelElements(kQueryTile));
    s.ds_panel = pieces->Take<float>(PanelElements(kQueryTile));
    s.dk = pieces->Take<float>(D_ * kPanelRows);
    s.dv = pieces->Take<float>(D_ * kPanelRows);
    return s;
  }

  bool Prepare(int64_t task) const;
  void PrepareHead(const AttentionSpan& span, int64_t head, float* at) const;
  bool Range(int64_t task, const ThreadScratch& scratch) const;
  void KeyBlock(const AttentionSpan& span, int64_t kv_head, int64_t key, const float* heads, float* dq,
                int64_t lddq, bool first, const ThreadScratch& s) const;
  void Tile(const AttentionSpan& span, int64_t head, int64_t key, int64_t query, int64_t rows,
            const float* at, const ThreadScratch& s) const;
  void StoreKeys(const float* sums, int64_t keys, float* to, int64_t ld) const;
  bool Merge(int64_t task) const;

  const AttentionShape& shape_;
  std::span<const AttentionSpan> spans_;
  BackwardArguments a_;
  int64_t D_, group_;
  const PanelKernels<float>* panel_;
  const AttentionKernels<float>* kernels_;
  float *heads_ = nullptr, *shares_ = nullptr;
  std::byte* threads_begin_ = nullptr;
  size_t thread_bytes_ = 0, bytes_ = 0;
};

bool Backward::Prepare(int64_t task) const {
  float* heads = heads_;
  for (const AttentionSpan& span : spans_) {
    if (task < shape_.query_heads) {
      PrepareHead(span, task, heads + task * HeadFloats(span));
      return true;
    }
    task -= shape_.query_heads;
    heads += shape_.query_heads * HeadFloats(span);
  }
  return false;
}

void Backward::PrepareHead(const AttentionSpan& span, int64_t head, float* at) const {
  const int64_t T = PaddedQueries(span);
  float *q_by_cols = at, *dout_by_cols = at + D_ * T, *delta = at + 2 * D_ * T, *lse2 = delta + T;
  for (int64_t i = 0; i < span.q_count; ++i) {
    const int64_t row = span.q_begin + i;
    const float* q = a_.q + row * a_.ldq + head * D_;
    const float* out = a_.out + row * a_.ldo + head * D_;
    const float* dout = a_.dout + row * a_.lddo + head * D_;
    float sum = 0.0f;
    for (int64_t d = 0; d < D_; ++d) {
      sum += dout[d] * out[d];
      q_by_cols[d * T + i] = q[d];
      dout_by_cols[d * T + i] = dout[d];
    }
    delta[i] = sum;
    lse2[i] = a_.lse[row * shape_.query_heads + head] * std::numbers::log2e_v<float>;
  }
}

bool Backward::Range(int64_t task, const ThreadScratch& scratch) const {
  const float* heads = heads_;
  float* shares = shares_;
  for (const AttentionSpan& span : spans_) {
    const int64_t tasks = Ranges(span) * shape_.kv_heads;
    if (task < tasks) {
      // The first range is seen by the most queries: long tasks first.
      const int64_t range = task / shape_.kv_heads, kv_head = task % shape_.kv_heads;
      const int64_t begin = range * RangeKeys(span), end = std::min(span.kv_count, begin + RangeKeys(span));
      float* dq =
          range == 0 ? a_.dq + span.q_begin * a_.lddq : shares + ShareOffset(span, range) - begin * width();
      const int64_t lddq = range == 0 ? a_.lddq : width();
      for (int64_t key = begin; key < end; key += kPanelRows) {
        KeyBlock(span, kv_head, key, heads, dq, lddq, key == begin, scratch);
      }
      return true;
    }
    task -= tasks;
    heads += shape_.query_heads * HeadFloats(span);
    shares += ShareFloats(span);
  }
  return false;
}

// dq row i is that of query i of the span.
void Backward::KeyBlock(const AttentionSpan& span, int64_t kv_head, int64_t key, const float* heads,
                        float* dq, int64_t lddq, bool first, const ThreadScratch& s) const {
  const int64_t keys = std::min(kPanelRows, span.kv_count - key), row = span.kv_begin + key,
                column = kv_head * D_;
  const float* k = a_.k + row * a_.ldk + column;
  panel_->pack_rows(k, a_.ldk, keys, D_, s.keys);
  panel_->pack_rows(a_.v + row * a_.ldv + column, a_.ldv, keys, D_, s.values);
  for (int64_t d = 0; d < D_; d += kPanelRows) {
    panel_->pack_cols(k + d, a_.ldk, keys, std::min(kPanelRows, D_ - d), s.keys_by_cols + d * kPanelRows);
  }
  std::fill(s.dk, s.dk + D_ * kPanelRows, 0.0f);
  std::fill(s.dv, s.dv + D_ * kPanelRows, 0.0f);
  for (int64_t head = kv_head * group_; head < (kv_head + 1) * group_; ++head) {
    for (int64_t query = key; query < span.q_count; query += kQueryTile) {
      const int64_t rows = std::min(kQueryTile, span.q_count - query);
      Tile(span, head, key, query, rows, heads + head * HeadFloats(span), s);
      for (int64_t d = 0; d < D_; d += kPanelRows) {
        // The first block of a range is seen by all queries of its share, so that it may set.
        panel_->multiply(s.dp, kPanelRows, rows, s.keys_by_cols + d * kPanelRows, keys,
                         std::min(kPanelRows, D_ - d), !first, dq + query * lddq + head * D_ + d, lddq);
      }
    }
  }
  StoreKeys(s.dk, keys, a_.dk + row * a_.lddk + column, a_.lddk);
  StoreKeys(s.dv, keys, a_.dv + row * a_.lddv + column, a_.lddv);
}

// Leaves ds in s.dp and adds the tile to the transposed dk and dv.
void Backward::Tile(const AttentionSpan& span, int64_t head, int64_t key, int64_t query, int64_t rows,
                    const float* at, const ThreadScratch& s) const {
  const int64_t T = PaddedQueries(span), row = span.q_begin + query;
  const float *q_by_cols = at, *dout_by_cols = at + D_ * T, *delta = at + 2 * D_ * T, *lse2 = delta + T;
  panel_->multiply(a_.q + row * a_.ldq + head * D_, a_.ldq, rows, s.keys, D_, kPanelRows, false, s.score,
                   kPanelRows);
  panel_->multiply(a_.dout + row * a_.lddo + head * D_, a_.lddo, rows, s.values, D_, kPanelRows, false, s.dp,
                   kPanelRows);
  AttentionGradTile tile;
  tile.score = s.score;
  tile.dp = s.dp;
  tile.ld = tile.width = kPanelRows;
  tile.rows = rows;
  tile.visible = query - key + 1;
  tile.score_scale = shape_.scale * std::numbers::log2e_v<float>;
  tile.scale = shape_.scale;
  tile.lse2 = lse2 + query;
  tile.delta = delta + query;
  kernels_->grad_tile(tile);
  panel_->pack_cols(s.score, kPanelRows, rows, kPanelRows, s.p_panel);
  panel_->pack_cols(s.dp, kPanelRows, rows, kPanelRows, s.ds_panel);
  panel_->multiply(dout_by_cols + query, T, D_, s.p_panel, rows, kPanelRows, true, s.dv, kPanelRows);
  panel_->multiply(q_by_cols + query, T, D_, s.ds_panel, rows, kPanelRows, true, s.dk, kPanelRows);
}

// to[j,:] = column j of sums (D, 64).
void Backward::StoreKeys(const float* sums, int64_t keys, float* to, int64_t ld) const {
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t d = 0; d < D_; ++d) to[j * ld + d] = sums[d * kPanelRows + j];
  }
}

// Adds the shares of the later ranges to one row of dq.
bool Backward::Merge(int64_t task) const {
  const float* shares = shares_;
  for (const AttentionSpan& span : spans_) {
    if (task < span.q_count) {
      float* dq = a_.dq + (span.q_begin + task) * a_.lddq;
      for (int64_t r = 1; r < Ranges(span) && r * RangeKeys(span) <= task; ++r) {
        const float* share = shares + ShareOffset(span, r) + (task - r * RangeKeys(span)) * width();
        for (int64_t c = 0; c < width(); ++c) dq[c] += share[c];
      }
      return true;
    }
    task -= span.q_count;
    shares += ShareFloats(span);
  }
  return false;
}

}  // namespace

void AttentionBackward(const Context& context, const AttentionShape& shape,
                       std::span<const AttentionSpan> spans, const float* q, int64_t ldq, const float* k,
                       int64_t ldk, const float* v, int64_t ldv, const float* out, int64_t ldo,
                       const float* dout, int64_t lddo, const float* lse, float* dq, int64_t lddq, float* dk,
                       int64_t lddk, float* dv, int64_t lddv, std::byte* scratch) {
  const BackwardArguments arguments{q,   k,    v,  out, dout, lse,  ldq,  ldk, ldv,
                                    ldo, lddo, dq, dk,  dv,   lddq, lddk, lddv};
  Backward(context, shape, spans, arguments, scratch).Run(context.threads);
}

size_t AttentionBackwardScratch(const Context& context, const AttentionShape& shape,
                                std::span<const AttentionSpan> spans) {
  return Backward(context, shape, spans, {}, nullptr).bytes();
}

}  // namespace rung::cpu
