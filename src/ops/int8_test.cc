// Frozen products in 8 bits behind the one door: who takes them, and memory as planned. Their arithmetic is
// tested in kernels/cpu/int8_test.cc.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/rng.h"
#include "kernels/cpu/frozen_testing.h"
#include "kernels/cpu/panel.h"
#include "ops/products.h"

namespace rung::ops {
namespace {

class Int8ProductsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!cpu::HasInt8()) GTEST_SKIP() << "this machine has no products in 8 bits (AVX-512 BF16 and VNNI)";
  }
};

std::vector<Bf16> Numbers(int64_t count, uint32_t substream) {
  const Rng rng(4, Stream::kInit, substream);
  std::vector<Bf16> out;
  for (int64_t i = 0; i < count; ++i)
    out.push_back(ToBf16(2.0f * rng.Uniform(static_cast<uint64_t>(i)) - 1.0f));
  return out;
}
Tensor ViewOf(std::vector<Bf16>& x, int64_t rows, int64_t cols) {
  return {reinterpret_cast<std::byte*>(x.data()), DType::kBf16, rows, cols, cols};
}
Tensor ViewOf(std::vector<float>& x, int64_t rows, int64_t cols) {
  return {reinterpret_cast<std::byte*>(x.data()), DType::kF32, rows, cols, cols};
}

// Plans `body`, then runs it in exactly the planned memory.
template <class Body>
void PlanAndRun(bool int8, const Body& body) {
  const cpu::Context context{cpu::Isa::kAvx512Bf16, 2, int8};
  Exec plan = Exec::Planning(context, DType::kBf16);
  body(plan);
  const Slab slab(std::max<size_t>(plan.arena().peak().bytes, 1));
  Exec run(Arena(slab.base(), slab.bytes()), context, DType::kBf16);
  body(run);
  EXPECT_EQ(run.arena().peak().bytes, plan.arena().peak().bytes);
  EXPECT_EQ(run.fingerprint(), plan.fingerprint());
}

// x W^T + x V^T for a frozen W and a V that may be a trained factor.
std::vector<float> Forward(bool int8, int64_t N, const format::Matrix& weight, const format::Matrix& other) {
  const int64_t O = weight.rows, K = weight.cols;
  std::vector<Bf16> x = Numbers(N * K, 1);
  std::vector<float> first(static_cast<size_t>(N * O)), second(static_cast<size_t>(N * other.rows));
  const FrozenProduct products[] = {{&weight, nullptr, ViewOf(first, N, O), false},
                                    {&other, nullptr, ViewOf(second, N, other.rows), false}};
  PlanAndRun(int8, [&](Exec& ex) { ProjectFrozen(ex, ViewOf(x, N, K), products); });
  first.insert(first.end(), second.begin(), second.end());
  return first;
}

TEST_F(Int8ProductsTest, ManyRowsOfAFrozenMatrixAreNearWhatBf16Gives) {
  const int64_t N = 50, O = 70, K = 128;
  const cpu::Frozen weight(format::Format::kQ8_0, O, K, false, 2),
      factor(format::Format::kF32, 8, K, false, 3);
  const std::vector<float> bf16 = Forward(false, N, weight.view(), factor.view());
  const std::vector<float> int8 = Forward(true, N, weight.view(), factor.view());
  double error = 0.0, total = 0.0;
  const auto frozen = static_cast<size_t>(N * O);
  for (size_t i = 0; i < frozen; ++i) {
    error += std::pow(static_cast<double>(int8[i]) - static_cast<double>(bf16[i]), 2);
    total += std::pow(static_cast<double>(bf16[i]), 2);
  }
  EXPECT_GT(error, 0.0);
  EXPECT_LT(std::sqrt(error / total), 0.01);
  for (size_t i = frozen; i < bf16.size(); ++i) ASSERT_EQ(int8[i], bf16[i]) << "a trained factor was rounded";
}

TEST_F(Int8ProductsTest, FewRowsAreAsInBf16) {
  const cpu::Frozen weight(format::Format::kQ8_0, 70, 128, false, 2),
      other(format::Format::kF16, 8, 128, false, 3);
  EXPECT_EQ(Forward(true, cpu::kFewRows, weight.view(), other.view()),
            Forward(false, cpu::kFewRows, weight.view(), other.view()));
}

TEST_F(Int8ProductsTest, TheGradientIsThatOfBf16) {
  const int64_t N = 30, O = 66, K = 128;
  const cpu::Frozen weight(format::Format::kQ4_0, O, K, false, 4);
  const auto gradient = [&](bool int8) {
    std::vector<Bf16> dy = Numbers(N * O, 5);
    std::vector<float> dx(static_cast<size_t>(N * K));
    PlanAndRun(int8, [&](Exec& ex) {
      ProjectFrozenGradInput(ex, ViewOf(dy, N, O), weight.view(), Out{ViewOf(dx, N, K)});
    });
    return dx;
  };
  EXPECT_EQ(gradient(true), gradient(false));
}

}  // namespace
}  // namespace rung::ops
