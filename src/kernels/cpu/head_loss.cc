#include "kernels/cpu/head_loss.h"

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

// 256 rows amortise the decoding of a chunk to a few percent; their gradient (256, C) and a chunk of 512 rows
// of the head fit the caches beside the scores.
constexpr int64_t kRowBlock = 256, kChunk = 512;

// What one thread holds for a block of rows.
template <class T>
struct Partial {
  T* dense = nullptr;       // (kChunk, C), with gradient
  T* panels = nullptr;      // kChunk rows as panels of depth C
  T* by_cols = nullptr;     // C columns as panels of depth kChunk, with gradient
  float* score = nullptr;   // (rows, kChunk)
  T* p = nullptr;           // the same; score itself when T is float
  float* acc = nullptr;     // (rows, C), with gradient: sum of p W
  float* max = nullptr;     // (rows)
  float* sum = nullptr;     // (rows)
  int32_t* best = nullptr;  // (rows)
  T* target_row = nullptr;  // (C), with gradient
};

template <class T>
class Loss {
 public:
  Loss(const Context& context, int64_t M, int64_t C, float cap, bool with_gradient, std::byte* scratch)
      : threads_(context.threads),
        rows_(std::min(M, kRowBlock)),
        C_(C),
        cap_(cap),
        with_gradient_(with_gradient) {
    panel_ = PanelFor<T>(context.isa);
    kernels_ = AttentionFor<T>(context.isa);
    Pieces pieces(scratch);
    target_score_ = pieces.Take<float>(rows_);
    begin_ = scratch ? scratch + pieces.used() : nullptr;
    Pieces one(nullptr);
    Lay(&one);
    thread_bytes_ = one.used();
    bytes_ = pieces.used() + thread_bytes_ * static_cast<size_t>(threads_);
  }

  size_t bytes() const { return bytes_; }

  void Run(const T* x, int64_t ldx, int64_t M, const format::Matrix& head, const int32_t* target, float* loss,
           float* dx, int64_t lddx, int32_t* best) const {
    OnEachThread(threads_, [&](int thread) {
      const Partial<T> mine = PartialOf(thread);
      const Share share = ShareOf(head.rows, thread, threads_, kPanelRows);
      for (int64_t m = 0; m < M; m += kRowBlock) {
        const int64_t rows = std::min(kRowBlock, M - m);
        std::fill(mine.max, mine.max + rows, kNoScore);
        std::fill(mine.sum, mine.sum + rows, 0.0f);
        for (int64_t v = share.begin; v < share.end; v += kChunk) {
          Chunk(x + m * ldx, ldx, rows, head, v, std::min(kChunk, share.end - v), target + m,
                v == share.begin, best != nullptr, mine);
        }
        Barrier(threads_);
        const Share merge = ShareOf(rows, thread, threads_);
        for (int64_t i = merge.begin; i < merge.end; ++i) {
          Merge(i, head, target[m + i], loss + m + i, dx ? dx + (m + i) * lddx : nullptr,
                best ? best + m + i : nullptr, mine.target_row);
        }
        Barrier(threads_);
      }
    });
  }

 private:
  Partial<T> Lay(Pieces* pieces) const {
    Partial<T> s;
    const int64_t groups = CeilDiv(C_, kPanelRows);
    s.panels = pieces->template Take<T>(kChunk / kPanelRows * PanelElements(C_));
    s.score = pieces->template Take<float>(rows_ * kChunk);
    if constexpr (std::is_same_v<T, float>) {
      s.p = s.score;
    } else {
      s.p = pieces->template Take<T>(rows_ * kChunk);
    }
    s.max = pieces->template Take<float>(rows_);
    s.sum = pieces->template Take<float>(rows_);
    s.best = pieces->template Take<int32_t>(rows_);
    if (with_gradient_) {
      s.dense = pieces->template Take<T>(kChunk * C_);
      s.by_cols = pieces->template Take<T>(groups * PanelElements(kChunk));
      s.acc = pieces->template Take<float>(rows_ * C_);
      s.target_row = pieces->template Take<T>(C_);
    }
    return s;
  }
  Partial<T> PartialOf(int thread) const {
    Pieces pieces(begin_ + thread_bytes_ * static_cast<size_t>(thread));
    return Lay(&pieces);
  }

  void Decode(const format::Matrix& head, int64_t v, int64_t entries, const Partial<T>& s) const;
  void Chunk(const T* x, int64_t ldx, int64_t rows, const format::Matrix& head, int64_t v, int64_t entries,
             const int32_t* target, bool first, bool with_best, const Partial<T>& s) const;
  void Merge(int64_t row, const format::Matrix& head, int32_t target, float* loss, float* dx, int32_t* best,
             T* target_row) const;

  int threads_;
  int64_t rows_, C_;
  float cap_;
  bool with_gradient_;
  const PanelKernels<T>* panel_;
  const AttentionKernels<T>* kernels_;
  float* target_score_ = nullptr;  // (rows), without cap
  std::byte* begin_ = nullptr;
  size_t thread_bytes_ = 0, bytes_ = 0;
};

// An even depth for the products with by_cols: Bf16 works in pairs.
constexpr int64_t Depth(int64_t entries) { return RoundUp(entries, 2); }

template <class T>
void Loss<T>::Decode(const format::Matrix& head, int64_t v, int64_t entries, const Partial<T>& s) const {
  for (int64_t r = 0; r < entries; r += kPanelRows) {
    const int64_t rows = std::min(kPanelRows, entries - r);
    T* panel = s.panels + r / kPanelRows * PanelElements(C_);
    if (with_gradient_) {
      panel_->decode_rows(head, v + r, rows, s.dense + r * C_, C_);
      panel_->pack_rows(s.dense + r * C_, C_, rows, C_, panel);
    } else {
      panel_->decode_panel(head, v + r, rows, panel);
    }
  }
  if (!with_gradient_) return;
  const int64_t depth = Depth(entries);
  if (depth > entries) std::fill(s.dense + entries * C_, s.dense + depth * C_, T{});
  for (int64_t c = 0; c < C_; c += kPanelRows) {
    panel_->pack_cols(s.dense + c, C_, depth, std::min(kPanelRows, C_ - c),
                      s.by_cols + c / kPanelRows * PanelElements(kChunk));
  }
}

// Takes entries [v, v + entries) of the vocabulary into the running maximum, sum and gradient of the rows.
template <class T>
void Loss<T>::Chunk(const T* x, int64_t ldx, int64_t rows, const format::Matrix& head, int64_t v,
                    int64_t entries, const int32_t* target, bool first, bool with_best,
                    const Partial<T>& s) const {
  Decode(head, v, entries, s);
  for (int64_t r = 0; r < entries; r += kPanelRows) {
    // All 64 columns: softmax reads initialised scores up to a multiple of 16.
    panel_->multiply(x, ldx, rows, s.panels + r / kPanelRows * PanelElements(C_), C_, kPanelRows, false,
                     s.score + r, kChunk);
  }
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t c = target[i] - v;
    if (c >= 0 && c < entries) target_score_[i] = s.score[i * kChunk + c];
  }
  SoftmaxBlock<T> softmax;
  softmax.score = s.score;
  softmax.p = s.p;
  softmax.ld_score = softmax.ldp = kChunk;
  softmax.rows = rows;
  softmax.width = Depth(entries);
  softmax.visible = entries;
  softmax.cap = cap_;
  softmax.slope = true;  // p goes into the gradient alone
  softmax.scale = std::numbers::log2e_v<float>;
  softmax.max = s.max;
  softmax.sum = s.sum;
  softmax.acc = s.acc;
  softmax.ld_acc = C_;
  softmax.acc_cols = with_gradient_ ? C_ : 0;
  softmax.best = with_best ? s.best : nullptr;
  softmax.first = static_cast<int32_t>(v);
  kernels_->soften(softmax);
  if (!with_gradient_) return;
  for (int64_t c = 0; c < C_; c += kPanelRows) {
    panel_->multiply(s.p, kChunk, rows, s.by_cols + c / kPanelRows * PanelElements(kChunk), Depth(entries),
                     std::min(kPanelRows, C_ - c), !first, s.acc + c, C_);
  }
}

template <class T>
void Loss<T>::Merge(int64_t row, const format::Matrix& head, int32_t target, float* loss, float* dx,
                    int32_t* best, T* target_row) const {
  float top = kNoScore, sum = 0.0f;
  if (best) *best = 0;
  for (int t = 0; t < threads_; ++t) {
    const Partial<T> part = PartialOf(t);
    if (part.max[row] > top) {  // shares are in order of the vocabulary: among equals the first stays
      top = part.max[row];
      if (best) *best = part.best[row];
    }
  }
  // Maxima are those of the scores without cap, which saturates: the best token stays apart from the next.
  const float value = CapScore(top, cap_), target_value = CapScore(target_score_[row], cap_);
  // A thread without a share has max kNoScore and sum 0, and acc that nobody wrote.
  for (int t = 0; t < threads_; ++t) {
    const Partial<T> part = PartialOf(t);
    sum += part.sum[row] * std::exp(CapScore(part.max[row], cap_) - value);
  }
  *loss = std::log(sum) + (value - target_value);
  if (!dx) return;
  panel_->decode_rows(head, target, 1, target_row, C_);
  const float ratio = cap_ > 0.0f ? target_value / cap_ : 0.0f, slope = 1.0f - ratio * ratio;
  for (int64_t c = 0; c < C_; ++c) dx[c] = -slope * ToFloat(target_row[c]);
  for (int t = 0; t < threads_; ++t) {
    const Partial<T> part = PartialOf(t);
    if (part.sum[row] == 0.0f) continue;
    const float weight = std::exp(CapScore(part.max[row], cap_) - value) / sum;
    const float* acc = part.acc + row * C_;
    for (int64_t c = 0; c < C_; ++c) dx[c] += weight * acc[c];
  }
}

}  // namespace

template <class T>
void HeadLoss(const Context& context, const T* x, int64_t ldx, int64_t M, const format::Matrix& head,
              float cap, const int32_t* target, float* loss, float* dx, int64_t lddx, int32_t* best,
              std::byte* scratch) {
  Loss<T>(context, M, head.cols, cap, dx != nullptr, scratch)
      .Run(x, ldx, M, head, target, loss, dx, lddx, best);
}

template void HeadLoss<float>(const Context&, const float*, int64_t, int64_t, const format::Matrix&, float,
                              const int32_t*, float*, float*, int64_t, int32_t*, std::byte*);
template void HeadLoss<Bf16>(const Context&, const Bf16*, int64_t, int64_t, const format::Matrix&, float,
                             const int32_t*, float*, float*, int64_t, int32_t*, std::byte*);

size_t HeadLossScratch(const Context& context, size_t element_size, int64_t M, int64_t C,
                       bool with_gradient) {
  if (element_size == sizeof(float)) return Loss<float>(context, M, C, 0.0f, with_gradient, nullptr).bytes();
  return Loss<Bf16>(context, M, C, 0.0f, with_gradient, nullptr).bytes();
}

}  // namespace rung::cpu
