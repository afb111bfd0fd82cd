// For tests of row kernels: strided matrices, the sizes and machines to run on, and comparison with f64.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "base/half.h"
#include "kernels/cpu/isa.h"

namespace rung::cpu {

inline void Assign(float* p, double x) { *p = static_cast<float>(x); }
inline void Assign(Bf16* p, double x) { *p = ToBf16(static_cast<float>(x)); }

// (rows, cols) with NaN between the rows: a kernel that reads there spoils its result, one that writes is
// seen.
template <class T>
struct Matrix {
  Matrix(int64_t rows, int64_t cols, int64_t padding = 3)
      : N(rows), C(cols), ld(cols + padding), data(static_cast<size_t>(rows * ld)) {
    for (T& x : data) Assign(&x, std::numeric_limits<double>::quiet_NaN());
  }
  static Matrix Random(int64_t rows, int64_t cols, uint32_t seed, double low = -2.0, double high = 2.0,
                       int64_t padding = 3) {
    Matrix m(rows, cols, padding);
    std::minstd_rand random(seed);
    for (int64_t n = 0; n < rows; ++n) {
      for (int64_t c = 0; c < cols; ++c) {
        Assign(m.at(n, c), low + (high - low) * static_cast<double>(random()) / 2147483647.0);
      }
    }
    return m;
  }
  T* at(int64_t n, int64_t c) { return &data[static_cast<size_t>(n * ld + c)]; }
  double operator()(int64_t n, int64_t c) const {
    return static_cast<double>(ToFloat(data[static_cast<size_t>(n * ld + c)]));
  }
  T* ptr() { return data.data(); }
  const T* ptr() const { return data.data(); }
  bool SameBits(const Matrix& other) const {
    return std::memcmp(data.data(), other.data.data(), data.size() * sizeof(T)) == 0;
  }

  int64_t N, C, ld;
  std::vector<T> data;
};

// Every element within tolerance * (|expected| + floor), and the padding still NaN.
template <class T, class Reference>
void ExpectNear(const Matrix<T>& got, double tolerance, double floor, const Reference& expected) {
  int64_t bad = 0;
  for (int64_t n = 0; n < got.N; ++n) {
    for (int64_t c = 0; c < got.ld && bad < 4; ++c) {
      if (c >= got.C) {
        EXPECT_TRUE(std::isnan(got(n, c))) << "wrote between rows at (" << n << "," << c << ") " << ++bad;
        continue;
      }
      const double want = expected(n, c), limit = tolerance * (std::fabs(want) + floor);
      if (std::fabs(got(n, c) - want) <= limit) continue;
      ADD_FAILURE() << "(" << n << "," << c << "): " << got(n, c) << ", expected " << want;
      ++bad;
    }
  }
}

template <class T>
constexpr double Tolerance(double f32) {
  return sizeof(T) == 2 ? 0x1.02p-8 : f32;  // bf16: half a unit in the last place, and a little for f32
}

// Calls run(context, N, C): every instruction set of this machine, odd and even widths, enough rows for
// threads.
template <class Run>
void ForEachSize(const Run& run) {
  for (int isa = 0; isa <= static_cast<int>(BestIsa()); ++isa) {
    for (const int64_t C : {1, 3, 16, 17, 64, 576}) {
      const int64_t N = 16384 / C + 7;
      const Context context{static_cast<Isa>(isa), 1};
      SCOPED_TRACE(testing::Message() << NameOf(context.isa) << " N=" << N << " C=" << C);
      run(context, N, C);
    }
  }
}

// compute(context) -> Matrix for 1, 2 and 3 threads: the same bits. Returns that of one thread.
template <class Compute>
auto OnThreads(Context context, const Compute& compute) {
  const auto one = compute(context);
  for (const int threads : {2, 3}) {
    context.threads = threads;
    EXPECT_TRUE(one.SameBits(compute(context))) << "not the same bits with " << threads << " threads";
  }
  return one;
}

}  // namespace rung::cpu
