// Products in 8 bits, against the arithmetic that int8.h documents, in double, and against exact products.
#include "kernels/cpu/int8.h"

#include <algorithm>
#include <limits>

#include "kernels/cpu/panel_testing.h"

namespace rung::cpu {
namespace {

using Store = Product::Store;
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInfinity = std::numeric_limits<float>::infinity();

class Int8Test : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!HasInt8()) GTEST_SKIP() << "this machine has no products in 8 bits (AVX-512 BF16 and VNNI)";
  }
};

// (N,K) with rows of K + 3, normally distributed; a hundredth of the channels is 30 times as large.
std::vector<Bf16> Activations(int64_t N, int64_t K, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> channel(static_cast<size_t>(K), 1.0f);
  for (int64_t i = 0; i < (K + 99) / 100; ++i) channel[random() % channel.size()] = 30.0f;
  std::vector<Bf16> x(static_cast<size_t>(N * (K + 3)), ToBf16(kNan));
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t k = 0; k < K; ++k)
      x[static_cast<size_t>(n * (K + 3) + k)] = ToBf16(normal(random) * channel[static_cast<size_t>(k)]);
    x[static_cast<size_t>(n * (K + 3) + K)] = ToBf16(0.0f);
  }
  return x;
}

// One product into rows of O + 5, which begin as 0.5.
class Outcome {
 public:
  Outcome(const format::Matrix& weight, const std::vector<Bf16>& x, int64_t N, Store store, const float* bias,
          int threads = 1, bool int8 = true)
      : O_(weight.rows),
        f32_(static_cast<size_t>(N * (O_ + 5)), 0.5f),
        bf16_(static_cast<size_t>(N * (O_ + 5)), ToBf16(0.5f)),
        compute_(store == Store::kCompute || store == Store::kAddCompute) {
    const Context context{Isa::kAvx512Bf16, threads, int8};
    const size_t bytes = ProjectScratch(context, sizeof(Bf16), N, weight.cols);
    std::vector<std::byte> memory(bytes + 128, std::byte{0xa5});
    void* at = memory.data();
    size_t space = memory.size();
    auto* scratch = static_cast<std::byte*>(std::align(64, bytes + 1, at, space));
    void* out = compute_ ? static_cast<void*>(bf16_.data()) : f32_.data();
    const Product product{&weight, bias, store, out, O_ + 5};
    Project<Bf16>(context, x.data(), weight.cols + 3, N, {&product, 1}, scratch);
    EXPECT_EQ(scratch[bytes], std::byte{0xa5}) << "writes beyond its scratch";
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t r = O_; r < O_ + 5; ++r) EXPECT_EQ(At(n, r), 0.5f) << "writes beyond a row";
    }
  }
  float At(int64_t n, int64_t r) const {
    const auto i = static_cast<size_t>(n * (O_ + 5) + r);
    return compute_ ? ToFloat(bf16_[i]) : f32_[i];
  }
  const std::vector<float>& f32() const { return f32_; }

 private:
  int64_t O_;
  std::vector<float> f32_;
  std::vector<Bf16> bf16_;
  bool compute_;
};

float Truncated(float x) { return std::bit_cast<float>(std::bit_cast<uint32_t>(x) & 0xffff0000u); }
float HalfOctaveUp(float x) { return std::bit_cast<float>(std::bit_cast<uint32_t>(x) + (64u << 16)); }

// Whole numbers and what one of them is worth.
struct Quantised {
  std::vector<int64_t> codes;
  std::vector<size_t> outliers;
  float scale = 0.0f;
};
Quantised QuantisedTo(const std::vector<float>& x, float limit) {
  Quantised out;
  limit = limit < 0x1p-100f ? 0.0f : limit;
  out.scale = limit / 127.0f;
  const float inverse = limit == 0.0f ? 0.0f : 127.0f / limit;
  for (size_t k = 0; k < x.size(); ++k) {
    const bool outlier = std::fabs(x[k]) > limit;
    if (outlier) out.outliers.push_back(k);
    const double code = std::nearbyint(static_cast<double>(x[k]) * static_cast<double>(inverse));
    out.codes.push_back(outlier ? 0 : static_cast<int64_t>(code));
  }
  return out;
}
float LargestOf(const std::vector<float>& x) {
  float largest = 0.0f;
  for (const float value : x) largest = std::max(largest, std::fabs(value));
  return largest;
}
Quantised QuantisedWeights(const std::vector<float>& w) { return QuantisedTo(w, LargestOf(w)); }
Quantised QuantisedActivations(const std::vector<float>& x) {
  double sum = 0.0;
  for (const float value : x) sum += std::fabs(static_cast<double>(value));
  float limit = Truncated(static_cast<float>(6.5 * sum / static_cast<double>(x.size())));
  const auto above = [&] {
    return std::count_if(x.begin(), x.end(), [&](float value) { return std::fabs(value) > limit; });
  };
  while (above() > static_cast<int64_t>(x.size() + 31) / 32) limit = HalfOctaveUp(limit);
  return QuantisedTo(x, std::min(limit, LargestOf(x)));
}

std::vector<float> RowOf(const std::vector<Bf16>& x, int64_t n, int64_t K) {
  std::vector<float> row;
  for (int64_t k = 0; k < K; ++k) row.push_back(ToFloat(x[static_cast<size_t>(n * (K + 3) + k)]));
  return row;
}
std::vector<std::vector<float>> RoundedRows(const Frozen& weight) {
  const std::vector<float> all = weight.Decode();
  std::vector<std::vector<float>> rows(static_cast<size_t>(weight.view().rows));
  for (size_t i = 0; i < all.size(); ++i)
    rows[i / static_cast<size_t>(weight.view().cols)].push_back(ToFloat(ToBf16(all[i])));
  return rows;
}

// Every element of a run, by the formulas of int8.h.
void ExpectDocumented(const Outcome& run, const Frozen& weight, const std::vector<Bf16>& x, int64_t N,
                      Store store, const float* bias) {
  const int64_t K = weight.view().cols;
  const std::vector<std::vector<float>> W = RoundedRows(weight);
  std::vector<Quantised> U;
  for (const std::vector<float>& row : W) U.push_back(QuantisedWeights(row));
  const bool compute = store == Store::kCompute || store == Store::kAddCompute;
  const double before = store == Store::kAddF32 || store == Store::kAddCompute ? 0.5 : 0.0;
  for (int64_t n = 0; n < N; ++n) {
    const std::vector<float> row = RowOf(x, n, K);
    const Quantised q = QuantisedActivations(row);
    for (size_t r = 0; r < W.size(); ++r) {
      int64_t whole = 0;
      for (size_t k = 0; k < row.size(); ++k) whole += q.codes[k] * U[r].codes[k];
      const double scaled =
          static_cast<double>(whole) * static_cast<double>(q.scale) * static_cast<double>(U[r].scale);
      double expected = scaled + before + (bias ? static_cast<double>(bias[r]) : 0.0);
      double magnitude = std::fabs(scaled) + 2.0;
      for (const size_t k : q.outliers) {
        const double term = static_cast<double>(row[k]) * static_cast<double>(W[r][k]);
        expected += term;
        magnitude += std::fabs(term);
      }
      ExpectSum(static_cast<double>(run.At(n, static_cast<int64_t>(r))), expected, magnitude,
                static_cast<int64_t>(q.outliers.size()) + 8, compute ? 0x1p-8 : 0.0);
    }
  }
}

TEST_F(Int8Test, EveryFormatAsDocumented) {
  std::vector<DecodeCase> cases(std::begin(kDecodeCases), std::end(kDecodeCases));
  for (const DecodeCase& odd : {DecodeCase{Format::kF16, 65, 99}, DecodeCase{Format::kBf16, 130, 33},
                                DecodeCase{Format::kNf4, 7, 47}, DecodeCase{Format::kBf16, 3, 1}}) {
    cases.push_back(odd);
  }
  for (const DecodeCase& c : cases) {
    if (c.format == Format::kF32) continue;
    SCOPED_TRACE(Name(c));
    const Frozen weight = Make(c, 5);
    const std::vector<Bf16> x = Activations(20, c.cols, 6);
    const Outcome run(weight.view(), x, 20, Store::kF32, nullptr);
    ExpectDocumented(run, weight, x, 20, Store::kF32, nullptr);
  }
}

TEST_F(Int8Test, EveryStoreAndRemainderOfRows) {
  const Frozen weight(Format::kQ8_0, 75, 96, false, 7);
  const std::vector<float> bias = Numbers<float>(75, 8);
  for (const Store store : {Store::kCompute, Store::kF32, Store::kAddF32, Store::kAddCompute}) {
    for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
      for (const int64_t N : {9, 10, 11, 12, 13, 14}) {
        const std::vector<Bf16> x = Activations(N, 96, 9);
        ExpectDocumented(Outcome(weight.view(), x, N, store, b), weight, x, N, store, b);
      }
    }
  }
}

// What a hundredth of large channels costs, and what leaving them in one scale with the rest would.
TEST_F(Int8Test, OutliersDoNotSpoilARow) {
  const int64_t N = 32, K = 960, O = 128;
  const std::vector<Bf16> x = Activations(N, K, 10);
  const Frozen weight(Format::kBf16, O, K, false, 11);
  const std::vector<std::vector<float>> W = RoundedRows(weight);
  const Outcome run(weight.view(), x, N, Store::kF32, nullptr);
  double error = 0.0, plain_error = 0.0, total = 0.0;
  for (int64_t n = 0; n < N; ++n) {
    const std::vector<float> row = RowOf(x, n, K);
    const Quantised plain = QuantisedTo(row, LargestOf(row));
    for (int64_t r = 0; r < O; ++r) {
      const std::vector<float>& w = W[static_cast<size_t>(r)];
      double exact = 0.0, by_plain = 0.0;
      for (size_t k = 0; k < row.size(); ++k) {
        exact += static_cast<double>(row[k]) * static_cast<double>(w[k]);
        by_plain += static_cast<double>(plain.codes[k]) * static_cast<double>(plain.scale) *
                    static_cast<double>(w[k]);
      }
      error += std::pow(static_cast<double>(run.At(n, r)) - exact, 2);
      plain_error += std::pow(by_plain - exact, 2);
      total += exact * exact;
    }
  }
  EXPECT_LT(std::sqrt(error / total), 0.01);
  EXPECT_GT(std::sqrt(plain_error / total), 0.03);
}

// From none to most of a row; then tails of several lengths, whose limits are raised several times.
TEST_F(Int8Test, ManyLargeNumbersInARow) {
  const int64_t N = 20, K = 200;
  std::vector<Bf16> x = Activations(N, K, 12);
  std::mt19937 random(13);
  std::lognormal_distribution<float> tail(0.0f, 2.5f);
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t k = 0; k < K; ++k) {
      Bf16& value = x[static_cast<size_t>(n * (K + 3) + k)];
      const bool large = static_cast<int64_t>(random() % 16) < n;
      if (n >= 12) {
        value = ToBf16(random() % 2 == 0 ? tail(random) : -tail(random));
      } else if (large) {
        value = ToBf16(static_cast<float>(1000 + random() % 50000));
      }
    }
  }
  const Frozen weight(Format::kNf4, 64, K, false, 14);
  ExpectDocumented(Outcome(weight.view(), x, N, Store::kF32, nullptr), weight, x, N, Store::kF32, nullptr);
}

TEST_F(Int8Test, ZerosAndNumbersThatAreNotFinite) {
  const int64_t N = 12, K = 64, O = 66;
  std::vector<Bf16> x = Activations(N, K, 15);
  const auto at = [&](int64_t n, int64_t k) -> Bf16& { return x[static_cast<size_t>(n * (K + 3) + k)]; };
  for (int64_t k = 0; k < K; ++k) at(2, k) = ToBf16(0.0f);
  for (int64_t k = 0; k < K; ++k) at(3, k) = ToBf16(k % 2 == 0 ? 0x1p-120f : 0.0f);
  at(5, 17) = ToBf16(kNan);
  at(7, 63) = ToBf16(-kInfinity);
  const std::vector<float> bias = Numbers<float>(O, 16);
  const Frozen weight(Format::kQ4_0, O, K, false, 17);
  const Outcome run(weight.view(), x, N, Store::kF32, bias.data());
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t r = 0; r < O; ++r) {
      EXPECT_EQ(std::isnan(run.At(n, r)), n == 5 || n == 7) << n;
      if (n == 2 || n == 3) {
        EXPECT_EQ(run.At(n, r), bias[static_cast<size_t>(r)]);
      }
    }
  }

  std::vector<Bf16> w = Numbers<Bf16>(O * K, 18);
  w[static_cast<size_t>(3 * K + 5)] = ToBf16(kInfinity);
  w[static_cast<size_t>(65 * K + 6)] = ToBf16(kNan);
  for (int64_t k = 0; k < K; ++k) w[static_cast<size_t>(4 * K + k)] = ToBf16(0.0f);
  format::Matrix odd;
  odd.format = Format::kBf16;
  odd.rows = O;
  odd.cols = K;
  odd.data = reinterpret_cast<const std::byte*>(w.data());
  const Outcome columns(odd, Activations(N, K, 19), N, Store::kF32, nullptr);
  for (int64_t r = 0; r < O; ++r) {
    EXPECT_EQ(std::isfinite(columns.At(1, r)), r != 3 && r != 65) << r;
    if (r == 4) {
      EXPECT_EQ(columns.At(1, r), 0.0f);
    }
  }
}

TEST_F(Int8Test, ARowDependsOnNeitherThreadsNorItsBatch) {
  const Frozen weight(Format::kQ4_1, 200, 320, false, 20);
  const std::vector<Bf16> x = Activations(61, 320, 21);
  const std::vector<float> one = Outcome(weight.view(), x, 61, Store::kF32, nullptr).f32();
  for (const int threads : {2, 3, 5}) {
    EXPECT_EQ(Outcome(weight.view(), x, 61, Store::kF32, nullptr, threads).f32(), one) << threads;
  }
  for (const int64_t N : {9, 14, 60}) {
    const std::vector<float> part = Outcome(weight.view(), x, N, Store::kF32, nullptr, 2).f32();
    EXPECT_TRUE(std::equal(part.begin(), part.end(), one.begin())) << N;
  }
}

TEST_F(Int8Test, FewRowsAndF32MatricesAreMultipliedAsEver) {
  const std::vector<Bf16> x = Activations(20, 96, 22);
  const Frozen q8(Format::kQ8_0, 70, 96, false, 23), f32(Format::kF32, 70, 96, false, 24);
  const auto same = [&](const Frozen& weight, int64_t N) {
    return Outcome(weight.view(), x, N, Store::kF32, nullptr, 2, true).f32() ==
           Outcome(weight.view(), x, N, Store::kF32, nullptr, 2, false).f32();
  };
  EXPECT_TRUE(same(q8, kFewRows));
  EXPECT_FALSE(same(q8, kFewRows + 1));
  EXPECT_TRUE(same(f32, 20));
}

// Products of both kinds in one call give what each gives alone.
TEST_F(Int8Test, KindsMixInOneCall) {
  const int64_t N = 20, K = 96, O = 70;
  const std::vector<Bf16> x = Activations(N, K, 25);
  const Frozen first(Format::kF32, O, K, false, 26), second(Format::kQ8_0, O, K, false, 27),
      third(Format::kF32, O, K, false, 28), fourth(Format::kF16, O, K, false, 29);
  const Frozen* all[] = {&first, &second, &third, &fourth};
  std::vector<std::vector<float>> out(4, std::vector<float>(static_cast<size_t>(N * (O + 5)), 0.5f));
  std::vector<Product> products;
  for (size_t i = 0; i < 4; ++i)
    products.push_back({&all[i]->view(), nullptr, Store::kF32, out[i].data(), O + 5});
  const Context context{Isa::kAvx512Bf16, 3, true};
  Panel<std::byte> scratch(static_cast<int64_t>(ProjectScratch(context, sizeof(Bf16), N, K)));
  Project<Bf16>(context, x.data(), K + 3, N, products, scratch.data());
  for (size_t i = 0; i < 4; ++i)
    EXPECT_EQ(out[i], Outcome(all[i]->view(), x, N, Store::kF32, nullptr).f32()) << i;
}

TEST(HasInt8, NeedsTheLevelWithBf16) {
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512}) EXPECT_FALSE(HasInt8(isa));
  EXPECT_TRUE(!HasInt8() || BestIsa() == Isa::kAvx512Bf16);
  EXPECT_FALSE(UsesInt8({Isa::kAvx2, 1, true}, 100, 64));
  EXPECT_FALSE(UsesInt8({BestIsa(), 1, false}, 100, 64));
}

}  // namespace
}  // namespace rung::cpu
