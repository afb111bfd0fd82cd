// Every kernel on every ISA that this machine has, against the scalar decoders of format/ and sums in double.
#include "kernels/cpu/panel.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "kernels/cpu/panel_testing.h"
#include "kernels/cpu/peak.h"

namespace rung::cpu {
namespace {

TEST(Panel, DecodesRowsAsTheReferenceDoes) {
  OnEachCore([](Isa isa, auto type) {
    using T = decltype(type);
    for (const DecodeCase& c : kDecodeCases) {
      SCOPED_TRACE(Name(c));
      const Frozen frozen = Make(c, 11);
      const std::vector<float> expected = frozen.Decode();
      const int64_t first = 1, count = c.rows - 2, ld = c.cols + 3;
      std::vector<T> got(static_cast<size_t>(count * ld), To<T>(77.0f));
      PanelFor<T>(isa)->decode_rows(frozen.view(), first, count, got.data(), ld);
      for (int64_t r = 0; r < count; ++r) {
        for (int64_t k = 0; k < ld; ++k) {
          const float value = k < c.cols ? expected[static_cast<size_t>((first + r) * c.cols + k)] : 77.0f;
          ASSERT_EQ(BitsOf(got[static_cast<size_t>(r * ld + k)]), BitsOf(To<T>(value))) << r << ", " << k;
        }
      }
    }
  });
}

TEST(Panel, DecodesColumnsAsPartsOfRows) {
  OnEachCore([](Isa isa, auto type) {
    using T = decltype(type);
    for (const DecodeCase& c : kDecodeCases) {
      SCOPED_TRACE(Name(c));
      const Frozen frozen = Make(c, 16);
      const std::vector<float> expected = frozen.Decode();
      const int64_t columns[][2] = {{0, c.cols}, {0, 1},
                                    {1, c.cols}, {c.cols / 2, c.cols},
                                    {31, 31},    {c.cols - 1, c.cols},
                                    {5, 22},     {c.cols / 4, c.cols / 2}};
      for (const auto& [begin, end] : columns) {
        const int64_t ld = end - begin + 3;
        std::vector<T> got(static_cast<size_t>(2 * ld), To<T>(77.0f));
        PanelFor<T>(isa)->decode_columns(frozen.view(), 1, 2, begin, end, got.data(), ld);
        for (int64_t i = 0; i < 2 * ld; ++i) {
          const int64_t k = begin + i % ld;
          const float value = k < end ? expected[static_cast<size_t>((1 + i / ld) * c.cols + k)] : 77.0f;
          ASSERT_EQ(BitsOf(got[static_cast<size_t>(i)]), BitsOf(To<T>(value)))
              << i / ld << ", " << k << " of " << begin << " to " << end;
        }
      }
    }
  });
}

// Every code, NaN among them, with and without a scale.
TEST(Panel, DecodesEveryE4m3) {
  std::vector<std::byte> codes(512);
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<std::byte>(i);
  const float scales[2] = {1.0f, -0.3f};
  for (const bool scaled : {false, true}) {
    format::Matrix matrix{Format::kF8E4m3, 2, 256, codes.data(), {}, {}};
    if (scaled) matrix.tiles = {scales, nullptr, nullptr, 1, 256, 1};
    std::vector<float> expected(512);
    format::Of(matrix.format).decode(matrix, 0, 512, expected.data());
    OnEachCore([&](Isa isa, auto type) {
      using T = decltype(type);
      std::vector<T> got(512);
      PanelFor<T>(isa)->decode_rows(matrix, 0, 2, got.data(), 256);
      for (size_t i = 0; i < 512; ++i) {
        if (std::isnan(expected[i])) {
          EXPECT_TRUE(std::isnan(ToFloat(got[i]))) << i;
        } else {
          EXPECT_EQ(BitsOf(got[i]), BitsOf(To<T>(expected[i]))) << i;
        }
      }
    });
    EXPECT_TRUE(std::isnan(expected[0x7f]) && std::isnan(expected[0xff]));
  }
}

// Exponents of MXFP4 from end to end: subnormal powers and, as f32, infinite products.
TEST(Panel, DecodesEveryMxfp4Power) {
  std::vector<std::byte> blocks(256 * 17);
  for (size_t i = 0; i < blocks.size(); ++i)
    blocks[i] = static_cast<std::byte>(i % 17 == 0 ? i / 17 : i % 17 - 1 + (i * 7 % 16) * 16);
  const format::Matrix matrix{Format::kMxfp4, 1, 256 * 32, blocks.data(), {}, {}};
  std::vector<float> expected(256 * 32), got(256 * 32);
  format::DecodeRow(matrix, 0, expected.data());
  for (const Isa isa : IsasHere()) {
    PanelFor<float>(isa)->decode_rows(matrix, 0, 1, got.data(), 256 * 32);
    for (size_t i = 0; i < got.size(); ++i)
      ASSERT_EQ(BitsOf(got[i]), BitsOf(expected[i])) << NameOf(isa) << i;
  }
}

// A panel is opaque; multiplied by a unit vector it shows its columns.
template <class T>
void ExpectPanel(const PanelKernels<T>& kernels, const T* panel, int64_t K, int64_t rows,
                 const std::function<float(int64_t r, int64_t k)>& expected) {
  std::vector<T> unit(static_cast<size_t>(K * K), To<T>(0.0f));
  for (int64_t k = 0; k < K; ++k) unit[static_cast<size_t>(k * K + k)] = To<T>(1.0f);
  std::vector<float> C(static_cast<size_t>(K * kPanelRows));
  kernels.multiply(unit.data(), K, K, panel, K, kPanelRows, false, C.data(), kPanelRows);
  for (int64_t k = 0; k < K; ++k) {
    for (int64_t r = 0; r < kPanelRows; ++r) {
      const float value = r < rows ? ToFloat(To<T>(expected(r, k))) : 0.0f;
      ASSERT_EQ(C[static_cast<size_t>(k * kPanelRows + r)], value) << "row " << r << ", k " << k;
    }
  }
}

TEST(Panel, DecodesPanelsAsTheReferenceDoes) {
  OnEachCore([](Isa isa, auto type) {
    using T = decltype(type);
    for (const DecodeCase& c : kDecodeCases) {
      if (c.cols > 600) continue;
      SCOPED_TRACE(Name(c));
      const Frozen frozen = Make(c, 12);
      const std::vector<float> expected = frozen.Decode();
      for (const int64_t first : {int64_t{0}, c.rows / 2}) {
        const int64_t rows = std::min(kPanelRows, c.rows - first);
        Panel<T> panel(c.cols);
        PanelFor<T>(isa)->decode_panel(frozen.view(), first, rows, panel.data());
        ExpectPanel<T>(*PanelFor<T>(isa), panel.data(), c.cols, rows, [&](int64_t r, int64_t k) {
          return expected[static_cast<size_t>((first + r) * c.cols + k)];
        });
      }
    }
  });
}

TEST(Panel, PacksRowsAndColumns) {
  OnEachCore([](Isa isa, auto type) {
    using T = decltype(type);
    const PanelKernels<T>& kernels = *PanelFor<T>(isa);
    for (const int64_t K : {2, 30, 31, 32, 64, 100}) {
      if (sizeof(T) == 2 && K % 2) continue;
      for (const int64_t count : {1, 7, 16, 63, 64}) {
        SCOPED_TRACE(std::to_string(K) + " deep, rows " + std::to_string(count));
        const int64_t ld_rows = K + 5, ld_cols = count + 3;
        const std::vector<T> by_rows = Numbers<T>(count * ld_rows, 3), by_cols = Numbers<T>(K * ld_cols, 4);
        Panel<T> panel(K);
        kernels.pack_rows(by_rows.data(), ld_rows, count, K, panel.data());
        ExpectPanel<T>(kernels, panel.data(), K, count, [&](int64_t r, int64_t k) {
          return ToFloat(by_rows[static_cast<size_t>(r * ld_rows + k)]);
        });
        kernels.pack_cols(by_cols.data(), ld_cols, K, count, panel.data());
        ExpectPanel<T>(kernels, panel.data(), K, count, [&](int64_t r, int64_t k) {
          return ToFloat(by_cols[static_cast<size_t>(k * ld_cols + r)]);
        });
      }
    }
  });
}

TEST(Panel, MultipliesEveryEdge) {
  OnEachCore([](Isa isa, auto type) {
    using T = decltype(type);
    const PanelKernels<T>& kernels = *PanelFor<T>(isa);
    for (const int64_t K : {32, 33, 96}) {
      if (sizeof(T) == 2 && K % 2) continue;
      const std::vector<T> B = Numbers<T>(kPanelRows * K, 5);
      Panel<T> panel(K);
      kernels.pack_rows(B.data(), K, kPanelRows, K, panel.data());
      for (int64_t N = 1; N <= 13; ++N) {
        for (const int64_t cols : {1, 15, 16, 40, 64}) {
          SCOPED_TRACE(std::to_string(N) + "x" + std::to_string(K) + "x" + std::to_string(cols));
          const int64_t lda = K + 1, ldc = cols + 2;
          const std::vector<T> A = Numbers<T>(N * lda, 6);
          const std::vector<float> before = Numbers<float>(N * ldc, 7);
          std::vector<float> set = before, added = before;
          std::vector<T> rounded(static_cast<size_t>(N * ldc), To<T>(77.0f));
          kernels.multiply(A.data(), lda, N, panel.data(), K, cols, false, set.data(), ldc);
          kernels.multiply(A.data(), lda, N, panel.data(), K, cols, true, added.data(), ldc);
          kernels.multiply_to(A.data(), lda, N, panel.data(), K, cols, rounded.data(), ldc);
          for (int64_t n = 0; n < N; ++n) {
            for (int64_t r = 0; r < ldc; ++r) {
              const auto at = static_cast<size_t>(n * ldc + r);
              if (r >= cols) {  // untouched
                ASSERT_EQ(set[at], before[at]);
                ASSERT_EQ(added[at], before[at]);
                ASSERT_EQ(ToFloat(rounded[at]), 77.0f);
                continue;
              }
              const Sum sum = DotOf(&A[static_cast<size_t>(n * lda)], &B[static_cast<size_t>(r * K)], K);
              ExpectSum(set[at], sum.value, sum.magnitude, K, 0.0);
              ASSERT_EQ(added[at], before[at] + set[at]);
              ASSERT_EQ(BitsOf(rounded[at]), BitsOf(To<T>(set[at])));
            }
          }
        }
      }
    }
  });
}

// C is the product with the exact weights, or the one with the rounded weights: one of them throughout.
template <class T>
void ExpectProduct(const std::vector<T>& A, int64_t lda, int64_t N, const std::vector<float>& exact,
                   const std::vector<T>& rounded, int64_t K, int64_t first, int64_t rows,
                   const std::vector<float>& C, int64_t ldc) {
  const auto far_from = [&](const auto& weights) {
    double worst = 0.0;  // in units of the tolerance of ExpectSum
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t r = 0; r < rows; ++r) {
        const Sum sum =
            DotOf(&A[static_cast<size_t>(n * lda)], &weights[static_cast<size_t>((first + r) * K)], K);
        const double error = std::fabs(static_cast<double>(C[static_cast<size_t>(n * ldc + r)]) - sum.value);
        const double tolerance = static_cast<double>(K + 4) * 0x1p-24 * sum.magnitude;
        if (!(error <= tolerance)) worst = std::max(worst, tolerance > 0.0 ? error / tolerance : 1e9);
      }
    }
    return worst;
  };
  const double from_exact = far_from(exact), from_rounded = far_from(rounded);
  EXPECT_TRUE(from_exact == 0.0 || from_rounded == 0.0)
      << N << " rows: " << from_exact << ", " << from_rounded;
}

TEST(Panel, MultipliesFewRows) {
  OnEachCore([](Isa isa, auto type) {
    using T = decltype(type);
    for (const DecodeCase& c : kDecodeCases) {
      SCOPED_TRACE(Name(c));
      const Frozen frozen = Make(c, 13);
      const std::vector<float> exact = frozen.Decode();
      std::vector<T> rounded;
      for (const float w : exact) rounded.push_back(To<T>(w));
      const int64_t first = 1, rows = c.rows - 1, lda = c.cols + 3, ldc = rows + 1;
      for (int64_t N = 1; N <= kFewRows; ++N) {
        const std::vector<T> A = Numbers<T>(N * lda, 8);
        std::vector<float> C(static_cast<size_t>(N * ldc), 77.0f);
        PanelFor<T>(isa)->multiply_few(A.data(), lda, N, frozen.view(), first, rows, C.data(), ldc);
        for (int64_t n = 0; n < N; ++n) {
          ASSERT_EQ(C[static_cast<size_t>(n * ldc + rows)], 77.0f);
        }
        ExpectProduct<T>(A, lda, N, exact, rounded, c.cols, first, rows, C, ldc);
      }
    }
  });
}

template <class T>
void ExpectFew(Isa isa, Format format, int64_t rows, int64_t cols) {
  const Frozen frozen(format, rows, cols, false, 14);
  const std::vector<float> exact = frozen.Decode();
  std::vector<T> rounded;
  for (const float w : exact) rounded.push_back(To<T>(w));
  for (int64_t N = 1; N <= kFewRows; ++N) {
    const std::vector<T> A = Numbers<T>(N * cols, 8);
    std::vector<float> C(static_cast<size_t>(N * rows));
    PanelFor<T>(isa)->multiply_few(A.data(), cols, N, frozen.view(), 0, rows, C.data(), rows);
    ExpectProduct<T>(A, cols, N, exact, rounded, cols, 0, rows, C, rows);
  }
}

// Rows on either side of the width from which on a kernel may work differently.
TEST(Panel, MultipliesFewLongRows) {
  OnEachCore([](Isa isa, auto type) {
    using T = decltype(type);
    for (const Format format : {Format::kQ8_0, Format::kQ4_0, Format::kQ4_1, Format::kNf4, Format::kInt4,
                                Format::kQ4K, Format::kQ6K}) {
      SCOPED_TRACE(format::Of(format).name);
      const int64_t more = std::max<int64_t>(64, format::Of(format).block);
      for (const int64_t cols : {int64_t{2048}, 2048 + more}) ExpectFew<T>(isa, format, 6, cols);
    }
  });
}

// Sums this long hide a lost weight from a bound in their magnitude. Rounding errors are random: a hundredth
// of a typical product bounds them by far, and one product of the sum is larger.
template <class T>
void ExpectFewOfWide(Isa isa, const Frozen& frozen, int64_t N) {
  const int64_t rows = frozen.view().rows, cols = frozen.view().cols;
  const std::vector<float> exact = frozen.Decode();
  const std::vector<T> A = Numbers<T>(N * cols, 8);
  std::vector<float> C(static_cast<size_t>(N * rows));
  PanelFor<T>(isa)->multiply_few(A.data(), cols, N, frozen.view(), 0, rows, C.data(), rows);
  for (int64_t r = 0; r < rows; ++r) {
    const float* w = &exact[static_cast<size_t>(r * cols)];
    std::vector<T> rounded;
    for (int64_t k = 0; k < cols; ++k) rounded.push_back(To<T>(w[k]));
    for (int64_t n = 0; n < N; ++n) {
      const T* a = &A[static_cast<size_t>(n * cols)];
      double squares = 0.0;
      for (int64_t k = 0; k < cols; ++k) {
        squares += std::pow(static_cast<double>(ToFloat(a[k])) * static_cast<double>(w[k]), 2);
      }
      const double bound = 0.01 * std::sqrt(squares / static_cast<double>(cols));
      const auto got = static_cast<double>(C[static_cast<size_t>(n * rows + r)]);
      const double from_exact = std::fabs(got - DotOf(a, w, cols).value),
                   from_rounded = std::fabs(got - DotOf(a, rounded.data(), cols).value);
      ASSERT_LE(std::min(from_exact, from_rounded), bound) << N << " rows of x, row " << r;
    }
  }
}

// The widest rows whose codes are dotted as whole numbers, and wider ones.
TEST(Panel, MultipliesFewRowsByWideSuperblocks) {
  for (const Format format : {Format::kQ4K, Format::kQ6K, Format::kQ2K, Format::kIq4Xs}) {
    for (const int64_t cols : {32768, 33024}) {
      const Frozen frozen(format, 5, cols, false, 21);
      OnEachCore([&](Isa isa, auto type) {
        SCOPED_TRACE(std::string(format::Of(format).name) + " " + std::to_string(cols));
        for (const int64_t N : {1, 3, 4}) ExpectFewOfWide<decltype(type)>(isa, frozen, N);
      });
    }
  }
}

// ---- the drivers ----

template <class T>
class Projection {
 public:
  Projection(Isa isa, int threads, int64_t N, bool with_bias)
      : first_(Format::kQ4_1, 130, kK, false, 1), second_(Format::kNf4, 67, kK, true, 2), N_(N) {
    x_ = Numbers<T>(N * kLdx, 9);
    bias_ = Numbers<float>(130, 10);
    compute_.assign(static_cast<size_t>(N * 131), To<T>(77.0f));
    set_.assign(static_cast<size_t>(N * 67), 77.0f);
    added_ = Numbers<float>(N * 130, 12);
    added_compute_ = Numbers<T>(N * 68, 13);
    const float* bias = with_bias ? bias_.data() : nullptr;
    const Product products[] = {
        {&first_.view(), bias, Product::Store::kCompute, compute_.data(), 131},
        {&second_.view(), bias, Product::Store::kF32, set_.data(), 67},
        {&first_.view(), bias, Product::Store::kAddF32, added_.data(), 130},
        {&second_.view(), bias, Product::Store::kAddCompute, added_compute_.data(), 68}};
    const Context context{isa, threads};
    const size_t bytes = ProjectScratch(context, sizeof(T), N, kK);
    std::vector<std::byte> memory(bytes + 64);
    void* at = memory.data();
    size_t space = memory.size();
    Project<T>(context, x_.data(), kLdx, N, products,
               static_cast<std::byte*>(std::align(64, bytes, at, space)));
  }

  void ExpectRight(bool with_bias) const {
    const std::vector<float> before = Numbers<float>(N_ * 130, 12);
    const std::vector<T> before_compute = Numbers<T>(N_ * 68, 13);
    for (int64_t n = 0; n < N_; ++n) {
      ASSERT_EQ(ToFloat(compute_[static_cast<size_t>(n * 131 + 130)]), 77.0f);
      for (int64_t o = 0; o < 130; ++o) {
        Check(first_, n, o, with_bias, ToFloat(compute_[static_cast<size_t>(n * 131 + o)]), 0.0,
              sizeof(T) == 2);
        const auto at = static_cast<size_t>(n * 130 + o);
        Check(first_, n, o, with_bias, added_[at], before[at], false);
        if (o >= 67) continue;
        Check(second_, n, o, with_bias, set_[static_cast<size_t>(n * 67 + o)], 0.0, false);
        const auto sum = static_cast<size_t>(n * 68 + o);
        Check(second_, n, o, with_bias, ToFloat(added_compute_[sum]), ToFloat(before_compute[sum]),
              sizeof(T) == 2);
      }
      const auto beyond = static_cast<size_t>(n * 68 + 67);
      ASSERT_EQ(BitsOf(added_compute_[beyond]), BitsOf(before_compute[beyond]));
    }
  }
  bool SameAs(const Projection& other) const {
    return set_ == other.set_ && added_ == other.added_ &&
           std::memcmp(compute_.data(), other.compute_.data(), compute_.size() * sizeof(T)) == 0 &&
           std::memcmp(added_compute_.data(), other.added_compute_.data(),
                       added_compute_.size() * sizeof(T)) == 0;
  }

 private:
  static constexpr int64_t kK = 128, kLdx = 130;

  void Check(const Frozen& frozen, int64_t n, int64_t o, bool with_bias, float got, double before,
             bool rounded) const {
    std::vector<float> row(kK);
    format::DecodeRow(frozen.view(), o, row.data());
    std::vector<T> weights;
    for (const float w : row) weights.push_back(To<T>(w));
    const T* x = &x_[static_cast<size_t>(n * kLdx)];
    const Sum exact = DotOf(x, row.data(), kK), by_rounded = DotOf(x, weights.data(), kK);
    const double bias = with_bias ? static_cast<double>(bias_[static_cast<size_t>(o)]) : 0.0;
    // Products of few rows may take the weights as they are.
    const double without = static_cast<double>(got) - bias - before;
    const Sum& sum =
        N_ <= kFewRows && std::fabs(without - exact.value) < std::fabs(without - by_rounded.value)
            ? exact
            : by_rounded;
    ExpectSum(got, sum.value + bias + before, sum.magnitude + std::fabs(bias) + std::fabs(before), kK,
              rounded ? 0x1p-8 : 0.0);
  }

  Frozen first_, second_;
  int64_t N_;
  std::vector<T> x_;
  std::vector<float> bias_;
  std::vector<T> compute_, added_compute_;
  std::vector<float> set_, added_;
};

TEST(Project, SharesItsInputAndSetsRoundsOrAdds) {
  OnEachCore([](Isa isa, auto type) {
    using T = decltype(type);
    for (const int64_t N : {int64_t{1}, int64_t{5}, kFewRows, kFewRows + 1, int64_t{20}, int64_t{55}}) {
      for (const bool with_bias : {false, true}) {
        SCOPED_TRACE(std::to_string(N) + (with_bias ? " rows, biased" : " rows"));
        Projection<T>(isa, 1, N, with_bias).ExpectRight(with_bias);
      }
    }
  });
}

TEST(Project, SameBitsForAnyThreadCount) {
  OnEachCore([](Isa isa, auto type) {
    using T = decltype(type);
    for (const int64_t N : {int64_t{2}, int64_t{40}}) {
      const Projection<T> one(isa, 1, N, true);
      EXPECT_TRUE(one.SameAs(Projection<T>(isa, 2, N, true)));
      EXPECT_TRUE(one.SameAs(Projection<T>(isa, 3, N, true)));
    }
  });
}

TEST(Project, NothingToDo) {
  const Context context{Isa::kBaseline, 2};
  Project<float>(context, nullptr, 0, 3, {}, nullptr);
  const Frozen frozen(Format::kF32, 4, 8, false, 1);
  const Product product{&frozen.view(), nullptr, Product::Store::kF32, nullptr, 4};
  Project<float>(context, nullptr, 8, 0, {&product, 1}, nullptr);
}

TEST(EmbedRows, DecodesTheRowsOfIds) {
  const Frozen frozen(Format::kQ8_0, 9, 64, false, 5);
  const std::vector<float> expected = frozen.Decode();
  const std::vector<int32_t> ids = {8, 0, 3, 3, 7};
  for (const Isa isa : IsasHere()) {
    for (const int threads : {1, 2}) {
      std::vector<float> out(5 * 70, 77.0f);
      EmbedRows({isa, threads}, frozen.view(), ids.data(), 5, out.data(), 70);
      for (size_t n = 0; n < ids.size(); ++n) {
        for (size_t k = 0; k < 70; ++k)
          ASSERT_EQ(out[n * 70 + k], k < 64 ? expected[static_cast<size_t>(ids[n]) * 64 + k] : 77.0f);
      }
    }
  }
}

TEST(DecodeMatrix, IsTheReferenceInEveryFormat) {
  for (const DecodeCase& c : kDecodeCases) {
    SCOPED_TRACE(Name(c));
    const Frozen frozen = Make(c, 6);
    const std::vector<float> expected = frozen.Decode();
    const int64_t ld = c.cols + 3;
    for (const Isa isa : IsasHere()) {
      for (const int threads : {1, 2, 7}) {
        std::vector<float> out(static_cast<size_t>(c.rows * ld), 77.0f);
        DecodeMatrix({isa, threads}, frozen.view(), out.data(), ld);
        for (int64_t i = 0; i < c.rows * ld; ++i) {
          const int64_t k = i % ld;
          const float want = k < c.cols ? expected[static_cast<size_t>(i / ld * c.cols + k)] : 77.0f;
          ASSERT_EQ(BitsOf(out[static_cast<size_t>(i)]), BitsOf(want)) << i / ld << ", " << k;
        }
      }
    }
  }
}

TEST(PanelFor, Bf16OnlyWithDotProducts) {
  EXPECT_EQ(PanelFor<Bf16>(Isa::kBaseline), nullptr);
  EXPECT_EQ(PanelFor<Bf16>(Isa::kAvx2), nullptr);
  EXPECT_EQ(PanelFor<Bf16>(Isa::kAvx512), nullptr);
  EXPECT_EQ(MeasurePeakFlops<Bf16>({Isa::kBaseline, 1}), 0.0);
}

// A round is one multiply-add per lane of the tile: at most two a cycle, at most 6 GHz.
TEST(Peak, IsAPlausibleNumber) {
  const double flops = MeasurePeakFlops<float>({BestIsa(), 1});
  EXPECT_GT(flops, 1e8);
  EXPECT_LT(flops, 6e9 * 2 * 2 * 16);
}

}  // namespace
}  // namespace rung::cpu
