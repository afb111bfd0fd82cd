// The backward pass works on tiles of up to 128 queries x 64 keys, all five products by panels:
//
//   S = Q K^T, dP = dO V^T          panels: the 64 keys and values, packed once per block of keys
//   dV^T += dO^T P, dK^T += Q^T dS  panels: the tile itself; transposed, for a product 64 columns wide
//   dQ += dS K                      panel: the 64 keys by columns
//
// A task owns one range of keys of one kv head: their dk and dv, summed over queries and the group's heads in
// order, and a share of dq. Ranges depend on the shape alone; their shares of dq are added up in order of
// keys.
#include <algorithm>
#include <numbers>
#include <type_traits>

#include "base/threads.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/pieces.h"

namespace rung::cpu {
namespace {

constexpr int64_t kQueryTile = 128;
// Up to four ranges of at least 256 keys: parallelism for one long sequence at three extra copies of dq.
constexpr int64_t kRanges = 4, kLeastRange = 256;

template <class T>
struct BackwardArguments {
  const T *q, *k, *v, *out, *dout;
  const float* lse;
  int64_t ldq, ldk, ldv, ldo, lddo;
  float *dq, *dk, *dv;
  int64_t lddq, lddk, lddv;
};

template <class T>
struct ThreadScratch {
  float *score, *dp;                // (kQueryTile, 64)
  T *p, *ds;                        // the same after the softmax; f32 in the same places
  T *keys, *values, *keys_by_cols;  // panels of one block of keys
  T *p_panel, *ds_panel;            // panels of depth kQueryTile
  float *dk, *dv;                   // (D, 64), transposed sums
};

// What the tasks of one query head share, cut from scratch: padded columns, of which the first beyond the
// queries is 0, for products of pairs.
template <class T>
struct Head {
  T *q_by_cols, *dout_by_cols;  // (D, padded queries)
  float *delta, *lse2;          // (padded queries)
};

template <class T>
class Backward {
 public:
  Backward(const Context& context, const AttentionShape& shape, std::span<const AttentionSpan> spans,
           const BackwardArguments<T>& arguments, std::byte* scratch)
      : shape_(shape),
        spans_(spans),
        a_(arguments),
        D_(shape.head_dim),
        step_(shape),
        group_(shape.query_heads / shape.kv_heads) {
    panel_ = PanelFor<T>(context.isa);
    kernels_ = AttentionFor<T>(context.isa);
    Pieces pieces(scratch);
    int64_t heads = 0, shares = 0;
    for (const AttentionSpan& span : spans) {
      heads += shape.query_heads * HeadBytes(span);
      shares += ShareFloats(span);
    }
    heads_ = pieces.Take<std::byte>(heads);
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
      const ThreadScratch<T> scratch = Lay(&pieces);
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
  Head<T> LayHead(const AttentionSpan& span, Pieces* pieces) const {
    const int64_t columns = PaddedQueries(span);
    Head<T> head;
    head.q_by_cols = pieces->Take<T>(D_ * columns);
    head.dout_by_cols = pieces->Take<T>(D_ * columns);
    head.delta = pieces->Take<float>(columns);
    head.lse2 = pieces->Take<float>(columns);
    return head;
  }
  int64_t HeadBytes(const AttentionSpan& span) const {
    Pieces pieces(nullptr);
    LayHead(span, &pieces);
    return static_cast<int64_t>(pieces.used());
  }
  Head<T> HeadAt(const AttentionSpan& span, std::byte* heads, int64_t head) const {
    Pieces pieces(heads + head * HeadBytes(span));
    return LayHead(span, &pieces);
  }
  // The queries that see any of the keys up to `key_end` end here.
  int64_t QueryEnd(const AttentionSpan& span, int64_t key_end) const {
    return shape_.window > 0 ? std::min(span.q_count, key_end - 1 + shape_.window) : span.q_count;
  }
  int64_t RangeEnd(const AttentionSpan& span, int64_t range) const {
    return std::min(span.kv_count, (range + 1) * RangeKeys(span));
  }
  // Range r > 0 writes dq of the queries from its first key to QueryEnd; range 0 those of dq itself.
  int64_t ShareOffset(const AttentionSpan& span, int64_t range) const {
    int64_t rows = 0;
    for (int64_t r = 1; r < range; ++r) rows += QueryEnd(span, RangeEnd(span, r)) - r * RangeKeys(span);
    return rows * width();
  }
  int64_t ShareFloats(const AttentionSpan& span) const { return ShareOffset(span, Ranges(span)); }

  ThreadScratch<T> Lay(Pieces* pieces) const {
    ThreadScratch<T> s;
    s.score = pieces->Take<float>(kQueryTile * kPanelRows);
    s.dp = pieces->Take<float>(kQueryTile * kPanelRows);
    if constexpr (std::is_same_v<T, float>) {
      s.p = s.score;
      s.ds = s.dp;
    } else {
      s.p = pieces->Take<T>(kQueryTile * kPanelRows);
      s.ds = pieces->Take<T>(kQueryTile * kPanelRows);
    }
    s.keys = pieces->Take<T>(PanelElements(D_));
    s.values = pieces->Take<T>(PanelElements(D_));
    s.keys_by_cols = pieces->Take<T>(CeilDiv(D_, kPanelRows) * PanelElements(kPanelRows));
    s.p_panel = pieces->Take<T>(PanelElements(kQueryTile));
    s.ds_panel = pieces->Take<T>(PanelElements(kQueryTile));
    s.dk = pieces->Take<float>(D_ * kPanelRows);
    s.dv = pieces->Take<float>(D_ * kPanelRows);
    return s;
  }

  bool Prepare(int64_t task) const;
  void PrepareHead(const AttentionSpan& span, int64_t head, const Head<T>& at) const;
  bool Range(int64_t task, const ThreadScratch<T>& scratch) const;
  // Row i of dq is that of query i of the span.
  struct QueryGradients {
    float* dq;
    int64_t ld, step;
  };
  void ClearUnset(const AttentionSpan& span, int64_t kv_head, int64_t begin, int64_t end,
                  const QueryGradients& to) const;
  void KeyBlock(const AttentionSpan& span, int64_t kv_head, int64_t key, std::byte* heads,
                const QueryGradients& to, bool first, const ThreadScratch<T>& s) const;
  void Tile(const AttentionSpan& span, int64_t head, int64_t key, int64_t query, int64_t rows,
            const Head<T>& at, const ThreadScratch<T>& s) const;
  void StoreKeys(const float* sums, int64_t keys, float* to, int64_t ld) const;
  bool Merge(int64_t task) const;
  void MergeRow(const AttentionSpan& span, int64_t query, const float* shares) const;

  const AttentionShape& shape_;
  std::span<const AttentionSpan> spans_;
  BackwardArguments<T> a_;
  int64_t D_;
  HeadSteps step_;
  int64_t group_;
  const PanelKernels<T>* panel_;
  const AttentionKernels<T>* kernels_;
  std::byte* heads_ = nullptr;
  float* shares_ = nullptr;
  std::byte* threads_begin_ = nullptr;
  size_t thread_bytes_ = 0, bytes_ = 0;
};

template <class T>
bool Backward<T>::Prepare(int64_t task) const {
  std::byte* heads = heads_;
  for (const AttentionSpan& span : spans_) {
    if (task < shape_.query_heads) {
      PrepareHead(span, task, HeadAt(span, heads, task));
      return true;
    }
    task -= shape_.query_heads;
    heads += shape_.query_heads * HeadBytes(span);
  }
  return false;
}

template <class T>
void Backward<T>::PrepareHead(const AttentionSpan& span, int64_t head, const Head<T>& at) const {
  const int64_t columns = PaddedQueries(span);
  // Several queries at once: their sums do not wait for each other.
  constexpr int64_t kQueries = 16;
  for (int64_t begin = 0; begin < span.q_count; begin += kQueries) {
    const int64_t count = std::min(kQueries, span.q_count - begin), row = span.q_begin + begin;
    const T* q = a_.q + row * a_.ldq + head * step_.q;
    const T* out = a_.out + row * a_.ldo + head * D_;
    const T* dout = a_.dout + row * a_.lddo + head * D_;
    float sum[kQueries] = {};
    for (int64_t d = 0; d < D_; ++d) {
      T* q_column = at.q_by_cols + d * columns + begin;
      T* dout_column = at.dout_by_cols + d * columns + begin;
      for (int64_t i = 0; i < count; ++i) {
        const T x = dout[i * a_.lddo + d];
        sum[i] += ToFloat(x) * ToFloat(out[i * a_.ldo + d]);
        q_column[i] = q[i * a_.ldq + d];
        dout_column[i] = x;
      }
    }
    for (int64_t i = 0; i < count; ++i) {
      at.delta[begin + i] = sum[i];
      at.lse2[begin + i] = a_.lse[(row + i) * shape_.query_heads + head] * std::numbers::log2e_v<float>;
    }
  }
  for (int64_t d = 0; d < D_; ++d) {
    at.q_by_cols[d * columns + span.q_count] = at.dout_by_cols[d * columns + span.q_count] = T{};
  }
}

template <class T>
bool Backward<T>::Range(int64_t task, const ThreadScratch<T>& scratch) const {
  std::byte* heads = heads_;
  float* shares = shares_;
  for (const AttentionSpan& span : spans_) {
    const int64_t tasks = Ranges(span) * shape_.kv_heads;
    if (task < tasks) {
      // The first range is seen by the most queries: long tasks first.
      const int64_t range = task / shape_.kv_heads, kv_head = task % shape_.kv_heads;
      const int64_t begin = range * RangeKeys(span), end = RangeEnd(span, range);
      float* dq =
          range == 0 ? a_.dq + span.q_begin * a_.lddq : shares + ShareOffset(span, range) - begin * width();
      const QueryGradients to{dq, range == 0 ? a_.lddq : width(), range == 0 ? step_.q : D_};
      ClearUnset(span, kv_head, begin, end, to);
      for (int64_t key = begin; key < end; key += kPanelRows) {
        KeyBlock(span, kv_head, key, heads, to, key == begin, scratch);
      }
      return true;
    }
    task -= tasks;
    heads += shape_.query_heads * HeadBytes(span);
    shares += ShareFloats(span);
  }
  return false;
}

// The first block of keys of a range sets the rows of the queries that see it; with a window later ones have
// nothing to add to.
template <class T>
void Backward<T>::ClearUnset(const AttentionSpan& span, int64_t kv_head, int64_t begin, int64_t end,
                             const QueryGradients& to) const {
  const int64_t set = QueryEnd(span, std::min(end, begin + kPanelRows));
  for (int64_t i = set; i < QueryEnd(span, end); ++i) {
    for (int64_t head = kv_head * group_; head < (kv_head + 1) * group_; ++head) {
      float* row = to.dq + i * to.ld + head * to.step;
      std::fill(row, row + D_, 0.0f);
    }
  }
}

template <class T>
void Backward<T>::KeyBlock(const AttentionSpan& span, int64_t kv_head, int64_t key, std::byte* heads,
                           const QueryGradients& to, bool first, const ThreadScratch<T>& s) const {
  const int64_t keys = std::min(kPanelRows, span.kv_count - key), row = span.kv_begin + key,
                column = kv_head * step_.kv, query_end = QueryEnd(span, key + keys);
  const T* k = a_.k + row * a_.ldk + column;
  panel_->pack_rows(k, a_.ldk, keys, D_, s.keys);
  panel_->pack_rows(a_.v + row * a_.ldv + column, a_.ldv, keys, D_, s.values);
  for (int64_t d = 0; d < D_; d += kPanelRows) {
    panel_->pack_cols(k + d, a_.ldk, keys, std::min(kPanelRows, D_ - d), s.keys_by_cols + d * kPanelRows);
  }
  std::fill(s.dk, s.dk + D_ * kPanelRows, 0.0f);
  std::fill(s.dv, s.dv + D_ * kPanelRows, 0.0f);
  for (int64_t head = kv_head * group_; head < (kv_head + 1) * group_; ++head) {
    for (int64_t query = key; query < query_end; query += kQueryTile) {
      const int64_t rows = std::min(kQueryTile, query_end - query);
      Tile(span, head, key, query, rows, HeadAt(span, heads, head), s);
      for (int64_t d = 0; d < D_; d += kPanelRows) {
        panel_->multiply(s.ds, kPanelRows, rows, s.keys_by_cols + d * kPanelRows, keys,
                         std::min(kPanelRows, D_ - d), !first, to.dq + query * to.ld + head * to.step + d,
                         to.ld);
      }
    }
  }
  StoreKeys(s.dk, keys, a_.dk + row * a_.lddk + column, a_.lddk);
  StoreKeys(s.dv, keys, a_.dv + row * a_.lddv + column, a_.lddv);
}

// Leaves ds in s.ds and adds the tile to the transposed dk and dv.
template <class T>
void Backward<T>::Tile(const AttentionSpan& span, int64_t head, int64_t key, int64_t query, int64_t rows,
                       const Head<T>& at, const ThreadScratch<T>& s) const {
  const int64_t columns = PaddedQueries(span), row = span.q_begin + query;
  panel_->multiply(a_.q + row * a_.ldq + head * step_.q, a_.ldq, rows, s.keys, D_, kPanelRows, false, s.score,
                   kPanelRows);
  panel_->multiply(a_.dout + row * a_.lddo + head * D_, a_.lddo, rows, s.values, D_, kPanelRows, false, s.dp,
                   kPanelRows);
  AttentionGradTile<T> tile;
  tile.score = s.score;
  tile.dp = s.dp;
  tile.p = s.p;
  tile.ds = s.ds;
  tile.ld = tile.width = kPanelRows;
  tile.rows = rows;
  tile.visible = query - key + 1;
  if (shape_.window > 0) tile.hidden = tile.visible - shape_.window;
  tile.cap = CapOf(shape_);
  tile.score_scale = shape_.scale * std::numbers::log2e_v<float>;
  tile.scale = shape_.scale;
  tile.lse2 = at.lse2 + query;
  tile.delta = at.delta + query;
  kernels_->grad_tile(tile);
  panel_->pack_cols(s.p, kPanelRows, rows, kPanelRows, s.p_panel);
  panel_->pack_cols(s.ds, kPanelRows, rows, kPanelRows, s.ds_panel);
  panel_->multiply(at.dout_by_cols + query, columns, D_, s.p_panel, rows, kPanelRows, true, s.dv, kPanelRows);
  panel_->multiply(at.q_by_cols + query, columns, D_, s.ds_panel, rows, kPanelRows, true, s.dk, kPanelRows);
}

// to[j,:] = column j of sums (D, 64).
template <class T>
void Backward<T>::StoreKeys(const float* sums, int64_t keys, float* to, int64_t ld) const {
  for (int64_t j = 0; j < keys; ++j) {
    for (int64_t d = 0; d < D_; ++d) to[j * ld + d] = sums[d * kPanelRows + j];
  }
}

// Adds the shares of the later ranges to one row of dq, which range 0 has set where it reaches.
template <class T>
void Backward<T>::MergeRow(const AttentionSpan& span, int64_t query, const float* shares) const {
  bool set = query < QueryEnd(span, RangeEnd(span, 0));
  for (int64_t r = 1; r < Ranges(span) && r * RangeKeys(span) <= query; ++r) {
    if (query >= QueryEnd(span, RangeEnd(span, r))) continue;
    const float* share = shares + ShareOffset(span, r) + (query - r * RangeKeys(span)) * width();
    for (int64_t head = 0; head < shape_.query_heads; ++head, share += D_) {
      float* dq = a_.dq + (span.q_begin + query) * a_.lddq + head * step_.q;
      for (int64_t d = 0; d < D_; ++d) dq[d] = set ? dq[d] + share[d] : share[d];
    }
    set = true;
  }
}

template <class T>
bool Backward<T>::Merge(int64_t task) const {
  const float* shares = shares_;
  for (const AttentionSpan& span : spans_) {
    if (task < span.q_count) {
      MergeRow(span, task, shares);
      return true;
    }
    task -= span.q_count;
    shares += ShareFloats(span);
  }
  return false;
}

}  // namespace

template <class T>
void AttentionBackward(const Context& context, const AttentionShape& shape,
                       std::span<const AttentionSpan> spans, const T* q, int64_t ldq, const T* k, int64_t ldk,
                       const T* v, int64_t ldv, const T* out, int64_t ldo, const T* dout, int64_t lddo,
                       const float* lse, float* dq, int64_t lddq, float* dk, int64_t lddk, float* dv,
                       int64_t lddv, std::byte* scratch) {
  const BackwardArguments<T> arguments{q,   k,    v,  out, dout, lse,  ldq,  ldk, ldv,
                                       ldo, lddo, dq, dk,  dv,   lddq, lddk, lddv};
  Backward<T>(context, shape, spans, arguments, scratch).Run(context.threads);
}

size_t AttentionBackwardScratch(const Context& context, const AttentionShape& shape,
                                std::span<const AttentionSpan> spans, size_t element_size) {
  if (element_size == sizeof(Bf16)) return Backward<Bf16>(context, shape, spans, {}, nullptr).bytes();
  return Backward<float>(context, shape, spans, {}, nullptr).bytes();
}

#define RUNG_BACKWARD(T)                                                                                 \
  template void AttentionBackward(const Context&, const AttentionShape&, std::span<const AttentionSpan>, \
                                  const T*, int64_t, const T*, int64_t, const T*, int64_t, const T*,     \
                                  int64_t, const T*, int64_t, const float*, float*, int64_t, float*,     \
                                  int64_t, float*, int64_t, std::byte*);
RUNG_BACKWARD(float)
RUNG_BACKWARD(Bf16)
#undef RUNG_BACKWARD

}  // namespace rung::cpu
