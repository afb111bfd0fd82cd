// Products with frozen matrices behind the one door: types, shapes, and memory as planned.
#include "ops/products.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <vector>

#include "base/rng.h"
#include "kernels/cpu/frozen_testing.h"
#include "kernels/cpu/panel.h"

namespace rung::ops {
namespace {

// A tensor with memory of its own, rows of `cols + 2` elements, numbers in [-1,1).
class Numbers {
 public:
  Numbers(DType dtype, int64_t rows, int64_t cols, uint32_t seed, int64_t gap = 2)
      : memory_(static_cast<size_t>(rows * (cols + gap)) * SizeOf(dtype)),
        tensor_{memory_.base(), dtype, rows, cols, cols + gap} {
    const Rng rng(3, Stream::kInit, seed);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < cols; ++c) {
        const float value = 2.0f * rng.Uniform(static_cast<uint64_t>(r * cols + c)) - 1.0f;
        if (dtype == DType::kBf16) {
          memory_.as<Bf16>()[r * tensor_.stride + c] = ToBf16(value);
        } else {
          memory_.as<float>()[r * tensor_.stride + c] = value;
        }
      }
    }
  }
  const Tensor& tensor() const { return tensor_; }
  double At(int64_t r, int64_t c) const {
    const int64_t i = r * tensor_.stride + c;
    return tensor_.dtype == DType::kBf16 ? ToFloat(memory_.as<Bf16>()[i]) : memory_.as<float>()[i];
  }

 private:
  Slab memory_;
  Tensor tensor_;
};

std::vector<DType> TypesHere() {
  std::vector<DType> types = {DType::kF32};
  if (cpu::PanelFor<Bf16>(cpu::BestIsa())) types.push_back(DType::kBf16);
  return types;
}

// Plans `body`, then runs it in exactly the memory that the plan asked for.
void PlanAndRun(DType compute, const std::function<void(Exec&)>& body) {
  const cpu::Context context{cpu::BestIsa(), 2};
  Exec plan = Exec::Planning(context, compute);
  body(plan);
  const Slab slab(std::max<size_t>(plan.arena().peak().bytes, Arena::kAlignment));
  Exec run(Arena(slab.base(), slab.bytes()), context, compute);
  body(run);
  EXPECT_EQ(run.arena().peak().bytes, plan.arena().peak().bytes);
  EXPECT_EQ(run.fingerprint(), plan.fingerprint());
  EXPECT_EQ(run.flops(), plan.flops());
}

// |got - expected| within the rounding of `terms` sums of numbers below 1, and of one store.
void ExpectNear(double got, double expected, int64_t terms, double rounding) {
  ASSERT_NEAR(
      got, expected,
      static_cast<double>(terms) * static_cast<double>(terms) * 0x1p-24 + rounding * std::fabs(expected));
}

// Weights as the products see them: rounded to the compute type.
double Rounded(double w, DType compute) {
  return compute == DType::kBf16 ? ToFloat(ToBf16(static_cast<float>(w))) : w;
}

TEST(ProductsTest, GradientOfAFrozenInputSetsOrAdds) {
  for (const DType compute : TypesHere()) {
    const int64_t N = 20, O = 33, K = 128;
    const Numbers w(DType::kF32, O, K, 1, 0), dy(compute, N, O, 2), before(DType::kF32, N, K, 3);
    const format::Matrix weight = AsMatrix(w.tensor());
    for (const bool add : {false, true}) {
      const Numbers dx(DType::kF32, N, K, 3);
      PlanAndRun(compute, [&](Exec& ex) {
        if (add) {
          ProjectFrozenGradInput(ex, dy.tensor(), weight, Acc{dx.tensor()});
        } else {
          ProjectFrozenGradInput(ex, dy.tensor(), weight, Out{dx.tensor()});
        }
        EXPECT_EQ(ex.flops(), 2.0 * N * O * K);
      });
      for (int64_t n = 0; n < N; ++n) {
        for (int64_t k = 0; k < K; ++k) {
          double expected = add ? before.At(n, k) : 0.0;
          for (int64_t o = 0; o < O; ++o) expected += dy.At(n, o) * Rounded(w.At(o, k), compute);
          ExpectNear(dx.At(n, k), expected, O + 1, 0.0);
        }
      }
    }
  }
}

// A low-rank pair beside a frozen matrix: out = x W^T, then out += (x A^T) B^T in the compute type.
TEST(ProductsTest, TrainedFactorsAddToAnOutputOfTheComputeType) {
  for (const DType compute : TypesHere()) {
    for (const int64_t N : {3, 60}) {
      const int64_t C = 96, O = 70, R = 8;
      const Numbers b(DType::kF32, O, R, 4, 0), u(compute, N, R, 5), before(compute, N, O, 6),
          bias(DType::kF32, 1, O, 7), out(compute, N, O, 6), a(DType::kF32, R, C, 8, 0), x(compute, N, C, 9),
          down(DType::kF32, N, R, 10);
      const format::Matrix factor = AsMatrix(b.tensor()), first = AsMatrix(a.tensor());
      const FrozenProduct add{&factor, In(bias.tensor()).as<float>(), out.tensor(), true},
          set{&first, nullptr, down.tensor(), false};
      PlanAndRun(compute, [&](Exec& ex) {
        ProjectFrozen(ex, u.tensor(), {&add, 1});
        ProjectFrozen(ex, x.tensor(), {&set, 1});
      });
      const double rounding = compute == DType::kBf16 ? 0x1p-8 : 0.0;
      for (int64_t n = 0; n < N; ++n) {
        for (int64_t o = 0; o < O; ++o) {
          double expected = before.At(n, o) + bias.At(0, o);
          for (int64_t r = 0; r < R; ++r) expected += u.At(n, r) * Rounded(b.At(o, r), compute);
          ExpectNear(out.At(n, o), expected, R + 2, rounding);
        }
        for (int64_t r = 0; r < R; ++r) {
          double expected = 0.0;
          for (int64_t c = 0; c < C; ++c) expected += x.At(n, c) * Rounded(a.At(r, c), compute);
          ExpectNear(down.At(n, r), expected, C, 0.0);
        }
      }
    }
  }
}

// Products of bf16 read columns in pairs. What stands behind the column of zeros is never read.
TEST(ProductsTest, OddWidthInBf16HasAColumnOfZeros) {
  if (!cpu::PanelFor<Bf16>(cpu::BestIsa())) GTEST_SKIP() << "no products of bf16 on this machine";
  for (const int64_t N : {1, 3, 8, 60}) {
    for (const int64_t K : {1, 7, 45, 77}) {
      constexpr int64_t O = 70, kBehind = 128;
      const Numbers w(DType::kF32, O, K, 4, 0), from(DType::kBf16, N, K, 5), out(DType::kF32, N, O, 6);
      std::vector<Bf16> memory(static_cast<size_t>(N * (K + 1) + kBehind), ToBf16(NAN));
      for (int64_t n = 0; n < N; ++n) {
        Bf16* row = memory.data() + n * (K + 1);
        std::copy_n(In(from.tensor()).as<Bf16>() + n * from.tensor().stride, K, row);
        row[K] = Bf16{};
      }
      const Tensor x = View(memory.data(), N, K + 1).Cols(0, K);
      const format::Matrix weight = AsMatrix(w.tensor());
      const FrozenProduct product{&weight, nullptr, out.tensor(), false};
      PlanAndRun(DType::kBf16, [&](Exec& ex) { ProjectFrozen(ex, x, {&product, 1}); });
      for (int64_t n = 0; n < N; ++n) {
        for (int64_t o = 0; o < O; ++o) {
          double expected = 0.0;
          for (int64_t k = 0; k < K; ++k) expected += from.At(n, k) * Rounded(w.At(o, k), DType::kBf16);
          ExpectNear(out.At(n, o), expected, K + 1, 0.0);
        }
      }
    }
  }
}

TEST(ProductsTest, DecodeIsTheReference) {
  const cpu::Frozen frozen(format::Format::kNf4, 19, 192, true, 7);
  const std::vector<float> want = frozen.Decode();
  const Numbers out(DType::kF32, 19, 192, 8);
  PlanAndRun(DType::kF32, [&](Exec& ex) { Decode(ex, frozen.view(), Out{out.tensor()}); });
  for (int64_t o = 0; o < 19; ++o) {
    for (int64_t k = 0; k < 192; ++k) {
      ASSERT_EQ(out.At(o, k), static_cast<double>(want[static_cast<size_t>(o * 192 + k)]));
    }
  }
}

// Nothing behind the pointers is read while a plan is made.
TEST(ProductsTest, PlansWithoutData) {
  Exec plan = Exec::Planning({cpu::BestIsa(), 2}, DType::kF32);
  const Tensor w{nullptr, DType::kF32, 33, 128, 128};
  const format::Matrix weight = AsMatrix(w);
  const Tensor dy = plan.arena().Keep(DType::kF32, 20, 33, Use::kRungs, "dy"),
               dx = plan.arena().Keep(DType::kF32, 20, 128, Use::kRungs, "dx");
  const FrozenProduct product{&weight, nullptr, dy, true};
  ProjectFrozen(plan, dx, {&product, 1});
  ProjectFrozenGradInput(plan, dy, weight, Out{dx});
  EXPECT_GT(plan.arena().peak().bytes, 20u * (33 + 128) * sizeof(float));
}

TEST(ProductsDeathTest, RefusesWhatDoesNotFit) {
  Exec plan = Exec::Planning({cpu::BestIsa(), 1}, DType::kF32);
  const Tensor w{nullptr, DType::kF32, 33, 128, 128}, wide{nullptr, DType::kF32, 33, 128, 130},
      half{nullptr, DType::kBf16, 33, 128, 128};
  EXPECT_DEATH(AsMatrix(wide), "f32 and contiguous");
  EXPECT_DEATH(AsMatrix(half), "f32 and contiguous");
  const format::Matrix weight = AsMatrix(w);
  const Tensor dy{nullptr, DType::kF32, 20, 33, 33}, dx{nullptr, DType::kF32, 20, 128, 128},
      short_dx{nullptr, DType::kF32, 19, 128, 128}, half_dy{nullptr, DType::kBf16, 20, 33, 33};
  ProjectFrozenGradInput(plan, dy, weight, Out{dx});
  EXPECT_DEATH(ProjectFrozenGradInput(plan, dx, weight, Out{dx}), "weight must be");
  EXPECT_DEATH(ProjectFrozenGradInput(plan, dy, weight, Out{short_dx}), "dx must be");
  EXPECT_DEATH(ProjectFrozenGradInput(plan, half_dy, weight, Out{dx}), "dy must have the compute type");
  const FrozenProduct product{&weight, nullptr, half_dy, true};
  EXPECT_DEATH(ProjectFrozen(plan, dx, {&product, 1}), "out must have the compute type");
  EXPECT_DEATH(Decode(plan, weight, Out{dx}), "out must be");
}

TEST(ProductsDeathTest, RefusesAComputeTypeWithoutProducts) {
  EXPECT_DEATH(Exec::Planning({cpu::Isa::kAvx512, 1}, DType::kBf16), "no products in the compute type");
  EXPECT_DEATH(Exec(Arena(), {cpu::BestIsa(), 1}, DType::kI8), "no products in the compute type");
}

TEST(ProductsDeathTest, RefusesHalfAPairOfBf16) {
  if (!cpu::PanelFor<Bf16>(cpu::BestIsa())) GTEST_SKIP() << "no products of bf16 on this machine";
  Exec plan = Exec::Planning({cpu::BestIsa(), 1}, DType::kBf16);
  const Tensor w{nullptr, DType::kF32, 33, 5, 5}, x{nullptr, DType::kBf16, 20, 5, 5},
      padded{nullptr, DType::kBf16, 20, 5, 6}, out{nullptr, DType::kF32, 20, 33, 33},
      row{nullptr, DType::kI32, 1, 20, 20}, loss{nullptr, DType::kF32, 1, 20, 20};
  const format::Matrix weight = AsMatrix(w);
  const FrozenProduct product{&weight, nullptr, out, false};
  ProjectFrozen(plan, padded, {&product, 1});
  EXPECT_DEATH(ProjectFrozen(plan, x, {&product, 1}), "a column more in memory");
  HeadLoss(plan, padded, weight, 0.0f, row, Out{loss}, nullptr, nullptr);
  EXPECT_DEATH(HeadLoss(plan, x, weight, 0.0f, row, Out{loss}, nullptr, nullptr), "a column more in memory");
  const Out best{row}, shorter{row.Cols(0, 19)};
  HeadLoss(plan, padded, weight, 0.0f, row, Out{loss}, nullptr, &best);
  EXPECT_DEATH(HeadLoss(plan, padded, weight, 0.0f, row, Out{loss}, nullptr, &shorter), "best must be");
}

}  // namespace
}  // namespace rung::ops
