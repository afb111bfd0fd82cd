// For tests of attention: inputs with padded rows, and the textbook in double. Include only from tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/attention_kernels.h"

namespace rung::cpu {

inline constexpr int64_t kPad = 6;  // elements between rows that no kernel may touch

template <class T>
T As(float x) {
  if constexpr (sizeof(T) == 2) {
    return ToBf16(x);
  } else {
    return x;
  }
}

// Rows of T with padding: NaN, so that reading it shows in the result and writing it shows in the padding.
template <class T>
struct Rows {
  int64_t rows, cols, ld;
  std::vector<T> data;

  Rows(int64_t row_count, int64_t col_count)
      : rows(row_count),
        cols(col_count),
        ld(col_count + kPad),
        data(static_cast<size_t>(row_count * ld), As<T>(std::numeric_limits<float>::quiet_NaN())) {}
  T* at(int64_t r, int64_t c = 0) { return data.data() + r * ld + c; }
  const T* at(int64_t r, int64_t c = 0) const { return data.data() + r * ld + c; }
  double value(int64_t r, int64_t c) const { return static_cast<double>(ToFloat(*at(r, c))); }
  void Fill(std::mt19937* random) {
    std::normal_distribution<float> normal;
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) *at(r, c) = As<T>(normal(*random));
    }
  }
  bool PaddingUntouched() const {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = cols; c < ld; ++c) {
        if (!std::isnan(ToFloat(*at(r, c)))) return false;
      }
    }
    return true;
  }
};

template <class T>
bool SameBits(const T* a, const T* b, int64_t n) {
  return std::memcmp(a, b, static_cast<size_t>(n) * sizeof(T)) == 0;
}

template <class T>
struct Inputs {
  AttentionShape shape;
  std::vector<AttentionSpan> spans;
  Rows<T> q, k, v;

  Inputs(int64_t heads, int64_t kv_heads, int64_t D, std::vector<AttentionSpan> all, int64_t q_rows,
         int64_t kv_rows, unsigned seed = 1)
      : spans(std::move(all)), q(q_rows, heads * D), k(kv_rows, kv_heads * D), v(kv_rows, kv_heads * D) {
    shape = {heads, kv_heads, D, 1.0f / std::sqrt(static_cast<float>(D))};
    std::mt19937 random(seed);
    q.Fill(&random);
    k.Fill(&random);
    v.Fill(&random);
  }
};

// Sequences of these lengths one after the other, as in training.
inline std::vector<AttentionSpan> Packed(const std::vector<int64_t>& lengths) {
  std::vector<AttentionSpan> spans;
  int64_t row = 0;
  for (int64_t n : lengths) {
    spans.push_back({row, n, row, n});
    row += n;
  }
  return spans;
}

template <class T>
Inputs<T> PackedInputs(int64_t heads, int64_t kv_heads, int64_t D, const std::vector<int64_t>& lengths) {
  int64_t N = 0;
  for (int64_t n : lengths) N += n;
  return Inputs<T>(heads, kv_heads, D, Packed(lengths), N, N);
}

// Exactly `size` bytes, so that the address sanitizer sees one too many; 0xff: NaN as floats.
struct Aligned {
  std::byte* bytes;
  explicit Aligned(size_t size) : bytes(static_cast<std::byte*>(std::aligned_alloc(64, size))) {
    std::memset(bytes, 0xff, size);
  }
  ~Aligned() { std::free(bytes); }
  Aligned(const Aligned&) = delete;
  Aligned& operator=(const Aligned&) = delete;
  std::byte* data() { return bytes; }
};

template <class T>
struct Result {
  Rows<T> out;
  std::vector<float> lse;
};

template <class T>
Result<T> Compute(const Context& context, const Inputs<T>& in) {
  Result<T> r{Rows<T>(in.q.rows, in.q.cols),
              std::vector<float>(static_cast<size_t>(in.q.rows * in.shape.query_heads))};
  const size_t size = AttentionForwardScratch(context, in.shape, in.spans, sizeof(T));
  Aligned scratch(size);
  AttentionForward<T>(context, in.shape, in.spans, in.q.at(0), in.q.ld, in.k.at(0), in.k.ld, in.v.at(0),
                      in.v.ld, r.out.at(0), r.out.ld, r.lse.data(), scratch.data());
  EXPECT_TRUE(r.out.PaddingUntouched());
  return r;
}

// The textbook, in double.
struct Reference {
  std::vector<double> out, lse;  // (N, Hq*D), (N, Hq)
};

// slope: of the capped score in the score.
template <class T>
std::vector<double> Probabilities(const Inputs<T>& in, const AttentionSpan& span, int64_t head, int64_t query,
                                  double* lse, std::vector<double>* slope = nullptr) {
  const int64_t D = in.shape.head_dim, kv = head / (in.shape.query_heads / in.shape.kv_heads);
  const int64_t keys = span.kv_count - span.q_count + query + 1;
  std::vector<double> p(static_cast<size_t>(keys));
  if (slope) slope->assign(p.size(), 1.0);
  constexpr double kUnseen = -std::numeric_limits<double>::infinity();
  const auto cap = static_cast<double>(in.shape.score_cap);
  double top = kUnseen, sum = 0;
  for (int64_t j = 0; j < keys; ++j) {
    double s = 0;
    for (int64_t d = 0; d < D; ++d) {
      s += in.q.value(span.q_begin + query, head * D + d) * in.k.value(span.kv_begin + j, kv * D + d);
    }
    s *= static_cast<double>(in.shape.scale);
    if (cap > 0) {
      const double t = std::tanh(s / cap);
      s = cap * t;
      if (slope) (*slope)[static_cast<size_t>(j)] = 1 - t * t;
    }
    if (in.shape.window > 0 && keys - 1 - j >= in.shape.window) s = kUnseen;
    p[static_cast<size_t>(j)] = s;
    top = std::max(top, s);
  }
  for (double& x : p) sum += x = std::exp(x - top);
  for (double& x : p) x /= sum;
  *lse = top + std::log(sum);
  return p;
}

template <class T>
Reference ForwardReference(const Inputs<T>& in) {
  const int64_t D = in.shape.head_dim, H = in.shape.query_heads;
  Reference r{std::vector<double>(static_cast<size_t>(in.q.rows * H * D)),
              std::vector<double>(static_cast<size_t>(in.q.rows * H))};
  for (const AttentionSpan& span : in.spans) {
    for (int64_t h = 0; h < H; ++h) {
      for (int64_t i = 0; i < span.q_count; ++i) {
        const int64_t row = span.q_begin + i;
        const std::vector<double> p = Probabilities(in, span, h, i, &r.lse[static_cast<size_t>(row * H + h)]);
        for (size_t j = 0; j < p.size(); ++j) {
          for (int64_t d = 0; d < D; ++d) {
            r.out[static_cast<size_t>((row * H + h) * D + d)] +=
                p[j] *
                in.v.value(span.kv_begin + static_cast<int64_t>(j), h / (H / in.shape.kv_heads) * D + d);
          }
        }
      }
    }
  }
  return r;
}

inline double LargestIn(const std::vector<double>& x) {
  double top = 0;
  for (double a : x) top = std::max(top, std::abs(a));
  return top;
}

template <class T>
double LargestError(const Rows<T>& got, const std::vector<double>& want) {
  double error = 0;
  for (int64_t r = 0; r < got.rows; ++r) {
    for (int64_t c = 0; c < got.cols; ++c) {
      const double e = std::abs(got.value(r, c) - want[static_cast<size_t>(r * got.cols + c)]);
      if (!(e <= error)) error = e;  // a NaN stays
    }
  }
  return error;
}

inline std::vector<Isa> Isas() {
  std::vector<Isa> isas;
  for (int i = 0; i <= static_cast<int>(BestIsa()); ++i) isas.push_back(static_cast<Isa>(i));
  return isas;
}

// Errors of scores are relative: 1 where they are of size 1.
inline double ScoreSize(const AttentionShape& shape) {
  return std::max(1.0, std::sqrt(static_cast<double>(shape.head_dim)) * static_cast<double>(shape.scale));
}

// A window, a cap, and both. Scores are of size 3, where a cap of 5 bends and one of 50 hardly does.
struct Manner {
  int64_t window;
  float cap;
};
template <class T>
std::vector<Inputs<T>> InManners(Inputs<T> in) {
  in.shape.scale *= 3.0f;
  std::vector<Inputs<T>> all;
  for (const Manner& m :
       {Manner{1, 0}, Manner{2, 0}, Manner{7, 0}, Manner{64, 0}, Manner{100, 0}, Manner{5000, 0},
        Manner{0, 5}, Manner{0, 50}, Manner{1, 5}, Manner{100, 50}, Manner{13, 5}}) {
    in.shape.window = m.window;
    in.shape.score_cap = m.cap;
    all.push_back(in);
  }
  return all;
}
inline std::string NameOf(const AttentionShape& shape) {
  return "window=" + std::to_string(shape.window) + " cap=" + std::to_string(shape.score_cap);
}

}  // namespace rung::cpu
