#include "kernels/cpu/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/attention_kernels.h"

namespace rung::cpu {
namespace {

constexpr int64_t kPad = 6;  // elements between rows that no kernel may touch

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
std::vector<AttentionSpan> Packed(const std::vector<int64_t>& lengths) {
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

template <class T>
std::vector<double> Probabilities(const Inputs<T>& in, const AttentionSpan& span, int64_t head, int64_t query,
                                  double* lse) {
  const int64_t D = in.shape.head_dim, kv = head / (in.shape.query_heads / in.shape.kv_heads);
  const int64_t keys = span.kv_count - span.q_count + query + 1;
  std::vector<double> p(static_cast<size_t>(keys));
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  for (int64_t j = 0; j < keys; ++j) {
    double s = 0;
    for (int64_t d = 0; d < D; ++d) {
      s += in.q.value(span.q_begin + query, head * D + d) * in.k.value(span.kv_begin + j, kv * D + d);
    }
    p[static_cast<size_t>(j)] = s * static_cast<double>(in.shape.scale);
    top = std::max(top, p[static_cast<size_t>(j)]);
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

double LargestIn(const std::vector<double>& x) {
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

// Weights are rounded to Bf16 (relative 2^-9, so at most 2^-9 max|v| in a sum of weight 1), and the result
// again.
template <class T>
double ForwardTolerance() {
  return sizeof(T) == 2 ? 2 * std::ldexp(5.0, -9) : 1e-5;  // |v| < 5 in these inputs
}

std::vector<Isa> Isas() {
  std::vector<Isa> isas;
  for (int i = 0; i <= static_cast<int>(BestIsa()); ++i) isas.push_back(static_cast<Isa>(i));
  return isas;
}

template <class T>
void ExpectMatches(const Inputs<T>& in, const Reference& want, const std::string& what) {
  for (Isa isa : Isas()) {
    if (!AttentionFor<T>(isa)) continue;
    const Result<T> got = Compute<T>({isa, 1}, in);
    EXPECT_LE(LargestError(got.out, want.out), ForwardTolerance<T>()) << what << " " << NameOf(isa);
    double error = 0;
    for (size_t i = 0; i < want.lse.size(); ++i)
      error = std::max(error, std::abs(double{got.lse[i]} - want.lse[i]));
    EXPECT_LE(error, 1e-5) << what << " lse " << NameOf(isa);
  }
}

template <class T>
void ForwardSweep() {
  for (int64_t T_ : {1, 2, 7, 63, 64, 65, 130, 257}) {
    for (int64_t D : {8, 32, 64, 128}) {
      for (int64_t group : {1, 3}) {
        const Inputs<T> in = PackedInputs<T>(2 * group, 2, D, {T_});
        ExpectMatches(
            in, ForwardReference(in),
            "T=" + std::to_string(T_) + " D=" + std::to_string(D) + " group=" + std::to_string(group));
      }
    }
  }
}

TEST(AttentionForward, MatchesTheTextbookInF32) { ForwardSweep<float>(); }
TEST(AttentionForward, MatchesTheTextbookInBf16) { ForwardSweep<Bf16>(); }

TEST(AttentionForward, OddWidthsOfVectors) {
  for (int64_t D : {2, 10, 70}) {
    for (int64_t n : {3, 100}) {
      const Inputs<float> in = PackedInputs<float>(2, 1, D, {n});
      ExpectMatches(in, ForwardReference(in), "D=" + std::to_string(D));
      const Inputs<Bf16> half = PackedInputs<Bf16>(2, 1, D, {n});
      ExpectMatches(half, ForwardReference(half), "bf16 D=" + std::to_string(D));
    }
  }
}

// q_count < kv_count: a few queries (the direct path, one to three chunks of keys) and many (blocks with an
// offset).
template <class T>
void CachedSweep() {
  for (int64_t kv : {9, 511, 513, 1300}) {
    for (int64_t queries : {1, 2, 8, 9, 100}) {
      if (queries > kv) continue;
      const Inputs<T> in(6, 2, 32, {{0, queries, 5, kv}}, queries, kv + 5);
      ExpectMatches(in, ForwardReference(in),
                    "queries=" + std::to_string(queries) + " kv=" + std::to_string(kv));
    }
  }
}

TEST(AttentionForward, CachedKeysInF32) { CachedSweep<float>(); }
TEST(AttentionForward, CachedKeysInBf16) { CachedSweep<Bf16>(); }

TEST(AttentionForward, MixedSpansEqualEachAloneBitwise) {
  // Training, generation and prefill with a cache in one call; the last two share nothing but the call.
  const std::vector<AttentionSpan> spans = {{0, 97, 0, 97},    {97, 1, 97, 700},    {98, 130, 797, 130},
                                            {228, 3, 927, 40}, {231, 70, 967, 300}, {301, 64, 1267, 64}};
  Inputs<float> in(6, 2, 32, spans, 365, 1331);
  for (Isa isa : Isas()) {
    in.spans = spans;
    const Result<float> all = Compute<float>({isa, 1}, in);
    for (const AttentionSpan& span : spans) {
      in.spans = {span};
      const Result<float> alone = Compute<float>({isa, 1}, in);
      for (int64_t r = span.q_begin; r < span.q_begin + span.q_count; ++r) {
        ASSERT_TRUE(SameBits(all.out.at(r), alone.out.at(r), in.q.cols)) << "row " << r << " " << NameOf(isa);
        ASSERT_TRUE(
            SameBits(&all.lse[static_cast<size_t>(r * 6)], &alone.lse[static_cast<size_t>(r * 6)], 6));
      }
    }
    in.spans = spans;
    for (int threads : {2, 3}) {
      const Result<float> more = Compute<float>({isa, threads}, in);
      EXPECT_EQ(all.lse, more.lse);
      for (int64_t r = 0; r < in.q.rows; ++r) ASSERT_TRUE(SameBits(all.out.at(r), more.out.at(r), in.q.cols));
    }
  }
}

TEST(AttentionForward, LargeScoresDoNotOverflow) {
  Inputs<float> in = PackedInputs<float>(2, 2, 32, {150, 4});
  in.shape.scale = 3000.0f;  // scores up to about 6e4
  const Reference want = ForwardReference(in);
  for (Isa isa : Isas()) {
    const Result<float> got = Compute<float>({isa, 1}, in);
    // A score of 6e4 is known to about 2^-8, and with it the logarithm of a weight.
    EXPECT_LE(LargestError(got.out, want.out), 0.1) << NameOf(isa);
    for (size_t i = 0; i < want.lse.size(); ++i) EXPECT_NEAR(double{got.lse[i]}, want.lse[i], 0.05);
  }
}

TEST(AttentionForward, NotANumberIsNotHidden) {
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{5}, {140}}) {
    for (Isa isa : Isas()) {
      Inputs<float> in = PackedInputs<float>(1, 1, 32, lengths);
      *in.k.at(3, 1) = std::numeric_limits<float>::quiet_NaN();
      const Result<float> got = Compute<float>({isa, 1}, in);
      EXPECT_TRUE(std::isnan(got.lse[3]) && std::isnan(got.lse.back())) << NameOf(isa);
      EXPECT_TRUE(std::isnan(*got.out.at(3)) && std::isnan(*got.out.at(lengths[0] - 1, 31))) << NameOf(isa);
    }
  }
}

TEST(AttentionForward, LogOfTheDenominatorIsOptional) {
  const Inputs<float> in = PackedInputs<float>(2, 1, 8, {20, 3});
  const Context context{BestIsa(), 1};
  const Result<float> want = Compute<float>(context, in);
  Rows<float> out(in.q.rows, in.q.cols);
  Aligned scratch(AttentionForwardScratch(context, in.shape, in.spans, sizeof(float)));
  AttentionForward<float>(context, in.shape, in.spans, in.q.at(0), in.q.ld, in.k.at(0), in.k.ld, in.v.at(0),
                          in.v.ld, out.at(0), out.ld, nullptr, scratch.data());
  for (int64_t r = 0; r < out.rows; ++r) EXPECT_TRUE(SameBits(want.out.at(r), out.at(r), out.cols));
}

// Gradients.

struct Gradients {
  Rows<float> dq, dk, dv;
};

template <class T>
Gradients RunBackward(const Context& context, const Inputs<T>& in, const Rows<T>& dout) {
  const Result<T> forward = Compute<T>(context, in);
  Gradients g{Rows<float>(in.q.rows, in.q.cols), Rows<float>(in.k.rows, in.k.cols),
              Rows<float>(in.v.rows, in.v.cols)};
  Aligned scratch(AttentionBackwardScratch(context, in.shape, in.spans, sizeof(T)));
  AttentionBackward(context, in.shape, in.spans, in.q.at(0), in.q.ld, in.k.at(0), in.k.ld, in.v.at(0),
                    in.v.ld, forward.out.at(0), forward.out.ld, dout.at(0), dout.ld, forward.lse.data(),
                    g.dq.at(0), g.dq.ld, g.dk.at(0), g.dk.ld, g.dv.at(0), g.dv.ld, scratch.data());
  EXPECT_TRUE(g.dq.PaddingUntouched() && g.dk.PaddingUntouched() && g.dv.PaddingUntouched());
  return g;
}

// A gradient, and the sum of the sizes of the terms that make it.
struct Sums {
  std::vector<double> value, size;
  explicit Sums(const auto& like) : value(static_cast<size_t>(like.rows * like.cols)), size(value.size()) {}
  void Add(int64_t at, double term) {
    value[static_cast<size_t>(at)] += term;
    size[static_cast<size_t>(at)] += std::abs(term);
  }
};
struct ReferenceGradients {
  Sums dq, dk, dv;
};

// The mean of dp under p is dout . out: of the exact output, or of `out` where it is given.
template <class T>
ReferenceGradients BackwardReference(const Inputs<T>& in, const Rows<T>& dout, const Rows<T>* out = nullptr) {
  const int64_t D = in.shape.head_dim, H = in.shape.query_heads, K = in.shape.kv_heads;
  ReferenceGradients g{Sums(in.q), Sums(in.k), Sums(in.v)};
  for (const AttentionSpan& span : in.spans) {
    for (int64_t h = 0; h < H; ++h) {
      for (int64_t i = 0; i < span.q_count; ++i) {
        double lse = 0;
        const std::vector<double> p = Probabilities(in, span, h, i, &lse);
        std::vector<double> dp(p.size());
        double mean = 0;
        const int64_t row = span.q_begin + i, kv = h / (H / K);
        for (size_t j = 0; j < p.size(); ++j) {
          const int64_t key = span.kv_begin + static_cast<int64_t>(j);
          for (int64_t d = 0; d < D; ++d) dp[j] += dout.value(row, h * D + d) * in.v.value(key, kv * D + d);
          mean += p[j] * dp[j];
        }
        if (out) {
          mean = 0;
          for (int64_t d = 0; d < D; ++d) mean += dout.value(row, h * D + d) * out->value(row, h * D + d);
        }
        for (size_t j = 0; j < p.size(); ++j) {
          const int64_t key = span.kv_begin + static_cast<int64_t>(j);
          const double ds = p[j] * (dp[j] - mean) * static_cast<double>(in.shape.scale);
          for (int64_t d = 0; d < D; ++d) {
            g.dq.Add((row * H + h) * D + d, ds * in.k.value(key, kv * D + d));
            g.dk.Add((key * K + kv) * D + d, ds * in.q.value(row, h * D + d));
            g.dv.Add((key * K + kv) * D + d, p[j] * dout.value(row, h * D + d));
          }
        }
      }
    }
  }
  return g;
}

TEST(AttentionBackward, TheReferenceIsTheDerivativeOfTheForwardReference) {
  Inputs<float> in = PackedInputs<float>(2, 1, 4, {5, 3});
  Rows<float> dout(8, 8);
  std::mt19937 random(7);
  dout.Fill(&random);
  const ReferenceGradients g = BackwardReference(in, dout);
  const auto loss = [&] {
    const Reference r = ForwardReference(in);
    double sum = 0;
    for (int64_t i = 0; i < 8; ++i) {
      for (int64_t c = 0; c < 8; ++c) sum += r.out[static_cast<size_t>(i * 8 + c)] * dout.value(i, c);
    }
    return sum;
  };
  const auto check = [&](Rows<float>* x, const std::vector<double>& gradient) {
    for (int64_t r = 0; r < x->rows; ++r) {
      for (int64_t c = 0; c < x->cols; ++c) {
        const float old = *x->at(r, c), above = old + 0x1p-10f, below = old - 0x1p-10f;
        *x->at(r, c) = above;
        const double up = loss();
        *x->at(r, c) = below;
        const double down = loss();
        *x->at(r, c) = old;
        const double step = double{above} - double{below};
        EXPECT_NEAR((up - down) / step, gradient[static_cast<size_t>(r * x->cols + c)], 1e-5);
      }
    }
  };
  check(&in.q, g.dq.value);
  check(&in.k, g.dk.value);
  check(&in.v, g.dv.value);
}

// In f32: 1e-5 of the largest gradient. With bf16 inputs one factor of every term, p or scale * ds, is
// rounded to bf16 besides, by at most 2^-8 of itself: the sum moves by at most 2^-8 of the sum of the sizes
// of its terms.
template <class T>
void ExpectNearSums(const Rows<float>& got, const Sums& want, const std::string& what) {
  const double f32 = 1e-5 * (1 + LargestIn(want.value));
  double excess = -1;
  for (int64_t r = 0; r < got.rows; ++r) {
    for (int64_t c = 0; c < got.cols; ++c) {
      const auto i = static_cast<size_t>(r * got.cols + c);
      const double limit = f32 + (sizeof(T) == 2 ? 0x1p-8 * want.size[i] : 0.0);
      const double e = std::abs(got.value(r, c) - want.value[i]) - limit;
      if (!(e <= excess)) excess = e;  // a NaN stays
    }
  }
  EXPECT_LE(excess, 0.0) << what;
}

template <class T>
void ExpectBackwardMatches(const Inputs<T>& in, const std::string& what) {
  Rows<T> dout(in.q.rows, in.q.cols);
  std::mt19937 random(9);
  dout.Fill(&random);
  if (!AttentionFor<T>(BestIsa())) return;
  // A rounded output is an input like any other; only one instruction set rounds.
  const Rows<T> out = Compute<T>({BestIsa(), 1}, in).out;
  const ReferenceGradients want = BackwardReference(in, dout, sizeof(T) == 2 ? &out : nullptr);
  for (Isa isa : Isas()) {
    if (!AttentionFor<T>(isa)) continue;
    const Gradients got = RunBackward<T>({isa, 1}, in, dout);
    ExpectNearSums<T>(got.dq, want.dq, what + " dq " + NameOf(isa));
    ExpectNearSums<T>(got.dk, want.dk, what + " dk " + NameOf(isa));
    ExpectNearSums<T>(got.dv, want.dv, what + " dv " + NameOf(isa));
  }
}

template <class T>
void BackwardSweep() {
  for (int64_t n : {1, 2, 7, 63, 64, 65, 130, 257}) {
    for (int64_t D : {8, 32, 64, 128}) {
      for (int64_t group : {1, 3}) {
        ExpectBackwardMatches(
            PackedInputs<T>(2 * group, 2, D, {n}),
            "T=" + std::to_string(n) + " D=" + std::to_string(D) + " group=" + std::to_string(group));
      }
    }
  }
  for (int64_t D : {2, 10, 70}) {
    ExpectBackwardMatches(PackedInputs<T>(2, 1, D, {3, 101}), "D=" + std::to_string(D));
  }
  ExpectBackwardMatches(PackedInputs<T>(2, 1, 6, {600, 70, 1}), "several ranges of keys");
}

TEST(AttentionBackward, MatchesTheTextbookInF32) { BackwardSweep<float>(); }
TEST(AttentionBackward, MatchesTheTextbookInBf16) { BackwardSweep<Bf16>(); }

template <class T>
void ExpectSameBitsForSpansAndThreads() {
  const std::vector<int64_t> lengths = {5, 64, 600, 1, 200};
  Inputs<T> in = PackedInputs<T>(4, 2, 32, lengths);
  Rows<T> dout(in.q.rows, in.q.cols);
  std::mt19937 random(3);
  dout.Fill(&random);
  const auto same = [](const Rows<float>& a, const Rows<float>& b, int64_t begin, int64_t count) {
    for (int64_t r = begin; r < begin + count; ++r) {
      if (!SameBits(a.at(r), b.at(r), a.cols)) return false;
    }
    return true;
  };
  for (Isa isa : Isas()) {
    if (!AttentionFor<T>(isa)) continue;
    in.spans = Packed(lengths);
    const Gradients all = RunBackward<T>({isa, 1}, in, dout);
    for (int threads : {2, 3}) {
      const Gradients more = RunBackward<T>({isa, threads}, in, dout);
      EXPECT_TRUE(same(all.dq, more.dq, 0, in.q.rows)) << NameOf(isa);
      EXPECT_TRUE(same(all.dk, more.dk, 0, in.q.rows)) << NameOf(isa);
      EXPECT_TRUE(same(all.dv, more.dv, 0, in.q.rows)) << NameOf(isa);
    }
    for (const AttentionSpan& span : Packed(lengths)) {
      in.spans = {span};
      const Gradients alone = RunBackward<T>({isa, 1}, in, dout);
      EXPECT_TRUE(same(all.dq, alone.dq, span.q_begin, span.q_count)) << NameOf(isa);
      EXPECT_TRUE(same(all.dk, alone.dk, span.q_begin, span.q_count)) << NameOf(isa);
      EXPECT_TRUE(same(all.dv, alone.dv, span.q_begin, span.q_count)) << NameOf(isa);
    }
  }
}

TEST(AttentionBackward, SpansAndThreadsDoNotChangeABit) {
  ExpectSameBitsForSpansAndThreads<float>();
  ExpectSameBitsForSpansAndThreads<Bf16>();
}

}  // namespace
}  // namespace rung::cpu
