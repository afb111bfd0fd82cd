// The loops that row kernels share: a row swept by vectors, and sums over rows. Include only from files of
// one ISA.
#pragma once

#include <cstdint>

#include "kernels/cpu/vec.h"

namespace rung::cpu {
namespace {

constexpr float kOnes[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

// A place of a sweep: where an expression over whole vectors loads and stores in every array it names. Inside
// makes a value 0 beyond the end.
template <class V>
struct FullAt {
  int64_t c;
  V Inside(V v) const { return v; }
  template <class T>
  V Load(const T* p) const {
    return V::Load(p + c);
  }
  template <class T>
  void Store(V v, T* p) const {
    v.Store(p + c);
  }
};

template <class V>
struct PartAt {
  int64_t c, n;
  V Inside(V v) const { return V::Mul(v, V::LoadPart(kOnes, n)); }
  template <class T>
  V Load(const T* p) const {
    return V::LoadPart(p + c, n);
  }
  template <class T>
  void Store(V v, T* p) const {
    v.StorePart(p + c, n);
  }
};

// body(place) over [0,C). A body that loads before it stores may write an array that it reads.
template <class V, class Body>
inline void Sweep(int64_t C, const Body& body) {
  int64_t c = 0;
  for (; c + V::kWidth <= C; c += V::kWidth) body(FullAt<V>{c});
  if (c < C) body(PartAt<V>{c, C - c});
}

// Sum of term(place) over [0,C). Four partial sums hide the latency of an addition. Where C ends inside a
// vector, term must give 0 for zeros.
template <class V, class Term>
inline float SumOver(int64_t C, const Term& term) {
  constexpr int64_t kW = V::kWidth;
  V s0 = V::Set(0.0f), s1 = s0, s2 = s0, s3 = s0;
  int64_t c = 0;
  for (; c + 4 * kW <= C; c += 4 * kW) {
    s0 = V::Add(s0, term(FullAt<V>{c}));
    s1 = V::Add(s1, term(FullAt<V>{c + kW}));
    s2 = V::Add(s2, term(FullAt<V>{c + 2 * kW}));
    s3 = V::Add(s3, term(FullAt<V>{c + 3 * kW}));
  }
  for (; c + kW <= C; c += kW) s0 = V::Add(s0, term(FullAt<V>{c}));
  if (c < C) s1 = V::Add(s1, term(PartAt<V>{c, C - c}));
  return V::Add(V::Add(s0, s1), V::Add(s2, s3)).Sum();
}

// out[c] += sum over n of term(n, place), rows in order. Rows are summed in blocks of 64 before they meet the
// total, so that a sum of thousands keeps its low bits. A strip of kStrip columns is one pass over the rows.
template <class V, class Term>
inline void SumColumns(int64_t N, int64_t C, const Term& term, float* out) {
  constexpr int64_t kBlock = 64, kW = V::kWidth, kVectors = 4, kStrip = kVectors * kW;
  int64_t c = 0;
  for (; c + kStrip <= C; c += kStrip) {
    for (int64_t begin = 0; begin < N; begin += kBlock) {
      const int64_t end = begin + kBlock < N ? begin + kBlock : N;
      V sum[kVectors] = {V::Set(0.0f), V::Set(0.0f), V::Set(0.0f), V::Set(0.0f)};
      for (int64_t n = begin; n < end; ++n) {
        for (int64_t i = 0; i < kVectors; ++i) sum[i] = V::Add(sum[i], term(n, FullAt<V>{c + i * kW}));
      }
      for (int64_t i = 0; i < kVectors; ++i) {
        const FullAt<V> at{c + i * kW};
        at.Store(V::Add(at.Load(out), sum[i]), out);
      }
    }
  }
  const auto one = [&](auto at) {
    for (int64_t begin = 0; begin < N; begin += kBlock) {
      const int64_t end = begin + kBlock < N ? begin + kBlock : N;
      V sum = V::Set(0.0f);
      for (int64_t n = begin; n < end; ++n) sum = V::Add(sum, term(n, at));
      at.Store(V::Add(at.Load(out), sum), out);
    }
  };
  for (; c + kW <= C; c += kW) one(FullAt<V>{c});
  if (c < C) one(PartAt<V>{c, C - c});
}

}  // namespace
}  // namespace rung::cpu
