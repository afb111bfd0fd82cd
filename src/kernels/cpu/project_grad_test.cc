// The gradient towards a frozen product's input, on every ISA and in every format, against sums in double
// over what the scalar decoders give.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/cpu/panel_testing.h"

namespace rung::cpu {
namespace {

// O even and odd, below and above a chunk of 1024 rows. K of one strip (not a multiple of 64), of strips of
// one panel and of wider ones. Tiles that are wider than a strip, that end with one and inside one.
const DecodeCase kCases[] = {
    {Format::kF32, 65, 46},
    {Format::kF32, 130, 192},
    {Format::kF16, 65, 98},
    {Format::kBf16, 65, 128},
    {Format::kBf16, 1, 64},
    {Format::kQ8_0, 65, 96},
    {Format::kQ8_0, 64, 576},
    {Format::kQ4_0, 65, 160},
    {Format::kQ4_0, 12, 64},
    {Format::kQ4_1, 65, 224},
    {Format::kQ4_1, 66, 1536},
    {Format::kNf4, 65, 192},
    {Format::kNf4, 66, 1024, true},
    {Format::kNf4, 65, 96},
    {Format::kNf4, 64, 46, true},
    {Format::kNf4, 1027, 128, true},
    {Format::kF32, 2050, 64},
    {Format::kFp4, 65, 192, true},
    {Format::kQ5_0, 65, 192},
    {Format::kQ5_1, 66, 320},
    {Format::kIq4Nl, 65, 192},
    {Format::kMxfp4, 65, 192},
    {Format::kIq4Xs, 65, 1024},
    {Format::kQ2K, 66, 768},
    {Format::kQ3K, 65, 256},
    {Format::kQ4K, 65, 1024},
    {Format::kQ5K, 66, 512},
    {Format::kQ6K, 65, 1280},
    {Format::kF8E4m3, 65, 192},
    {Format::kF8E4m3, 130, 320, false, {128, 128}},
    {Format::kF8E4m3, 65, 192, false, {65, 192}},
    {Format::kF8E4m3, 66, 192, false, {1, 192}},
    {Format::kF8E4m3, 65, 98, false, {4, 24}},
    {Format::kInt4, 66, 384, false, {1, 128}},
    {Format::kInt4, 65, 320, false, {1, 40}},
    {Format::kInt4, 65, 46, false, {1, 46}},
    {Format::kInt4, 66, 320, false, {1, 64, true}},
};

// One call with its own memory: dy and dx wider than the product, scratch that ends where it should.
template <class T>
class Gradient {
 public:
  Gradient(Isa isa, int threads, const Frozen& weight, int64_t N, bool add)
      : weight_(weight), N_(N), add_(add), O_(weight.view().rows), K_(weight.view().cols) {
    // NaN between the rows of dy: it must not be read.
    dy_ = Numbers<T>(N * lddy(), 21);
    for (int64_t n = 0; n < N; ++n) {
      for (int64_t o = O_; o < lddy(); ++o) dy_[At(n, lddy(), o)] = To<T>(kNan);
    }
    dy_.resize(dy_.size() - static_cast<size_t>(lddy() - O_));
    dx_ = Before();
    const Context context{isa, threads};
    const size_t bytes = ProjectGradInputScratch(context, sizeof(T), N, weight.view());
    // All ones are NaN in both types.
    std::vector<std::byte> memory(bytes + 128, std::byte{0xff});
    void* at = memory.data();
    size_t space = memory.size();
    auto* scratch = static_cast<std::byte*>(std::align(64, bytes, at, space));
    ProjectGradInput<T>(context, dy_.data(), lddy(), N, weight.view(), add, dx_.data(), lddx(), scratch);
    for (const std::byte* p = scratch + bytes; p != memory.data() + memory.size(); ++p) {
      EXPECT_EQ(*p, std::byte{0xff}) << "scratch was overrun";
    }
  }
  const std::vector<float>& dx() const { return dx_; }

  void ExpectRight() const {
    const std::vector<float> exact = weight_.Decode();
    std::vector<T> columns(exact.size());  // W by columns, rounded as the kernels round it
    for (int64_t o = 0; o < O_; ++o) {
      for (int64_t k = 0; k < K_; ++k) columns[At(k, O_, o)] = To<T>(exact[At(o, K_, k)]);
    }
    const std::vector<float> before = Before();
    for (int64_t n = 0; n < N_; ++n) {
      for (int64_t k = 0; k < lddx(); ++k) {
        const float got = dx_[At(n, lddx(), k)];
        if (k >= K_) {
          ASSERT_EQ(got, kUntouched);
          continue;
        }
        const Sum sum = DotOf(&dy_[At(n, lddy(), 0)], &columns[At(k, O_, 0)], O_);
        const double old = add_ ? static_cast<double>(before[At(n, lddx(), k)]) : 0.0;
        SCOPED_TRACE(std::to_string(n) + ", " + std::to_string(k));
        ExpectSum(got, sum.value + old, sum.magnitude + std::fabs(old), O_, 0.0);
        if (testing::Test::HasFatalFailure()) return;
      }
    }
  }

 private:
  static constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kUntouched = 77.0f;

  static size_t At(int64_t row, int64_t ld, int64_t col) { return static_cast<size_t>(row * ld + col); }
  int64_t lddy() const { return O_ + 3; }
  int64_t lddx() const { return K_ + 5; }
  // Numbers to be added to, or NaN that must not survive.
  std::vector<float> Before() const {
    std::vector<float> dx = Numbers<float>(N_ * lddx(), 22);
    for (int64_t n = 0; n < N_; ++n) {
      for (int64_t k = 0; k < lddx(); ++k) {
        if (k >= K_) {
          dx[At(n, lddx(), k)] = kUntouched;
        } else if (!add_) {
          dx[At(n, lddx(), k)] = kNan;
        }
      }
    }
    return dx;
  }

  const Frozen& weight_;
  int64_t N_;
  bool add_;
  int64_t O_, K_;
  std::vector<T> dy_;
  std::vector<float> dx_;
};

TEST(ProjectGradInput, SetsOrAddsInEveryFormat) {
  OnEachCore([](Isa isa, auto type) {
    using T = decltype(type);
    for (const DecodeCase& c : kCases) {
      SCOPED_TRACE(Name(c));
      const Frozen weight = Make(c, 31);
      for (const int64_t N : {1, 7, 130}) {
        if (c.rows * c.cols * N > (int64_t{4} << 20)) continue;  // the reference is slow
        for (const bool add : {false, true}) Gradient<T>(isa, 1, weight, N, add).ExpectRight();
      }
    }
  });
}

TEST(ProjectGradInput, SameBitsForAnyThreadCount) {
  OnEachCore([](Isa isa, auto type) {
    using T = decltype(type);
    for (const DecodeCase& c : kCases) {
      SCOPED_TRACE(Name(c));
      const Frozen weight = Make(c, 32);
      for (const int64_t N : {1, 29}) {
        const std::vector<float> one = Gradient<T>(isa, 1, weight, N, true).dx();
        for (const int threads : {2, 3}) EXPECT_EQ(one, Gradient<T>(isa, threads, weight, N, true).dx());
      }
    }
  });
}

TEST(ProjectGradInput, ARowDoesNotDependOnItsBatch) {
  OnEachCore([](Isa isa, auto type) {
    using T = decltype(type);
    const Frozen weight(Format::kQ8_0, 1031, 192, false, 33);
    const std::vector<float> all = Gradient<T>(isa, 2, weight, 40, true).dx();
    for (const int64_t N : {1, 6, 39}) {
      const std::vector<float> few = Gradient<T>(isa, 2, weight, N, true).dx();
      EXPECT_TRUE(std::equal(few.begin(), few.end(), all.begin())) << N;
    }
  });
}

TEST(ProjectGradInput, NothingToDo) {
  const Context context{Isa::kBaseline, 2};
  const Frozen weight(Format::kF32, 4, 8, false, 1);
  EXPECT_EQ(ProjectGradInputScratch(context, sizeof(float), 0, weight.view()), 0u);
  ProjectGradInput<float>(context, nullptr, 4, 0, weight.view(), false, nullptr, 8, nullptr);
}

}  // namespace
}  // namespace rung::cpu
