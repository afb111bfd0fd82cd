#include "kernels/cpu/attention.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <type_traits>

#include "base/threads.h"
#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/attention_tasks.h"
#include "kernels/cpu/panel.h"
#include "kernels/cpu/pieces.h"

namespace rung::cpu {
namespace {

// 96 x 256: scores (96 KiB), weights, sums and the panels of 256 keys stay together in a 1 MiB L2 cache, and
// 96 is a multiple of the micro-kernels' 6 rows.
constexpr int64_t kQueryBlock = 96, kKeyBlock = 256;
// Up to this many queries, reading each key once costs less than packing the keys.
constexpr int64_t kDirectQueries = 8;
// Fixed, so that sums do not depend on the thread count; short enough to share one sequence among threads. A
// task takes the same keys of a few heads, which lie side by side in the cache.
constexpr int64_t kDirectKeys = 128, kDirectHeads = 4;

bool IsDirect(const AttentionSpan& span) { return span.q_count <= kDirectQueries; }

template <class T>
struct ForwardArguments {
  const T *q, *k, *v;
  int64_t ldq, ldk, ldv;
  T* out;
  int64_t ldo;
  float* lse;
};

// The scratch of one thread.
template <class T>
struct ThreadScratch {
  // Block path
  float* score = nullptr;  // (kQueryBlock, kKeyBlock)
  T* p = nullptr;          // the same; score itself when T is float
  float* acc = nullptr;    // (kQueryBlock, D)
  float* max = nullptr;
  float* sum = nullptr;
  T* tail = nullptr;  // (64, D): the last values, padded with zero rows
  // Direct path, rows = q_count * group
  float* q = nullptr;             // (rows, D)
  float* direct_score = nullptr;  // (rows, kDirectKeys)
};

// The work is four lists of tasks. Pack and Direct come first, Block and Merge after a barrier.
template <class T>
class Forward {
 public:
  Forward(const Context& context, const AttentionShape& shape, std::span<const AttentionSpan> spans,
          const ForwardArguments<T>& arguments, std::byte* scratch)
      : shape_(shape),
        spans_(spans),
        a_(arguments),
        D_(shape.head_dim),
        step_(shape),
        group_(shape.query_heads / shape.kv_heads) {
    panel_ = PanelFor<T>(context.isa);
    kernels_ = AttentionFor<T>(context.isa);
    Pieces pieces(scratch);
    int64_t panels = 0, partials = 0;
    for (const AttentionSpan& span : spans) {
      if (IsDirect(span)) {
        direct_rows_ = std::max(direct_rows_, span.q_count * group_);
        partials += Chunks(span) * shape.kv_heads * PartialFloats(span);
      } else {
        has_blocks_ = true;
        panels += MostBlocks(span) * shape.kv_heads * PanelsElements();
      }
    }
    panels_ = pieces.Take<T>(panels);
    partials_ = pieces.Take<float>(partials);
    threads_begin_ = scratch ? scratch + pieces.used() : nullptr;
    Pieces one(nullptr);
    Lay(&one);
    thread_bytes_ = one.used();
    bytes_ = pieces.used() + thread_bytes_ * static_cast<size_t>(context.threads);
  }

  size_t bytes() const { return bytes_; }

  void Run(int threads) {
    TaskCounter pack, direct, block, merge;
    OnEachThread(threads, [&](int thread) {
      Pieces pieces(threads_begin_ + thread_bytes_ * static_cast<size_t>(thread));
      const ThreadScratch<T> scratch = Lay(&pieces);
      while (Pack(pack.Next(), scratch)) {
      }
      while (Direct(direct.Next(), scratch)) {
      }
      Barrier(threads);
      while (Block(block.Next(), scratch)) {
      }
      while (Merge(merge.Next())) {
      }
    });
  }

 private:
  // Panels of 64 keys of one head: keys by rows, then values by columns in groups of 64.
  int64_t ValueGroups() const { return CeilDiv(D_, kPanelRows); }
  int64_t PanelsElements() const { return PanelElements(D_) + ValueGroups() * PanelElements(kPanelRows); }

  // The first key that any query of the span sees, and its block of 64.
  int64_t First(const AttentionSpan& span) const { return FirstKey(shape_, span.kv_count - span.q_count); }
  int64_t FirstBlock(const AttentionSpan& span) const { return First(span) / kPanelRows; }
  int64_t Blocks(const AttentionSpan& span) const {
    return CeilDiv(span.kv_count, kPanelRows) - FirstBlock(span);
  }
  // Of the spans with these queries and up to so many keys: seen keys may begin and end anywhere in a block.
  int64_t MostBlocks(const AttentionSpan& span) const {
    const int64_t seen = span.kv_count - First(span);
    return std::min(CeilDiv(span.kv_count, kPanelRows), CeilDiv(seen - 1, kPanelRows) + 1);
  }
  int64_t Chunks(const AttentionSpan& span) const {
    return CeilDiv(span.kv_count - First(span), kDirectKeys);
  }
  // What one chunk of keys leaves for Merge: max, sum and weighted values of each row.
  int64_t PartialFloats(const AttentionSpan& span) const {
    return RoundUp(span.q_count * group_ * (D_ + 2), static_cast<int64_t>(kPieceAlignment / sizeof(float)));
  }

  ThreadScratch<T> Lay(Pieces* pieces) const {
    ThreadScratch<T> s;
    if (has_blocks_) {
      s.score = pieces->template Take<float>(kQueryBlock * kKeyBlock);
      if constexpr (std::is_same_v<T, float>) {
        s.p = s.score;
      } else {
        s.p = pieces->template Take<T>(kQueryBlock * kKeyBlock);
      }
      s.acc = pieces->template Take<float>(kQueryBlock * D_);
      s.max = pieces->template Take<float>(kQueryBlock);
      s.sum = pieces->template Take<float>(kQueryBlock);
      s.tail = pieces->template Take<T>(kPanelRows * D_);
    }
    if (direct_rows_ > 0) {
      s.q = pieces->template Take<float>(direct_rows_ * D_);
      s.direct_score = pieces->template Take<float>(direct_rows_ * kDirectKeys);
    }
    return s;
  }

  // Those of `rows` queries, the first at position `first`, that see anything of the 64 keys from `key` on.
  struct Seeing {
    int64_t begin, end;
  };
  Seeing SeeingOf(int64_t key, int64_t first, int64_t rows) const {
    Seeing seeing{std::max<int64_t>(0, key - first), rows};
    if (shape_.window > 0) seeing.end = std::min(rows, key + kPanelRows - 1 + shape_.window - first);
    return seeing;
  }
  // `visible`: the keys from column 0 on up to the first query's own.
  template <class P>
  SoftmaxBlock<P> Softmax(int64_t visible) const {
    SoftmaxBlock<P> softmax;
    softmax.visible = visible;
    if (shape_.window > 0) softmax.hidden = visible - shape_.window;
    softmax.step = 1;
    softmax.cap = cap_;
    softmax.scale = shape_.scale * std::numbers::log2e_v<float>;
    return softmax;
  }

  bool Pack(int64_t task, const ThreadScratch<T>& scratch) const;
  bool Direct(int64_t task, const ThreadScratch<T>& scratch) const;
  bool Block(int64_t task, const ThreadScratch<T>& scratch) const;
  bool Merge(int64_t task) const;
  void PackBlock(const AttentionSpan& span, int64_t head, int64_t block, const ThreadScratch<T>& s,
                 T* panel) const;
  void QueryBlock(const AttentionSpan& span, int64_t head, int64_t block, const T* panels,
                  const ThreadScratch<T>& s) const;
  void AddValues(const ThreadScratch<T>& s, int64_t rows, int64_t first, int64_t key, bool set,
                 int64_t blocks, const T* panels) const;
  void DirectChunk(const AttentionSpan& span, int64_t head, int64_t chunk, bool is_first, bool has_next,
                   float* partial, const ThreadScratch<T>& s) const;
  void MergeRow(const AttentionSpan& span, int64_t query, int64_t head, const float* partials) const;

  const AttentionShape& shape_;
  std::span<const AttentionSpan> spans_;
  ForwardArguments<T> a_;
  int64_t D_;
  HeadSteps step_;
  int64_t group_;
  float cap_ = CapOf(shape_);
  const PanelKernels<T>* panel_;
  const AttentionKernels<T>* kernels_;
  bool has_blocks_ = false;
  int64_t direct_rows_ = 0;
  T* panels_ = nullptr;
  float* partials_ = nullptr;
  std::byte* threads_begin_ = nullptr;
  size_t thread_bytes_ = 0, bytes_ = 0;
};

template <class T>
bool Forward<T>::Pack(int64_t task, const ThreadScratch<T>& scratch) const {
  T* panel = panels_;
  for (const AttentionSpan& span : spans_) {
    if (IsDirect(span)) continue;
    const int64_t blocks = Blocks(span), tasks = blocks * shape_.kv_heads;
    if (task < tasks) {
      PackBlock(span, task / blocks, FirstBlock(span) + task % blocks, scratch,
                panel + task * PanelsElements());
      return true;
    }
    task -= tasks;
    panel += tasks * PanelsElements();
  }
  return false;
}

template <class T>
void Forward<T>::PackBlock(const AttentionSpan& span, int64_t head, int64_t block, const ThreadScratch<T>& s,
                           T* panel) const {
  const int64_t keys = std::min(kPanelRows, span.kv_count - block * kPanelRows);
  const int64_t row = span.kv_begin + block * kPanelRows;
  panel_->pack_rows(a_.k + row * a_.ldk + head * step_.kv, a_.ldk, keys, D_, panel);
  const T* values = a_.v + row * a_.ldv + head * step_.kv;
  int64_t ld = a_.ldv;
  if (keys < kPanelRows) {  // value panels are 64 keys deep: a weight of 0 must meet a number
    for (int64_t j = 0; j < kPanelRows; ++j) {
      for (int64_t d = 0; d < D_; ++d) s.tail[j * D_ + d] = j < keys ? values[j * ld + d] : T{};
    }
    values = s.tail;
    ld = D_;
  }
  T* to = panel + PanelElements(D_);
  for (int64_t d = 0; d < D_; d += kPanelRows, to += PanelElements(kPanelRows)) {
    panel_->pack_cols(values + d, ld, kPanelRows, std::min(kPanelRows, D_ - d), to);
  }
}

template <class T>
bool Forward<T>::Block(int64_t task, const ThreadScratch<T>& scratch) const {
  const T* panels = panels_;
  for (const AttentionSpan& span : spans_) {
    if (IsDirect(span)) continue;
    const int64_t blocks = CeilDiv(span.q_count, kQueryBlock), tasks = blocks * shape_.query_heads;
    const int64_t head_elements = Blocks(span) * PanelsElements();
    if (task < tasks) {
      // The last block sees the most keys: long tasks first.
      const int64_t head = task % shape_.query_heads;
      QueryBlock(span, head, blocks - 1 - task / shape_.query_heads, panels + head / group_ * head_elements,
                 scratch);
      return true;
    }
    task -= tasks;
    panels += shape_.kv_heads * head_elements;
  }
  return false;
}

template <class T>
void Forward<T>::QueryBlock(const AttentionSpan& span, int64_t head, int64_t block, const T* panels,
                            const ThreadScratch<T>& s) const {
  const int64_t begin = block * kQueryBlock, rows = std::min(kQueryBlock, span.q_count - begin);
  const int64_t first = span.kv_count - span.q_count + begin;  // position of the first query
  const int64_t row = span.q_begin + begin;
  const T* q = a_.q + row * a_.ldq + head * step_.q;
  std::fill(s.max, s.max + rows, kNoScore);
  std::fill(s.sum, s.sum + rows, 0.0f);
  const int64_t first_key = FirstKey(shape_, first) / kPanelRows * kPanelRows;
  panels -= FirstBlock(span) * PanelsElements();
  for (int64_t key = first_key; key < first + rows; key += kKeyBlock) {
    const int64_t blocks = CeilDiv(std::min(kKeyBlock, first + rows - key), kPanelRows);
    for (int64_t b = 0; b < blocks; ++b) {
      const Seeing seeing = SeeingOf(key + b * kPanelRows, first, rows);
      panel_->multiply(q + seeing.begin * a_.ldq, a_.ldq, seeing.end - seeing.begin,
                       panels + (key / kPanelRows + b) * PanelsElements(), D_, kPanelRows, false,
                       s.score + seeing.begin * kKeyBlock + b * kPanelRows, kKeyBlock);
    }
    SoftmaxBlock<T> softmax = Softmax<T>(first + 1 - key);
    softmax.score = s.score;
    softmax.p = s.p;
    softmax.ld_score = softmax.ldp = kKeyBlock;
    softmax.rows = rows;
    softmax.width = blocks * kPanelRows;
    softmax.max = s.max;
    softmax.sum = s.sum;
    softmax.acc = s.acc;
    softmax.ld_acc = softmax.acc_cols = D_;
    kernels_->soften(softmax);
    AddValues(s, rows, first, key, key == first_key, blocks, panels);
  }
  kernels_->normalize(s.acc, D_, s.sum, rows, D_, a_.out + row * a_.ldo + head * D_, a_.ldo);
  if (!a_.lse) return;
  for (int64_t i = 0; i < rows; ++i) {
    a_.lse[(row + i) * shape_.query_heads + head] =
        CapScore(s.max[i], cap_) * shape_.scale + std::log(s.sum[i]);
  }
}

// acc (+)= p V over the blocks of 64 keys from `key` on; panels that of key 0.
template <class T>
void Forward<T>::AddValues(const ThreadScratch<T>& s, int64_t rows, int64_t first, int64_t key, bool set,
                           int64_t blocks, const T* panels) const {
  // The first block sets the rows that see it, which are the first ones.
  for (int64_t i = set ? SeeingOf(key, first, rows).end : rows; i < rows; ++i) {
    std::fill(s.acc + i * D_, s.acc + (i + 1) * D_, 0.0f);
  }
  for (int64_t g = 0; g < ValueGroups(); ++g) {
    const int64_t d = g * kPanelRows, cols = std::min(kPanelRows, D_ - d);
    for (int64_t b = 0; b < blocks; ++b) {
      const Seeing seeing = SeeingOf(key + b * kPanelRows, first, rows);
      const T* panel = panels + (key / kPanelRows + b) * PanelsElements() + PanelElements(D_) +
                       g * PanelElements(kPanelRows);
      panel_->multiply(s.p + seeing.begin * kKeyBlock + b * kPanelRows, kKeyBlock, seeing.end - seeing.begin,
                       panel, kPanelRows, cols, !set || b > 0, s.acc + seeing.begin * D_ + d, D_);
    }
  }
}

template <class T>
bool Forward<T>::Direct(int64_t task, const ThreadScratch<T>& scratch) const {
  float* partials = partials_;
  for (const AttentionSpan& span : spans_) {
    if (!IsDirect(span) || span.q_count == 0) continue;
    const int64_t chunks = Chunks(span), groups = CeilDiv(shape_.kv_heads, kDirectHeads);
    if (task < chunks * groups) {
      const int64_t chunk = task / groups, head = task % groups * kDirectHeads;
      const int64_t end = std::min(shape_.kv_heads, head + kDirectHeads);
      for (int64_t h = head; h < end; ++h) {
        float* partial = partials + (h * chunks + chunk) * PartialFloats(span);
        DirectChunk(span, h, chunk, h == head, h + 1 < end, partial, scratch);
      }
      return true;
    }
    task -= chunks * groups;
    partials += chunks * shape_.kv_heads * PartialFloats(span);
  }
  return false;
}

// Row g * q_count + i of the partial is query i of head `head * group + g`. A head's keys and values lie too
// far apart for the processor to foresee: each step fetches what the next one reads, the last that of the
// next head.
template <class T>
void Forward<T>::DirectChunk(const AttentionSpan& span, int64_t head, int64_t chunk, bool is_first,
                             bool has_next, float* partial, const ThreadScratch<T>& s) const {
  const int64_t rows = span.q_count * group_, key = First(span) + chunk * kDirectKeys;
  const int64_t keys = std::min(kDirectKeys, span.kv_count - key), row = span.kv_begin + key;
  const T *k = a_.k + row * a_.ldk + head * step_.kv, *v = a_.v + row * a_.ldv + head * step_.kv;
  if (is_first) {
    constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
    for (int64_t j = 0; j < keys; ++j) {
      for (int64_t d = 0; d < D_; d += kLine) __builtin_prefetch(k + j * a_.ldk + d);
    }
  }
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t g = r / span.q_count, i = r % span.q_count;
    const T* q = a_.q + (span.q_begin + i) * a_.ldq + (head * group_ + g) * step_.q;
    for (int64_t d = 0; d < D_; ++d) s.q[r * D_ + d] = ToFloat(q[d]);
    std::fill(s.direct_score + r * kDirectKeys + keys, s.direct_score + r * kDirectKeys + RoundUp(keys, 16),
              0.0f);
  }
  float *max = partial, *sum = partial + rows, *values = partial + 2 * rows;
  std::fill(max, max + rows, kNoScore);
  std::fill(sum, sum + rows, 0.0f);
  kernels_->scores(s.q, rows, k, a_.ldk, keys, D_, s.direct_score, kDirectKeys, v, a_.ldv);
  SoftmaxBlock<float> softmax = Softmax<float>(span.kv_count - span.q_count + 1 - key);
  softmax.ld_score = softmax.ldp = kDirectKeys;
  softmax.rows = span.q_count;
  softmax.width = keys;
  for (int64_t g = 0; g < group_; ++g) {
    softmax.score = softmax.p = s.direct_score + g * span.q_count * kDirectKeys;
    softmax.max = max + g * span.q_count;
    softmax.sum = sum + g * span.q_count;
    kernels_->soften_f32(softmax);
  }
  kernels_->values(s.direct_score, kDirectKeys, rows, v, a_.ldv, keys, D_, values,
                   has_next ? k + step_.kv : nullptr, a_.ldk);
}

template <class T>
bool Forward<T>::Merge(int64_t task) const {
  const float* partials = partials_;
  for (const AttentionSpan& span : spans_) {
    if (!IsDirect(span)) continue;
    const int64_t tasks = span.q_count * shape_.query_heads;
    if (task < tasks) {
      MergeRow(span, task % span.q_count, task / span.q_count, partials);
      return true;
    }
    task -= tasks;
    partials += Chunks(span) * shape_.kv_heads * PartialFloats(span);
  }
  return false;
}

template <class T>
void Forward<T>::MergeRow(const AttentionSpan& span, int64_t query, int64_t head,
                          const float* partials) const {
  const int64_t rows = span.q_count * group_, chunks = Chunks(span), stride = PartialFloats(span);
  const int64_t r = head % group_ * span.q_count + query;
  const float* begin = partials + head / group_ * chunks * stride;
  float top = kNoScore, sum = 0.0f;
  for (int64_t c = 0; c < chunks; ++c) top = std::max(top, begin[c * stride + r]);
  const float value = CapScore(top, cap_);
  const float scale = shape_.scale * std::numbers::log2e_v<float>;
  // A chunk without a key for this query has sum 0 and values 0.
  const auto weight = [&](int64_t c) {
    return std::exp2((CapScore(begin[c * stride + r], cap_) - value) * scale);
  };
  T* out = a_.out + (span.q_begin + query) * a_.ldo + head * D_;
  for (int64_t d0 = 0; d0 < D_; d0 += kPanelRows) {
    float total[kPanelRows] = {};
    const int64_t n = std::min(kPanelRows, D_ - d0);
    for (int64_t c = 0; c < chunks; ++c) {
      const float w = weight(c);
      if (d0 == 0) sum += w * begin[c * stride + rows + r];
      const float* values = begin + c * stride + 2 * rows + r * D_ + d0;
      for (int64_t d = 0; d < n; ++d) total[d] += w * values[d];
    }
    for (int64_t d = 0; d < n; ++d) {
      if constexpr (std::is_same_v<T, float>) {
        out[d0 + d] = total[d] / sum;
      } else {
        out[d0 + d] = ToBf16(total[d] / sum);
      }
    }
  }
  if (a_.lse)
    a_.lse[(span.q_begin + query) * shape_.query_heads + head] = value * shape_.scale + std::log(sum);
}

}  // namespace

template <class T>
void AttentionForward(const Context& context, const AttentionShape& shape,
                      std::span<const AttentionSpan> spans, const T* q, int64_t ldq, const T* k, int64_t ldk,
                      const T* v, int64_t ldv, T* out, int64_t ldo, float* lse, std::byte* scratch) {
  const ForwardArguments<T> arguments{q, k, v, ldq, ldk, ldv, out, ldo, lse};
  Forward<T>(context, shape, spans, arguments, scratch).Run(context.threads);
}

template void AttentionForward<float>(const Context&, const AttentionShape&, std::span<const AttentionSpan>,
                                      const float*, int64_t, const float*, int64_t, const float*, int64_t,
                                      float*, int64_t, float*, std::byte*);
template void AttentionForward<Bf16>(const Context&, const AttentionShape&, std::span<const AttentionSpan>,
                                     const Bf16*, int64_t, const Bf16*, int64_t, const Bf16*, int64_t, Bf16*,
                                     int64_t, float*, std::byte*);

size_t AttentionForwardScratch(const Context& context, const AttentionShape& shape,
                               std::span<const AttentionSpan> spans, size_t element_size) {
  if (element_size == sizeof(float)) return Forward<float>(context, shape, spans, {}, nullptr).bytes();
  return Forward<Bf16>(context, shape, spans, {}, nullptr).bytes();
}

}  // namespace rung::cpu
