#include "kernels/cpu/head_loss.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/attention_testing.h"

namespace rung::cpu {
namespace {

template <class T>
struct Inputs {
  int64_t M, V, C, ldx;
  std::vector<T> x, w;
  std::vector<int32_t> target;
  format::Matrix head;
  float cap = 0.0f;

  // w is stored as T, so that decoding is exact and the reference sees the same numbers.
  Inputs(int64_t rows, int64_t vocabulary, int64_t width, float x_scale = 1.0f)
      : M(rows),
        V(vocabulary),
        C(width),
        ldx(width + 8),
        x(static_cast<size_t>(rows * ldx), As<T>(std::numeric_limits<float>::quiet_NaN())),
        w(static_cast<size_t>(vocabulary * width)),
        target(static_cast<size_t>(rows)) {
    std::mt19937 random(static_cast<unsigned>(rows * 31 + vocabulary));
    std::normal_distribution<float> normal;
    for (int64_t m = 0; m < M; ++m) {
      for (int64_t c = 0; c < C; ++c) x[static_cast<size_t>(m * ldx + c)] = As<T>(normal(random) * x_scale);
    }
    for (T& a : w) a = As<T>(normal(random) * 0.3f);
    for (int32_t& t : target) t = static_cast<int32_t>(random() % static_cast<unsigned>(V));
    target.front() = 0;
    target.back() = static_cast<int32_t>(V - 1);
    head.format = sizeof(T) == 2 ? format::Format::kBf16 : format::Format::kF32;
    head.rows = V;
    head.cols = C;
    head.data = reinterpret_cast<const std::byte*>(w.data());
  }
};

struct Result {
  std::vector<float> loss, dx;
  std::vector<int32_t> best;
};

constexpr float kUntouched = 12345.0f;

template <class T>
Result Compute(const Context& context, const Inputs<T>& in, bool with_gradient = true) {
  const int64_t lddx = in.C + 4;
  Result r{std::vector<float>(static_cast<size_t>(in.M)),
           std::vector<float>(static_cast<size_t>(in.M * lddx), kUntouched),
           std::vector<int32_t>(static_cast<size_t>(in.M), -1)};
  const size_t size = HeadLossScratch(context, sizeof(T), in.M, in.C, with_gradient);
  // Exactly this many bytes, so that the address sanitizer sees one too many; 0xff: NaN as floats.
  auto* scratch = static_cast<std::byte*>(std::aligned_alloc(64, size));
  std::memset(scratch, 0xff, size);
  HeadLoss<T>(context, in.x.data(), in.ldx, in.M, in.head, in.cap, in.target.data(), r.loss.data(),
              with_gradient ? r.dx.data() : nullptr, lddx, r.best.data(), scratch);
  std::free(scratch);
  for (int64_t m = 0; m < in.M; ++m) {
    for (int64_t c = in.C; c < lddx; ++c) EXPECT_EQ(r.dx[static_cast<size_t>(m * lddx + c)], kUntouched);
  }
  return r;
}

struct Reference {
  std::vector<double> loss, dx, gap;  // gap: between the largest logit and the next
  std::vector<int32_t> best;
  double largest_logit = 0, largest_weight = 0;
};

template <class T>
Reference ReferenceOf(const Inputs<T>& in) {
  Reference r;
  r.dx.resize(static_cast<size_t>(in.M * in.C));
  std::vector<double> logit(static_cast<size_t>(in.V)), slope(logit.size(), 1.0);
  const auto cap = static_cast<double>(in.cap);
  for (const T& a : in.w) r.largest_weight = std::max(r.largest_weight, std::abs(double{ToFloat(a)}));
  for (int64_t m = 0; m < in.M; ++m) {
    double top = -1e300, second = -1e300, sum = 0;
    int32_t best = 0;
    for (int64_t v = 0; v < in.V; ++v) {
      double s = 0;
      for (int64_t c = 0; c < in.C; ++c) {
        s += double{ToFloat(in.x[static_cast<size_t>(m * in.ldx + c)])} *
             double{ToFloat(in.w[static_cast<size_t>(v * in.C + c)])};
      }
      logit[static_cast<size_t>(v)] = s;
      if (s > top) {
        second = top;
        top = s;
        best = static_cast<int32_t>(v);
      } else if (s > second) {
        second = s;
      }
      r.largest_logit = std::max(r.largest_logit, std::abs(s));
    }
    r.best.push_back(best);
    r.gap.push_back(top - second);
    for (size_t v = 0; cap > 0 && v < logit.size(); ++v) {
      const double t = std::tanh(logit[v] / cap);
      logit[v] = cap * t;
      slope[v] = 1 - t * t;
    }
    if (cap > 0) top = cap * std::tanh(top / cap);
    for (double s : logit) sum += std::exp(s - top);
    const int32_t t = in.target[static_cast<size_t>(m)];
    r.loss.push_back(top + std::log(sum) - logit[static_cast<size_t>(t)]);
    for (int64_t v = 0; v < in.V; ++v) {
      const auto at = static_cast<size_t>(v);
      const double p = (std::exp(logit[at] - top) / sum - (v == t ? 1.0 : 0.0)) * slope[at];
      for (int64_t c = 0; c < in.C; ++c) {
        r.dx[static_cast<size_t>(m * in.C + c)] +=
            p * double{ToFloat(in.w[static_cast<size_t>(v * in.C + c)])};
      }
    }
  }
  return r;
}

std::vector<Isa> Isas() {
  std::vector<Isa> isas;
  for (int i = 0; i <= static_cast<int>(BestIsa()); ++i) isas.push_back(static_cast<Isa>(i));
  return isas;
}

template <class T>
void ExpectMatches(const Inputs<T>& in, const Reference& want, const Context& context) {
  const std::string what = std::string(NameOf(context.isa)) + " M=" + std::to_string(in.M) +
                           " V=" + std::to_string(in.V) + " C=" + std::to_string(in.C) +
                           " threads=" + std::to_string(context.threads);
  const Result got = Compute<T>(context, in);
  const double logit_error = 1e-5 * std::max(1.0, want.largest_logit / 4);
  // A logit's error moves each probability by that factor; Bf16 rounds each probability by up to 2^-9.
  const double dx_error =
      want.largest_weight * (2 * logit_error + (sizeof(T) == 2 ? std::ldexp(1.0, -9) : 0.0));
  for (int64_t m = 0; m < in.M; ++m) {
    const auto i = static_cast<size_t>(m);
    ASSERT_NEAR(double{got.loss[i]}, want.loss[i], logit_error) << what << " row " << m;
    if (want.gap[i] > logit_error) {
      ASSERT_EQ(got.best[i], want.best[i]) << what << " row " << m;
    }
    for (int64_t c = 0; c < in.C; ++c) {
      ASSERT_NEAR(double{got.dx[static_cast<size_t>(m * (in.C + 4) + c)]},
                  want.dx[static_cast<size_t>(m * in.C + c)], dx_error)
          << what << " row " << m << " column " << c;
    }
  }
  const Result no_gradient = Compute<T>(context, in, false);
  EXPECT_EQ(no_gradient.loss, got.loss) << what;
  EXPECT_EQ(no_gradient.best, got.best) << what;
  const Result again = Compute<T>(context, in);
  EXPECT_EQ(again.loss, got.loss) << what;
  EXPECT_EQ(again.dx, got.dx) << what;
}

template <class T>
void Sweep(float cap = 0.0f, float x_scale = 1.0f) {
  struct Case {
    int64_t M, V, C;
  };
  // One row; shares shorter than a panel or empty; odd vocabularies; two blocks of rows.
  for (const Case& c : {Case{1, 100, 64}, Case{5, 257, 70}, Case{7, 2048, 64}, Case{300, 257, 34},
                        Case{2, 1, 8}, Case{3, 1101, 130}}) {
    Inputs<T> in(c.M, c.V, c.C, x_scale);
    in.cap = cap;
    const Reference want = ReferenceOf(in);
    for (Isa isa : Isas()) {
      if (!AttentionFor<T>(isa)) continue;
      ExpectMatches<T>(in, want, {isa, 1});
      if (isa == BestIsa()) {
        for (int threads : {2, 3}) ExpectMatches<T>(in, want, {isa, threads});
      }
    }
  }
}

TEST(HeadLoss, MatchesTheTextbookInF32) { Sweep<float>(); }
TEST(HeadLoss, MatchesTheTextbookInBf16) { Sweep<Bf16>(); }

TEST(HeadLoss, CapInF32) {
  Sweep<float>(5.0f);
  Sweep<float>(50.0f, 10.0f);
}
TEST(HeadLoss, CapInBf16) {
  Sweep<Bf16>(5.0f);
  Sweep<Bf16>(50.0f, 10.0f);
}

// The gradient of the reference by finite differences of its loss.
TEST(HeadLoss, TheReferenceIsTheDerivativeOfItsLoss) {
  Inputs<float> in(3, 40, 8);
  in.cap = 1.0f;
  const Reference want = ReferenceOf(in);
  for (int64_t m = 0; m < in.M; ++m) {
    for (int64_t c = 0; c < in.C; ++c) {
      float* x = &in.x[static_cast<size_t>(m * in.ldx + c)];
      const float old = *x, above = old + 0x1p-10f, below = old - 0x1p-10f;
      *x = above;
      const double up = ReferenceOf(in).loss[static_cast<size_t>(m)];
      *x = below;
      const double down = ReferenceOf(in).loss[static_cast<size_t>(m)];
      *x = old;
      EXPECT_NEAR((up - down) / (double{above} - double{below}), want.dx[static_cast<size_t>(m * in.C + c)],
                  1e-5);
    }
  }
}

// Logits of hundreds are one number under a cap of 5, in f32: the largest of them is best all the same.
TEST(HeadLoss, ACapDoesNotChangeTheBest) {
  Inputs<float> in(20, 1500, 64, 100.0f);
  for (Isa isa : Isas()) {
    in.cap = 0.0f;
    const Result want = Compute<float>({isa, 3}, in);
    in.cap = 5.0f;
    const Result got = Compute<float>({isa, 3}, in);
    EXPECT_EQ(got.best, want.best) << NameOf(isa);
    for (float x : got.loss) EXPECT_TRUE(x >= 0.0f && x <= 10.0f + std::log(1500.0f)) << NameOf(isa);
  }
}

TEST(HeadLoss, LargeLogitsDoNotOverflow) {
  const Inputs<float> in(5, 700, 64, 1000.0f);
  const Reference want = ReferenceOf(in);
  ASSERT_GT(want.largest_logit, 5000.0);
  for (Isa isa : Isas()) {
    const Result got = Compute<float>({isa, 2}, in);
    for (size_t m = 0; m < 5; ++m) EXPECT_NEAR(double{got.loss[m]}, want.loss[m], 1e-6 * want.largest_logit);
    for (float g : got.dx) EXPECT_TRUE(std::isfinite(g));
  }
}

// A row whose logits are all NaN has a loss of NaN and token 0 as its best.
template <class T>
void ExpectNanOfARow() {
  Inputs<T> in(3, 200, 16);
  in.x[static_cast<size_t>(in.ldx + 2)] = As<T>(std::numeric_limits<float>::quiet_NaN());
  for (Isa isa : Isas()) {
    if (!AttentionFor<T>(isa)) continue;
    for (const int threads : {1, 2, 3}) {
      for (const float cap : {0.0f, 5.0f}) {
        in.cap = cap;
        for (const bool with_gradient : {true, false}) {
          const Result got = Compute<T>({isa, threads}, in, with_gradient);
          EXPECT_TRUE(std::isfinite(got.loss[0]) && std::isnan(got.loss[1]) && std::isfinite(got.loss[2]))
              << NameOf(isa);
          EXPECT_EQ(got.best[1], 0) << NameOf(isa);
        }
      }
    }
  }
}
TEST(HeadLoss, NotANumberIsNotHiddenInF32) { ExpectNanOfARow<float>(); }
TEST(HeadLoss, NotANumberIsNotHiddenInBf16) { ExpectNanOfARow<Bf16>(); }

// Entries [begin, end) of the head give NaN, no target among them: one, a share or more, a whole chunk
// before the first number.
template <class T>
void ExpectNanOfEntries() {
  for (const auto& [begin, end] : {std::pair{701, 702}, std::pair{0, 512}, std::pair{640, 1280}}) {
    Inputs<T> in(2, 1280, 16);
    for (int v = begin; v < end; ++v) {
      in.w[static_cast<size_t>(v * 16 + 3)] = As<T>(std::numeric_limits<float>::quiet_NaN());
    }
    in.target = {0, 0};
    for (Isa isa : Isas()) {
      if (!AttentionFor<T>(isa)) continue;
      for (const int threads : {1, 2, 3}) {
        for (const int32_t target : {0, 1279}) {
          if (target >= begin && target < end) continue;
          in.target = {target, target};
          const Result got = Compute<T>({isa, threads}, in);
          for (size_t m = 0; m < 2; ++m) {
            EXPECT_TRUE(std::isnan(got.loss[m])) << NameOf(isa) << begin << " " << threads;
            EXPECT_TRUE(got.best[m] >= 0 && got.best[m] < 1280) << got.best[m];
          }
        }
      }
    }
  }
}
TEST(HeadLoss, WeightsThatAreNoNumbersAreNotHiddenInF32) { ExpectNanOfEntries<float>(); }
TEST(HeadLoss, WeightsThatAreNoNumbersAreNotHiddenInBf16) { ExpectNanOfEntries<Bf16>(); }

TEST(HeadLoss, TheFirstOfEqualLogitsIsBest) {
  Inputs<float> in(2, 1500, 16);
  // The largest row, for x of ones, thrice: in two chunks and in the shares of two threads.
  for (int64_t c = 0; c < 16; ++c) {
    in.x[static_cast<size_t>(c)] = in.x[static_cast<size_t>(in.ldx + c)] = 1.0f;
    for (int64_t v : {211, 215, 600, 1499}) in.w[static_cast<size_t>(v * 16 + c)] = 2.0f;
  }
  for (Isa isa : Isas()) {
    for (int threads : {1, 2, 3}) {
      const Result got = Compute<float>({isa, threads}, in);
      EXPECT_EQ(got.best[0], 211) << NameOf(isa) << threads;
      EXPECT_EQ(got.best[1], 211) << NameOf(isa) << threads;
    }
  }
}

}  // namespace
}  // namespace rung::cpu
