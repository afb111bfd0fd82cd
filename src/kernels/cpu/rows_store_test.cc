// Row kernels of storage and of dropout: eight-bit rows, pooled columns, masks.
#include <cmath>

#include "base/rng.h"
#include "kernels/cpu/rows.h"
#include "kernels/cpu/rows_testing.h"

namespace rung::cpu {
namespace {

// (N,C) of eight-bit values with a canary between rows.
struct Codes {
  static constexpr int8_t kCanary = -128;  // no code
  Codes(int64_t rows, int64_t cols) : ld(cols + 3), data(static_cast<size_t>(rows * ld), kCanary) {}
  int8_t at(int64_t n, int64_t c) const { return data[static_cast<size_t>(n * ld + c)]; }
  bool SameBits(const Codes& other) const { return data == other.data; }
  int64_t ld;
  std::vector<int8_t> data;
};

template <class T>
double LargestOfRow(const Matrix<T>& x, int64_t n) {
  double top = 0.0;
  for (int64_t c = 0; c < x.C; ++c) top = std::max(top, std::fabs(x(n, c)));
  return top;
}

template <class T>
void TestQuantize() {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    auto x = Matrix<T>::Random(N, C, 1, -3.0, 3.0);
    for (int64_t c = 0; c < C; ++c) {
      Assign(x.at(2, c), 0.0);
      Assign(x.at(3, c), x(3, c) * 0x1p-140);  // below every scale: counts as zero
    }
    Matrix<float> scale(1, N);
    const Codes q = OnThreads(context, [&](const Context& on) {
      Codes codes(N, C);
      Matrix<float> s(1, N);
      QuantizeRows(on, x.ptr(), x.ld, N, C, codes.data.data(), codes.ld, s.ptr());
      if (on.threads == 1) scale = s;
      EXPECT_TRUE(scale.SameBits(s));
      return codes;
    });
    ExpectNear(scale, 1e-7, 0.0,
               [&](int64_t, int64_t n) { return n == 2 || n == 3 ? 0.0 : LargestOfRow(x, n) / 127.0; });
    int bad = 0;
    for (int64_t n = 0; n < N && bad < 5; ++n) {
      for (int64_t c = C; c < q.ld; ++c) bad += q.at(n, c) != Codes::kCanary;
      const double step = LargestOfRow(x, n) / 127.0;
      for (int64_t c = 0; c < C; ++c) {
        const double want = n == 2 || n == 3 ? 0.0 : x(n, c) / step;
        // Half a step, and f32 rounding of a quotient of up to 127.
        if (std::fabs(q.at(n, c) - want) > 0.5 + 127 * 3e-7) ++bad;
      }
    }
    EXPECT_EQ(bad, 0);

    const auto y = OnThreads(context, [&](const Context& on) {
      Matrix<T> out(N, C, 2);
      DequantizeRows(on, q.data.data(), q.ld, scale.ptr(), N, C, out.ptr(), out.ld);
      return out;
    });
    ExpectNear(y, Tolerance<T>(1e-7), 0.0,
               [&](int64_t n, int64_t c) { return static_cast<double>(q.at(n, c)) * scale(0, n); });
  });
}
TEST(QuantizeRows, IsTheNearestOf255Values) { TestQuantize<float>(); }
TEST(QuantizeRows, IsTheNearestOf255ValuesFromBf16) { TestQuantize<Bf16>(); }

TEST(QuantizeRows, TiesGoToEvenAndNothingIsHidden) {
  for (int isa = 0; isa <= static_cast<int>(BestIsa()); ++isa) {
    const Context context{static_cast<Isa>(isa), 1};
    // scale is 1 exactly
    const std::vector<float> x = {127,   0.5f,  1.5f, 2.5f, -0.5f, -1.5f, -2.5f, 126.5f, -126.5f, -127,
                                  0.25f, 0.75f, 3,    -4,   5.5f,  6.5f,  7.5f,  8.5f,   9.5f};
    const std::vector<int8_t> want = {127, 0, 2, 2, 0, -2, -2, 126, -126, -127, 0, 1, 3, -4, 6, 6, 8, 8, 10};
    const auto C = static_cast<int64_t>(x.size());
    std::vector<int8_t> q(x.size());
    float scale = 0.0f;
    QuantizeRows(context, x.data(), C, 1, C, q.data(), C, &scale);
    EXPECT_EQ(scale, 1.0f);
    EXPECT_EQ(q, want);
    for (const float odd : {INFINITY, -INFINITY, NAN}) {
      for (const size_t at : {size_t{0}, size_t{5}, size_t{18}}) {
        std::vector<float> spoiled = x;
        spoiled[at] = odd;
        QuantizeRows(context, spoiled.data(), C, 1, C, q.data(), C, &scale);
        EXPECT_TRUE(std::isnan(scale)) << odd << " at " << at;
      }
    }
  }
}

template <class T>
void TestPool() {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    const auto x = Matrix<T>::Random(N, C, 1);
    for (const int64_t S : {int64_t{1}, (C + 7) / 8, C / 3 + 1, C - C / 5, C}) {
      const auto y = OnThreads(context, [&](const Context& on) {
        Matrix<float> out(N, S, 2);
        PoolColumns(on, x.ptr(), x.ld, N, C, out.ptr(), out.ld, S);
        return out;
      });
      // Sums of up to 576 terms of at most 2, over sqrt(576).
      ExpectNear(y, 1e-6, 10.0, [&](int64_t n, int64_t s) {
        const double width = static_cast<double>(C) / static_cast<double>(S);
        const auto begin = static_cast<int64_t>(std::floor(static_cast<double>(s) * width + 1e-9));
        const auto end = static_cast<int64_t>(std::ceil(static_cast<double>(s + 1) * width - 1e-9));
        double sum = 0.0;
        for (int64_t c = begin; c < end; ++c) sum += x(n, c);
        return sum / std::sqrt(static_cast<double>(end - begin));
      });
    }
  });
}
TEST(PoolColumns, SumsWindowsThatCoverEveryColumn) { TestPool<float>(); }
TEST(PoolColumns, SumsWindowsThatCoverEveryColumnOfBf16) { TestPool<Bf16>(); }

// 0 or 1/(1-p), by the generator itself.
double FactorOf(const Dropout& d, int64_t C, int64_t n, int64_t c) {
  const Rng rng(d.seed, Stream::kDropout, d.stream);
  const float u = rng.Uniform((d.draw << 34) + static_cast<uint64_t>((d.first_row + n) * C + c));
  return u >= d.p ? 1.0 / (1.0 - static_cast<double>(d.p)) : 0.0;
}

template <class T>
void TestDrop() {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    for (const float p : {0.1f, 0.5f}) {
      const Dropout d{p, 0xfedcba9876543210, (uint64_t{1} << 30) - 1, 0xfffffff5u};
      for (const int64_t padding : {0, 3}) {  // dense rows are cut elsewhere
        const auto x = Matrix<T>::Random(N, C, 1, -2.0, 2.0, padding);
        const auto y = OnThreads(context, [&](const Context& on) {
          Matrix<T> out(N, C, padding);
          Drop(on, d, x.ptr(), x.ld, N, C, out.ptr(), out.ld);
          return out;
        });
        ExpectNear(y, Tolerance<T>(2e-7), 0.0,
                   [&](int64_t n, int64_t c) { return x(n, c) * FactorOf(d, C, n, c); });
        Matrix<T> in_place = x;
        Drop(context, d, in_place.ptr(), x.ld, N, C, in_place.ptr(), x.ld);
        EXPECT_TRUE(in_place.SameBits(y));
      }
    }
    const auto x = Matrix<T>::Random(N, C, 1);
    Matrix<T> y(N, C);
    Drop(context, Dropout{}, x.ptr(), x.ld, N, C, y.ptr(), y.ld);
    ExpectNear(y, 0.0, 0.0, [&](int64_t n, int64_t c) { return x(n, c); });
  });
}
TEST(Drop, IsAFunctionOfSeedDrawStreamAndPlace) { TestDrop<float>(); }
TEST(Drop, IsAFunctionOfSeedDrawStreamAndPlaceInBf16) { TestDrop<Bf16>(); }

TEST(DropGrad, AddsByTheSameMask) {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    for (const float p : {0.0f, 0.25f}) {
      const Dropout d{p, 7, 3, 1};
      const auto dy = Matrix<float>::Random(N, C, 1), dx0 = Matrix<float>::Random(N, C, 2, -1.0, 1.0, 5);
      const auto dx = OnThreads(context, [&](const Context& on) {
        Matrix<float> out = dx0;
        DropGrad(on, d, dy.ptr(), dy.ld, N, C, out.ptr(), out.ld);
        return out;
      });
      ExpectNear(dx, 2e-7, 1.0,
                 [&](int64_t n, int64_t c) { return dx0(n, c) + dy(n, c) * FactorOf(d, C, n, c); });
    }
  });
}

// A tile of rows drops what the whole drops there, whatever its borders do to groups of words.
template <class T>
void TestDropOfTiles() {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    const Dropout d{0.3f, 9, 2, 4};
    for (const int64_t padding : {0, 3}) {
      const auto x = Matrix<T>::Random(N, C, 1, -2.0, 2.0, padding);
      Matrix<T> whole(N, C, padding), tiles(N, C, padding);
      Drop(context, d, x.ptr(), x.ld, N, C, whole.ptr(), whole.ld);
      for (int64_t begin = 0, rows = 0; begin < N; begin += rows) {
        rows = std::min<int64_t>(N - begin, 1 + begin % 5);
        Dropout tile = d;
        tile.first_row = begin;
        const int64_t at = begin * x.ld;
        Drop(context, tile, x.ptr() + at, x.ld, rows, C, tiles.ptr() + at, tiles.ld);
      }
      EXPECT_TRUE(tiles.SameBits(whole));
    }
  });
}
TEST(Drop, TilesDropWhatTheWholeDrops) { TestDropOfTiles<float>(); }
TEST(Drop, TilesDropWhatTheWholeDropsInBf16) { TestDropOfTiles<Bf16>(); }

TEST(DropGrad, FollowsTheFirstRow) {
  ForEachSize([](const Context& context, int64_t N, int64_t C) {
    const Dropout d{0.25f, 7, 3, 1, 5};
    const auto dy = Matrix<float>::Random(N, C, 1);
    const auto dx0 = Matrix<float>::Random(N, C, 2);
    Matrix<float> dx = dx0;
    DropGrad(context, d, dy.ptr(), dy.ld, N, C, dx.ptr(), dx.ld);
    ExpectNear(dx, 2e-7, 1.0,
               [&](int64_t n, int64_t c) { return dx0(n, c) + dy(n, c) * FactorOf(d, C, n, c); });
  });
}

TEST(Drop, DropsTheShareThatIsAskedFor) {
  constexpr int64_t kCount = 1 << 18;
  const std::vector<float> ones(kCount, 1.0f);
  std::vector<float> y(kCount), other(kCount);
  const Context context{BestIsa(), 1};
  for (const float p : {0.05f, 0.5f, 0.9f}) {
    Drop(context, Dropout{p, 1, 0, 0}, ones.data(), kCount, 1, kCount, y.data(), kCount);
    double kept = 0.0;
    for (const float v : y) kept += v != 0.0f;
    const double want = 1.0 - static_cast<double>(p);  // five standard deviations
    EXPECT_NEAR(kept / kCount, want, 5 * std::sqrt(want * (1 - want) / kCount));
  }
  // Draws and streams have masks of their own.
  Drop(context, Dropout{0.5f, 1, 0, 0}, ones.data(), kCount, 1, kCount, y.data(), kCount);
  for (const Dropout& d : {Dropout{0.5f, 1, 1, 0}, Dropout{0.5f, 1, 0, 1}, Dropout{0.5f, 2, 0, 0}}) {
    Drop(context, d, ones.data(), kCount, 1, kCount, other.data(), kCount);
    double same = 0.0;
    for (size_t i = 0; i < y.size(); ++i) same += y[i] == other[i];
    EXPECT_NEAR(same / kCount, 0.5, 5 * std::sqrt(0.25 / kCount));
  }
}

}  // namespace
}  // namespace rung::cpu
