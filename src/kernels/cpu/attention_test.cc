#include "kernels/cpu/attention_testing.h"

namespace rung::cpu {
namespace {

// Weights are rounded to Bf16 (relative 2^-9, so at most 2^-9 max|v| in a sum of weight 1), and the result
// again.
template <class T>
double ForwardTolerance() {
  return sizeof(T) == 2 ? 2 * std::ldexp(5.0, -9) : 1e-5;  // |v| < 5 in these inputs
}

template <class T>
void ExpectMatches(const Inputs<T>& in, const Reference& want, const std::string& what) {
  for (Isa isa : Isas()) {
    if (!AttentionFor<T>(isa)) continue;
    const Result<T> got = Compute<T>({isa, 1}, in);
    EXPECT_LE(LargestError(got.out, want.out), ForwardTolerance<T>() * ScoreSize(in.shape))
        << what << " " << NameOf(isa);
    double error = 0;
    for (size_t i = 0; i < want.lse.size(); ++i)
      error = std::max(error, std::abs(double{got.lse[i]} - want.lse[i]));
    EXPECT_LE(error, 1e-5 * ScoreSize(in.shape)) << what << " lse " << NameOf(isa);
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

template <class T>
void MannersSweep() {
  for (const auto& in : InManners(PackedInputs<T>(6, 2, 32, {257, 1, 64, 130, 5}))) {
    ExpectMatches(in, ForwardReference(in), "packed " + NameOf(in.shape));
  }
  for (const auto& in : InManners(PackedInputs<T>(2, 1, 10, {100, 3}))) {
    ExpectMatches(in, ForwardReference(in), "D=10 " + NameOf(in.shape));
  }
  // Few queries and many behind caches.
  const std::vector<AttentionSpan> spans = {
      {0, 1, 3, 700}, {1, 8, 703, 140}, {9, 100, 843, 300}, {109, 2, 1143, 2}};
  for (const auto& in : InManners(Inputs<T>(6, 2, 64, spans, 111, 1145))) {
    ExpectMatches(in, ForwardReference(in), "cached " + NameOf(in.shape));
  }
}

TEST(AttentionForward, WindowsAndCapsInF32) { MannersSweep<float>(); }
TEST(AttentionForward, WindowsAndCapsInBf16) { MannersSweep<Bf16>(); }

TEST(AttentionForward, AWindowAsLongAsTheSequenceChangesNothing) {
  Inputs<float> in = PackedInputs<float>(2, 1, 32, {300, 4});
  for (Isa isa : Isas()) {
    in.shape.window = 0;
    const Result<float> want = Compute<float>({isa, 1}, in);
    in.shape.window = 300;
    const Result<float> got = Compute<float>({isa, 1}, in);
    EXPECT_EQ(want.lse, got.lse);
    for (int64_t r = 0; r < in.q.rows; ++r) EXPECT_TRUE(SameBits(want.out.at(r), got.out.at(r), in.q.cols));
  }
}

TEST(AttentionForward, KeysBeforeTheWindowAreNotTouched) {
  Inputs<float> in(2, 1, 32, {{0, 1, 0, 400}, {1, 200, 400, 400}}, 201, 800);
  in.shape.window = 16;
  for (int64_t j : {0, 100, 400, 500}) {  // in blocks that no query sees
    for (int64_t d = 0; d < 32; ++d)
      *in.k.at(j, d) = *in.v.at(j, d) = std::numeric_limits<float>::quiet_NaN();
  }
  for (Isa isa : Isas()) {
    const Result<float> got = Compute<float>({isa, 2}, in);
    for (float x : got.lse) EXPECT_TRUE(std::isfinite(x)) << NameOf(isa);
    for (int64_t r = 0; r < in.q.rows; ++r) EXPECT_TRUE(std::isfinite(*got.out.at(r, 5))) << NameOf(isa) << r;
  }
}

void ExpectSameBitsForSpansAndThreads(Inputs<float>* inputs) {
  Inputs<float>& in = *inputs;
  const std::vector<AttentionSpan> spans = in.spans;
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

TEST(AttentionForward, MixedSpansEqualEachAloneBitwise) {
  // Training, generation and prefill with a cache in one call; the last two share nothing but the call.
  const std::vector<AttentionSpan> spans = {{0, 97, 0, 97},    {97, 1, 97, 700},    {98, 130, 797, 130},
                                            {228, 3, 927, 40}, {231, 70, 967, 300}, {301, 64, 1267, 64}};
  Inputs<float> base(6, 2, 32, spans, 365, 1331);
  std::vector<Inputs<float>> manners = InManners(base);
  manners.push_back(base);
  for (Inputs<float>& in : manners) ExpectSameBitsForSpansAndThreads(&in);
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

// With a window keys fall into more blocks where they begin and end inside them.
TEST(AttentionForward, ScratchOfAFullCacheIsEnoughBeforeItIsFull) {
  constexpr int64_t kCapacity = 640;  // ends with a block
  for (const int64_t window : {0, 1, 50, 64, 65, 200}) {
    for (const int64_t queries : {1, 8, 9, 70}) {
      AttentionShape shape{4, 2, 32, 1.0f};
      shape.window = window;
      const auto bytes_of = [&](int64_t keys) {
        const AttentionSpan span{0, queries, 0, keys};
        return AttentionForwardScratch({BestIsa(), 2}, shape, {&span, 1}, sizeof(float));
      };
      for (int64_t keys = queries; keys < kCapacity; ++keys) {
        ASSERT_LE(bytes_of(keys), bytes_of(kCapacity))
            << keys << " keys, window " << window << ", queries " << queries;
      }
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

}  // namespace
}  // namespace rung::cpu
