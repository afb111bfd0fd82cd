#include "ops/attention.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace rung::ops {
namespace {

constexpr int64_t kN = 40, kHeads = 3, kD = 8, kStep = 3 * kD, kFused = kHeads * kStep;
constexpr int64_t kReach = (kHeads - 1) * kStep + kD;

cpu::AttentionShape FusedShape() {
  cpu::AttentionShape shape{kHeads, kHeads, kD, 1.0f};
  shape.q_step = shape.kv_step = kStep;
  return shape;
}

// q, k, v of a fused layer are views of its rows, and so are their gradients.
TEST(Attention, TakesTheHeadsOfAFusedLayer) {
  Slab slab(4 << 20);
  Exec exec(Arena(slab.base(), slab.bytes()), cpu::Context{cpu::BestIsa(), 2}, DType::kF32);
  const auto make = [&](int64_t cols) {
    return exec.arena().Keep(DType::kF32, kN, cols, Use::kBackbone, "test");
  };
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  const auto fill = [&](const Tensor& t) {
    for (int64_t i = 0; i < t.size(); ++i) Out{t}.as<float>()[i] = normal(random);
  };
  const Tensor fused = make(kFused), out = make(kHeads * kD), dout = make(kHeads * kD), d = make(kFused);
  const Tensor lse = make(kHeads);
  fill(fused);
  fill(dout);
  const Tensor q = fused.Cols(0, kReach), k = fused.Cols(kD, kReach), v = fused.Cols(2 * kD, kReach);
  cpu::AttentionShape shape = FusedShape();
  shape.window = 5;
  shape.score_cap = 2.0f;
  const std::vector<cpu::AttentionSpan> spans = {{0, kN, 0, kN}};
  const Out kept{lse};
  Attention(exec, shape, spans, q, k, v, Out{out}, &kept, Use::kBackbone);
  AttentionGrad(exec, shape, spans, q, k, v, out, dout, lse, Out{d.Cols(0, kReach)}, Out{d.Cols(kD, kReach)},
                Out{d.Cols(2 * kD, kReach)}, Use::kBackbone);

  // The loss sum(dout * out) of head 1 in double, one element of the fused row n, c moved.
  const auto* x = In(fused).as<float>();
  const auto loss = [&](int64_t n, int64_t c, double move) {
    const auto at = [&](int64_t row, int64_t col) {
      return static_cast<double>(x[row * kFused + col]) + (row == n && col == c ? move : 0.0);
    };
    double total = 0;
    for (int64_t i = 0; i < kN; ++i) {
      double sum = 0, weighted = 0;
      for (int64_t j = std::max<int64_t>(0, i - 4); j <= i; ++j) {
        double s = 0, value = 0;
        for (int64_t e = 0; e < kD; ++e) {
          s += at(i, kStep + e) * at(j, kStep + kD + e);
          value +=
              at(j, kStep + 2 * kD + e) * static_cast<double>(In(dout).as<float>()[i * kHeads * kD + kD + e]);
        }
        const double w = std::exp(2.0 * std::tanh(s / 2.0));
        sum += w;
        weighted += w * value;
      }
      total += weighted / sum;
    }
    return total;
  };
  for (const int64_t n : {int64_t{0}, int64_t{1}, int64_t{20}, kN - 1}) {
    for (int64_t c = kStep; c < 2 * kStep; ++c) {
      const double want = (loss(n, c, 1e-5) - loss(n, c, -1e-5)) / 2e-5;
      ASSERT_NEAR(static_cast<double>(In(d).as<float>()[n * kFused + c]), want, 1e-5 * (1 + std::fabs(want)))
          << n << "," << c;
    }
  }
}

TEST(AttentionDeathTest, RefusesWidthsThatDoNotFitTheHeads) {
  Exec plan = Exec::Planning({cpu::BestIsa(), 1}, DType::kF32);
  const auto shape_of = [](int64_t rows, int64_t cols) {
    return Tensor{nullptr, DType::kF32, rows, cols, cols};
  };
  const Tensor reach = shape_of(kN, kReach), dense = shape_of(kN, kHeads * kD);
  const std::vector<cpu::AttentionSpan> spans = {{0, kN, 0, kN}};
  const auto run = [&](const cpu::AttentionShape& shape, const Tensor& q, const Tensor& k,
                       const Tensor& out) {
    Attention(plan, shape, spans, q, k, k, Out{out}, nullptr, Use::kBackbone);
  };
  run(FusedShape(), reach, reach, dense);
  EXPECT_DEATH(run(FusedShape(), dense, reach, dense), "q must be");
  EXPECT_DEATH(run(FusedShape(), reach, dense, dense), "k, v must be");
  EXPECT_DEATH(run(FusedShape(), reach, reach, reach), "out must be");
  cpu::AttentionShape overlapping = FusedShape();
  overlapping.q_step = kD - 1;
  EXPECT_DEATH(run(overlapping, reach, reach, dense), "must not overlap");
}

// A row that no span covers would stay as the memory was.
TEST(AttentionDeathTest, RefusesSpansThatDoNotCoverTheRows) {
  Exec plan = Exec::Planning({cpu::BestIsa(), 1}, DType::kF32);
  const Slab slab(1 << 12);
  Exec running(Arena(slab.base(), slab.bytes()), {cpu::BestIsa(), 1}, DType::kF32);  // dies before it runs
  const auto shape_of = [](int64_t rows, int64_t cols) {
    return Tensor{nullptr, DType::kF32, rows, cols, cols};
  };
  const cpu::AttentionShape shape{kHeads, kHeads, kD, 1.0f};
  const Tensor q = shape_of(kN, kHeads * kD), cache = shape_of(2 * kN, kHeads * kD),
               lse = shape_of(kN, kHeads);
  using Spans = std::vector<cpu::AttentionSpan>;
  const auto run = [&](Exec& ex, const Spans& spans) {
    Attention(ex, shape, spans, q, cache, cache, Out{q}, nullptr, Use::kBackbone);
  };
  run(plan, {{0, 10, 0, 20}, {10, kN - 10, 30, kN}});
  run(plan, {{0, kN, 0, kN}, {0, kN, kN, kN}});  // a bound
  EXPECT_DEATH(run(running, {{0, 10, 0, 20}}), "spans cover all rows");
  EXPECT_DEATH(run(running, {{0, 10, 0, 20}, {11, kN - 11, 30, kN}}), "spans cover all rows");
  EXPECT_DEATH(run(running, {{0, kN, 0, kN}, {0, kN, kN, kN}}), "spans cover all rows");
  EXPECT_DEATH(run(plan, {{0, kN + 1, 0, kN + 1}}), "rows of q");
  EXPECT_DEATH(run(plan, {{0, kN, kN + 1, kN}}), "rows of k");
  EXPECT_DEATH(run(plan, {{0, kN, 0, kN - 1}}), "rows of k");
  const auto back = [&](const Tensor& keys) {
    AttentionGrad(plan, shape, Spans{{0, kN, 0, kN}}, q, keys, keys, q, q, lse, Out{q}, Out{keys}, Out{keys},
                  Use::kBackbone);
  };
  back(q);
  EXPECT_DEATH(back(cache), "rows of q");
}

}  // namespace
}  // namespace rung::ops
