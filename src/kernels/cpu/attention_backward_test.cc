#include "kernels/cpu/attention_testing.h"

namespace rung::cpu {
namespace {

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
        std::vector<double> slope;
        const std::vector<double> p = Probabilities(in, span, h, i, &lse, &slope);
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
          const double ds = p[j] * (dp[j] - mean) * slope[j] * static_cast<double>(in.shape.scale);
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

void ExpectReferencesAgree(int64_t window, float cap) {
  Inputs<float> in = PackedInputs<float>(2, 1, 4, {5, 3});
  in.shape.window = window;
  in.shape.score_cap = cap;
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

TEST(AttentionBackward, TheReferenceIsTheDerivativeOfTheForwardReference) {
  ExpectReferencesAgree(0, 0.0f);
  ExpectReferencesAgree(3, 0.0f);
  ExpectReferencesAgree(0, 1.0f);
  ExpectReferencesAgree(2, 2.0f);
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
void BackwardManners() {
  for (const auto& in : InManners(PackedInputs<T>(6, 2, 32, {257, 1, 64, 130}))) {
    ExpectBackwardMatches(in, "packed " + NameOf(in.shape));
  }
  for (const auto& in : InManners(PackedInputs<T>(2, 1, 6, {600, 70}))) {
    ExpectBackwardMatches(in, "several ranges of keys, " + NameOf(in.shape));
  }
}

TEST(AttentionBackward, WindowsAndCapsInF32) { BackwardManners<float>(); }
TEST(AttentionBackward, WindowsAndCapsInBf16) { BackwardManners<Bf16>(); }

// The same numbers where the heads of q, k and v lie in one row, as a fused layer leaves them.
template <class T>
void ExpectSameBitsFromAFusedLayer(int64_t window) {
  constexpr int64_t kHeads = 3, kD = 10, kN = 330, kStep = 3 * kD;
  Inputs<T> in = PackedInputs<T>(kHeads, kHeads, kD, {300, 4, 26});
  in.shape.window = window;
  Rows<T> dout(kN, kHeads * kD), fused(kN, kHeads * kStep);
  std::mt19937 random(4);
  dout.Fill(&random);
  for (int64_t r = 0; r < kN; ++r) {
    for (int64_t c = 0; c < kHeads * kD; ++c) {
      T* at = fused.at(r, c / kD * kStep + c % kD);
      at[0] = *in.q.at(r, c);
      at[kD] = *in.k.at(r, c);
      at[2 * kD] = *in.v.at(r, c);
    }
  }
  AttentionShape shape = in.shape;
  shape.q_step = shape.kv_step = kStep;
  for (Isa isa : Isas()) {
    if (!AttentionFor<T>(isa)) continue;
    const Context context{isa, 2};
    const Result<T> want = Compute<T>(context, in);
    const Gradients want_gradients = RunBackward<T>(context, in, dout);
    Rows<T> out(kN, kHeads * kD);
    std::vector<float> lse(want.lse.size());
    Aligned scratch(AttentionForwardScratch(context, shape, in.spans, sizeof(T)));
    const T *q = fused.at(0), *k = q + kD, *v = k + kD;
    AttentionForward<T>(context, shape, in.spans, q, fused.ld, k, fused.ld, v, fused.ld, out.at(0), out.ld,
                        lse.data(), scratch.data());
    EXPECT_EQ(lse, want.lse) << NameOf(isa);
    Rows<float> gradients(kN, kHeads * kStep);
    float *dq = gradients.at(0), *dk = dq + kD, *dv = dk + kD;
    Aligned more(AttentionBackwardScratch(context, shape, in.spans, sizeof(T)));
    AttentionBackward<T>(context, shape, in.spans, q, fused.ld, k, fused.ld, v, fused.ld, out.at(0), out.ld,
                         dout.at(0), dout.ld, lse.data(), dq, gradients.ld, dk, gradients.ld, dv,
                         gradients.ld, more.data());
    EXPECT_TRUE(gradients.PaddingUntouched());
    for (int64_t r = 0; r < kN; ++r) {
      ASSERT_TRUE(SameBits(out.at(r), want.out.at(r), kHeads * kD)) << NameOf(isa) << " row " << r;
      for (int64_t h = 0; h < kHeads; ++h) {
        const float* got = gradients.at(r, h * kStep);
        ASSERT_TRUE(SameBits(got, want_gradients.dq.at(r, h * kD), kD)) << NameOf(isa) << " row " << r;
        ASSERT_TRUE(SameBits(got + kD, want_gradients.dk.at(r, h * kD), kD)) << NameOf(isa) << " row " << r;
        ASSERT_TRUE(SameBits(got + 2 * kD, want_gradients.dv.at(r, h * kD), kD)) << NameOf(isa) << " " << r;
      }
    }
  }
}

TEST(Attention, HeadsOfAFusedLayerGiveTheSameBits) {
  for (int64_t window : {0, 20}) {
    ExpectSameBitsFromAFusedLayer<float>(window);
    ExpectSameBitsFromAFusedLayer<Bf16>(window);
  }
}

template <class T>
void ExpectSameBitsForSpansAndThreads(int64_t window, float cap) {
  const std::vector<int64_t> lengths = {5, 64, 600, 1, 200};
  Inputs<T> in = PackedInputs<T>(4, 2, 32, lengths);
  in.shape.window = window;
  in.shape.score_cap = cap;
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
  for (const Manner& m : {Manner{0, 0}, Manner{100, 0}, Manner{30, 5}}) {
    ExpectSameBitsForSpansAndThreads<float>(m.window, m.cap);
    ExpectSameBitsForSpansAndThreads<Bf16>(m.window, m.cap);
  }
}

}  // namespace
}  // namespace rung::cpu
