// Bodies of the attention kernels as templates over a vector type (vec.h). Include only from
// attention_<isa>.cc.
#pragma once

#include <cstdint>

#include "kernels/cpu/attention_kernels.h"
#include "kernels/cpu/vec.h"

namespace rung::cpu {
namespace {

constexpr float kLargest = -kNoScore;
// Fields of lanes, open ones between closed ones; by Min for scores, by Mul for weights.
constexpr float kScoreMask[48] = {
    kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore,
    kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kLargest, kLargest, kLargest, kLargest,
    kLargest, kLargest, kLargest, kLargest, kLargest, kLargest, kLargest, kLargest, kLargest, kLargest,
    kLargest, kLargest, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore,
    kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore, kNoScore};
constexpr float kWeightMask[48] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
                                   1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};

// Keeps the first n lanes and closes the others.
template <class V>
V Mask(const float (&mask)[48], int64_t n) {
  return V::Load(mask + 32 - n);
}
// Closes the first n lanes, at most 16.
template <class V>
V MaskBefore(const float (&mask)[48], int64_t n) {
  return V::Load(mask + 16 - n);
}

inline int64_t Smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// dst = 0 on [begin, end).
template <class V, class T>
void Clear(T* dst, int64_t begin, int64_t end) {
  const V zero = V::Set(0.0f);
  int64_t c = begin;
  for (; c + V::kWidth <= end; c += V::kWidth) zero.Store(dst + c);
  if (c < end) zero.StorePart(dst + c, end - c);
}

// The columns [begin, end) of a row that it sees.
struct Seen {
  int64_t begin, end;
};

template <bool kWindow>
Seen SeenOf(int64_t hidden, int64_t visible, int64_t width) {
  Seen seen{0, Smaller(visible, width)};
  if (kWindow && hidden > 0) seen.begin = hidden;
  if (seen.end < seen.begin) seen.end = seen.begin = Smaller(seen.begin, width);
  return seen;
}

// Of a row that sees anything. Where it begins inside a vector, that one comes first, alone.
template <class V, bool kWindow>
float LargestOf(const float* score, Seen seen) {
  constexpr int64_t W = V::kWidth;
  V a = V::Set(kNoScore), b = a;
  int64_t c = 0;
  if (kWindow) {
    c = seen.begin / W * W;
    const V open =
        V::Min(MaskBefore<V>(kScoreMask, seen.begin - c), Mask<V>(kScoreMask, Smaller(seen.end - c, W)));
    a = V::Max(a, V::Min(open, V::Load(score + c)));
    c += W;
  }
  for (; c + 2 * W <= seen.end; c += 2 * W) {
    a = V::Max(a, V::Load(score + c));
    b = V::Max(b, V::Load(score + c + W));
  }
  for (; c < seen.end; c += W)
    a = V::Max(a, V::Min(Mask<V>(kScoreMask, Smaller(seen.end - c, W)), V::Load(score + c)));
  return V::Max(a, b).Largest();
}

// f(score) = cap * tanh(score / cap), and its slope 1 - tanh^2.
template <class V>
struct Cap {
  V cap, inverse;
  explicit Cap(float value) : cap(V::Set(value)), inverse(V::Set(1.0f / value)) {}
  V Value(V score) const { return V::Mul(cap, Tanh(V::Mul(score, inverse))); }
  V SlopeAt(V value) const {
    const V t = V::Mul(value, inverse);
    return V::Sub(V::Set(1.0f), V::Mul(t, t));
  }
};

// What turns a score into a weight, and a weight into what is stored.
template <class V, bool kCap>
struct Weigh {
  V scale, shift;
  Cap<V> cap;
  bool slope;

  V operator()(V score, V* stored) const {
    if constexpr (kCap) {
      const V value = cap.Value(score), e = Exp2(V::Fma(value, scale, shift));
      *stored = slope ? V::Mul(e, cap.SlopeAt(value)) : e;
      return e;
    }
    return *stored = Exp2(V::Fma(score, scale, shift));
  }
};

template <class V, class T>
void StoreFirst(V x, int64_t n, T* p) {
  if (n == V::kWidth) {
    x.Store(p);
  } else {
    x.StorePart(p, n);
  }
}

// p = the weights of the seen scores, from the vector on where they begin; returns their sum.
template <class V, class T, bool kWindow, bool kCap>
float Weights(const float* score, Seen seen, const Weigh<V, kCap>& weigh, T* p) {
  constexpr int64_t W = V::kWidth;
  V a = V::Set(0.0f), b = a, s0 = a, s1 = a;
  // Unseen scores may be large: closed before the power, so that it cannot overflow, and after it, for a
  // true 0.
  const auto masked = [&](int64_t c, V open, V keep) {
    const V e = weigh(V::Min(open, V::Load(score + c)), &s0);
    a = V::Add(a, V::Mul(e, keep));
    StoreFirst(V::Mul(s0, keep), Smaller(seen.end - c, W), p + c);
  };
  int64_t c = 0;
  if (kWindow) {
    c = seen.begin / W * W;
    const int64_t before = seen.begin - c, n = Smaller(seen.end - c, W);
    masked(c, V::Min(MaskBefore<V>(kScoreMask, before), Mask<V>(kScoreMask, n)),
           V::Mul(MaskBefore<V>(kWeightMask, before), Mask<V>(kWeightMask, n)));
    c += W;
  }
  for (; c + 2 * W <= seen.end; c += 2 * W) {
    a = V::Add(a, weigh(V::Load(score + c), &s0));
    b = V::Add(b, weigh(V::Load(score + c + W), &s1));
    s0.Store(p + c);
    s1.Store(p + c + W);
  }
  for (; c < seen.end; c += W) {
    const int64_t n = Smaller(seen.end - c, W);
    masked(c, Mask<V>(kScoreMask, n), Mask<V>(kWeightMask, n));
  }
  return V::Add(a, b).Sum();
}

template <class V>
void ScaleRow(V factor, int64_t n, float* row) {
  int64_t c = 0;
  for (; c + V::kWidth <= n; c += V::kWidth) V::Mul(V::Load(row + c), factor).Store(row + c);
  if (c < n) V::Mul(V::LoadPart(row + c, n - c), factor).StorePart(row + c, n - c);
}

template <class V, class T, bool kWindow, bool kCap>
void SoftenRows(const SoftmaxBlock<T>& b) {
  const Cap<V> cap(b.cap);
  const auto value = [&](float score) { return kCap ? cap.Value(V::Set(score)).Largest() : score; };
  for (int64_t i = 0; i < b.rows; ++i) {
    const Seen seen = SeenOf<kWindow>(b.hidden + i * b.step, b.visible + i * b.step, b.width);
    const float* score = b.score + i * b.ld_score;
    T* p = b.p + i * b.ldp;
    if (seen.end > seen.begin) {
      const float old = b.max[i], here = LargestOf<V, kWindow>(score, seen);
      const float top = here > old ? here : old;
      if (b.best && here > old) {
        int64_t c = seen.begin;
        while (c < seen.end - 1 && score[c] != here) ++c;
        b.best[i] = b.first + static_cast<int32_t>(c);
      }
      const Weigh<V, kCap> weigh{V::Set(b.scale), V::Set(-value(top) * b.scale), cap, b.slope};
      const float sum = Weights<V, T, kWindow, kCap>(score, seen, weigh, p);
      // With no score so far sum is 0, or NaN: scores that are not numbers leave no maximum.
      if (old == kNoScore || top == old) {
        b.sum[i] += sum;
      } else {
        const V shrink = Exp2(V::Set((value(old) - value(top)) * b.scale));
        b.sum[i] = b.sum[i] * shrink.Largest() + sum;
        if (b.acc) ScaleRow<V>(shrink, b.acc_cols, b.acc + i * b.ld_acc);
      }
      b.max[i] = top;
    }
    if (kWindow) Clear<V>(p, 0, seen.begin);
    Clear<V>(p, seen.end, b.width);
  }
}

template <class V, class T>
void Soften(const SoftmaxBlock<T>& b) {
  const bool windowed = b.hidden + (b.rows - 1) * b.step > 0;
  if (b.cap > 0.0f) return windowed ? SoftenRows<V, T, true, true>(b) : SoftenRows<V, T, false, true>(b);
  return windowed ? SoftenRows<V, T, true, false>(b) : SoftenRows<V, T, false, false>(b);
}

template <class V, class T>
void Normalize(const float* acc, int64_t ld_acc, const float* sum, int64_t rows, int64_t D, T* out,
               int64_t ldo) {
  for (int64_t i = 0; i < rows; ++i) {
    const V factor = V::Set(1.0f / sum[i]);
    const float* from = acc + i * ld_acc;
    T* to = out + i * ldo;
    int64_t d = 0;
    for (; d + V::kWidth <= D; d += V::kWidth) V::Mul(V::Load(from + d), factor).Store(to + d);
    if (d < D) V::Mul(V::LoadPart(from + d, D - d), factor).StorePart(to + d, D - d);
  }
}

// The next tile of rows when `left` remain: 3, or 2 where that avoids a single row.
inline int64_t RowsOfTile(int64_t left) { return left == 4 ? 2 : Smaller(left, 3); }

template <class T>
void Prefetch(const T* row, int64_t n) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t d = 0; d < n; d += kLine) __builtin_prefetch(row + d);
}

// score[r,j] = q[r,:] . k[j,:]: independent sums hide the latency of the multiply-adds.
template <class V, class T, int kRows, int kKeys>
void ScoresTile(const float* q, const T* k, int64_t ldk, int64_t D, float* score, int64_t ld_score) {
  V sum[kRows][kKeys];
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kKeys; ++j) sum[r][j] = V::Set(0.0f);
  }
  int64_t d = 0;
  for (; d + V::kWidth <= D; d += V::kWidth) {
    for (int j = 0; j < kKeys; ++j) {
      const V x = V::Load(k + j * ldk + d);
      for (int r = 0; r < kRows; ++r) sum[r][j] = V::Fma(V::Load(q + r * D + d), x, sum[r][j]);
    }
  }
  if (d < D) {
    for (int j = 0; j < kKeys; ++j) {
      const V x = V::LoadPart(k + j * ldk + d, D - d);
      for (int r = 0; r < kRows; ++r) sum[r][j] = V::Fma(V::LoadPart(q + r * D + d, D - d), x, sum[r][j]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int j = 0; j < kKeys; ++j) score[r * ld_score + j] = sum[r][j].Sum();
  }
}

template <class V, class T, int kKeys>
void ScoresOfKeys(const float* q, int64_t rows, const T* k, int64_t ldk, int64_t D, float* score,
                  int64_t ld_score) {
  for (int64_t r = 0, n = 0; r < rows; r += n) {
    n = RowsOfTile(rows - r);
    float* to = score + r * ld_score;
    if (n == 3) {
      ScoresTile<V, T, 3, kKeys>(q + r * D, k, ldk, D, to, ld_score);
    } else if (n == 2) {
      ScoresTile<V, T, 2, kKeys>(q + r * D, k, ldk, D, to, ld_score);
    } else {
      ScoresTile<V, T, 1, kKeys>(q + r * D, k, ldk, D, to, ld_score);
    }
  }
}

template <class V, class T>
void Scores(const float* q, int64_t rows, const T* k, int64_t ldk, int64_t keys, int64_t D, float* score,
            int64_t ld_score, const T* next, int64_t ld_next) {
  int64_t j = 0;
  for (; j + 4 <= keys; j += 4) {
    if (next) {
      for (int64_t i = j; i < j + 4; ++i) Prefetch(next + i * ld_next, D);
    }
    ScoresOfKeys<V, T, 4>(q, rows, k + j * ldk, ldk, D, score + j, ld_score);
  }
  for (; j < keys; ++j) {
    if (next) Prefetch(next + j * ld_next, D);
    ScoresOfKeys<V, T, 1>(q, rows, k + j * ldk, ldk, D, score + j, ld_score);
  }
}

// kRows rows by up to four vectors of columns, held in registers over all keys.
template <class V, class T, int kRows, int kVectors>
void ValuesTile(const float* p, int64_t ldp, const T* v, int64_t ldv, int64_t keys, float* out, int64_t ldo,
                const T* next, int64_t ld_next) {
  V sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kVectors; ++c) sum[r][c] = V::Set(0.0f);
  }
  for (int64_t j = 0; j < keys; ++j) {
    if (next) Prefetch(next + j * ld_next, kVectors * V::kWidth);
    V x[kVectors];
    for (int c = 0; c < kVectors; ++c) x[c] = V::Load(v + j * ldv + c * V::kWidth);
    for (int r = 0; r < kRows; ++r) {
      const V weight = V::Set(p[r * ldp + j]);
      for (int c = 0; c < kVectors; ++c) sum[r][c] = V::Fma(weight, x[c], sum[r][c]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kVectors; ++c) sum[r][c].Store(out + r * ldo + c * V::kWidth);
  }
}

template <class V, class T, int kRows>
void ValuesRows(const float* p, int64_t ldp, const T* v, int64_t ldv, int64_t keys, int64_t D, float* out,
                const T* next, int64_t ld_next) {
  constexpr int64_t W = V::kWidth;
  const auto after = [&](int64_t d) { return next ? next + d : nullptr; };
  int64_t d = 0;
  for (; d + 4 * W <= D; d += 4 * W) {
    ValuesTile<V, T, kRows, 4>(p, ldp, v + d, ldv, keys, out + d, D, after(d), ld_next);
  }
  for (; d + W <= D; d += W) {
    ValuesTile<V, T, kRows, 1>(p, ldp, v + d, ldv, keys, out + d, D, after(d), ld_next);
  }
  if (d == D) return;
  for (int r = 0; r < kRows; ++r) {
    V sum = V::Set(0.0f);
    for (int64_t j = 0; j < keys; ++j) {
      sum = V::Fma(V::Set(p[r * ldp + j]), V::LoadPart(v + j * ldv + d, D - d), sum);
    }
    sum.StorePart(out + r * D + d, D - d);
  }
}

template <class V, class T>
void Values(const float* p, int64_t ldp, int64_t rows, const T* v, int64_t ldv, int64_t keys, int64_t D,
            float* out, const T* next, int64_t ld_next) {
  for (int64_t r = 0, n = 0; r < rows; r += n) {
    n = RowsOfTile(rows - r);
    const float* weights = p + r * ldp;
    if (n == 3) {
      ValuesRows<V, T, 3>(weights, ldp, v, ldv, keys, D, out + r * D, next, ld_next);
    } else if (n == 2) {
      ValuesRows<V, T, 2>(weights, ldp, v, ldv, keys, D, out + r * D, next, ld_next);
    } else {
      ValuesRows<V, T, 1>(weights, ldp, v, ldv, keys, D, out + r * D, next, ld_next);
    }
    next = nullptr;
  }
}

template <class V, class T, bool kWindow, bool kCap>
void GradTileRows(const AttentionGradTile<T>& t) {
  constexpr int64_t W = V::kWidth;
  const V score_scale = V::Set(t.score_scale), scale = V::Set(t.scale);
  const Cap<V> cap(t.cap);
  for (int64_t i = 0; i < t.rows; ++i) {
    const float* score = t.score + i * t.ld;
    const float* dp = t.dp + i * t.ld;
    T* to_p = t.p + i * t.ld;
    T* to_ds = t.ds + i * t.ld;
    const V shift = V::Set(-t.lse2[i]), delta = V::Set(t.delta[i]);
    const auto store = [&](int64_t c, V value, V p) {
      V ds = V::Mul(V::Mul(p, scale), V::Sub(V::Load(dp + c), delta));
      if constexpr (kCap) ds = V::Mul(ds, cap.SlopeAt(value));
      p.Store(to_p + c);
      ds.Store(to_ds + c);
    };
    const auto masked = [&](int64_t c, V open, V keep) {
      V x = V::Min(open, V::Load(score + c));
      if constexpr (kCap) x = cap.Value(x);
      store(c, x, V::Mul(Exp2(V::Fma(x, score_scale, shift)), keep));
    };
    const Seen seen = SeenOf<kWindow>(t.hidden + i, t.visible + i, t.width);
    int64_t c = 0;
    if (kWindow && seen.begin < seen.end) {
      c = seen.begin / W * W;
      const int64_t before = seen.begin - c, n = Smaller(seen.end - c, W);
      masked(c, V::Min(MaskBefore<V>(kScoreMask, before), Mask<V>(kScoreMask, n)),
             V::Mul(MaskBefore<V>(kWeightMask, before), Mask<V>(kWeightMask, n)));
      Clear<V>(to_p, 0, c);
      Clear<V>(to_ds, 0, c);
      c += W;
    }
    for (; c + W <= seen.end; c += W) {
      V x = V::Load(score + c);
      if constexpr (kCap) x = cap.Value(x);
      store(c, x, Exp2(V::Fma(x, score_scale, shift)));
    }
    if (c < seen.end) masked(c, Mask<V>(kScoreMask, seen.end - c), Mask<V>(kWeightMask, seen.end - c));
    const int64_t done = seen.begin < seen.end ? (seen.end + W - 1) / W * W : 0;
    Clear<V>(to_p, done, t.width);
    Clear<V>(to_ds, done, t.width);
  }
}

template <class V, class T>
void GradTile(const AttentionGradTile<T>& t) {
  const bool windowed = t.hidden + t.rows - 1 > 0;
  if (t.cap > 0.0f) {
    return windowed ? GradTileRows<V, T, true, true>(t) : GradTileRows<V, T, false, true>(t);
  }
  return windowed ? GradTileRows<V, T, true, false>(t) : GradTileRows<V, T, false, false>(t);
}

template <class V, class T>
constexpr AttentionKernels<T> MakeAttentionKernels() {
  return {Soften<V, T>, Soften<V, float>, Normalize<V, T>, Scores<V, T>, Values<V, T>, GradTile<V, T>};
}

}  // namespace
}  // namespace rung::cpu
