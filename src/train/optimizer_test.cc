#include "train/optimizer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>

#include "base/rng.h"
#include "ops/update.h"

namespace rung::train {
namespace {

std::vector<float> Numbers(int64_t n, uint32_t substream) {
  const Rng random(3, Stream::kInit, substream);
  std::vector<float> x;
  for (int64_t i = 0; i < n; ++i) x.push_back(2.0f * random.Uniform(static_cast<uint64_t>(i)) - 1.0f);
  return x;
}

struct Arrays {
  explicit Arrays(std::vector<int64_t> starts)
      : begins(std::move(starts)), values(Numbers(begins.back(), 0)), gradients(values.size()) {}
  nn::FlatParams Flat() {
    return {View(values.data(), 1, begins.back()), View(gradients.data(), 1, begins.back()), begins};
  }
  std::vector<int64_t> begins;
  std::vector<float> values, gradients;
};

Exec RunningExec(int threads = 1) {
  alignas(64) static std::byte memory[64];  // an arena must have some; an update takes none
  return Exec(Arena(memory, sizeof(memory)), cpu::Context{cpu::BestIsa(), threads}, DType::kF32);
}

OptimizerOptions With(Moments moments) {
  OptimizerOptions options;
  options.weight_decay = 0.1;
  options.max_grad_norm = 0;
  options.moments = moments;
  return options;
}

// A gradient that differs from step to step, then an update.
void Step(Optimizer* optimizer, Arrays* arrays, int t, int threads = 1) {
  arrays->gradients = Numbers(arrays->begins.back(), static_cast<uint32_t>(t));
  Exec ex = RunningExec(threads);
  optimizer->Update(ex, arrays->Flat(), 1e-2, 2);
}

// Large, small, small, large, none, small: two runs of small ones.
const std::vector<int64_t> kMixed = {0, 5000, 5100, 9195, 19195, 19195, 19200};

std::map<std::string, std::vector<std::byte>> StateOf(const Optimizer& optimizer) {
  std::map<std::string, std::vector<std::byte>> state;
  optimizer.ForEachState([&](const std::string& name, const char*, std::span<std::byte> bytes) {
    state[name].assign(bytes.begin(), bytes.end());
  });
  return state;
}

TEST(Optimizer, StateIsTwoNumbersOrTwoCodesAndTheMaxima) {
  EXPECT_EQ(Optimizer::StateBytes(Moments::kF32, {0, 10, 5000}), 2u * 4 * 5000);
  // 4096 and 4097 numbers take 16 and 17 blocks; 4095 keep f32 moments.
  const std::vector<int64_t> begins = {0, 4096, 8193, 12288};
  EXPECT_EQ(Optimizer::StateBytes(Moments::k8Bit, begins), 2u * (8193 + 4 * (16 + 17) + 4 * 4095));
  EXPECT_EQ(Optimizer::StateBytes(Moments::k8Bit, {0}), 0u);
  for (const Moments moments : {Moments::kF32, Moments::k8Bit}) {
    for (const auto& b : {begins, kMixed}) {
      const Optimizer optimizer(With(moments), b);
      size_t bytes = 0;
      for (const auto& [name, data] : StateOf(optimizer)) bytes += data.size();
      EXPECT_EQ(bytes, Optimizer::StateBytes(moments, b));
    }
  }
}

TEST(Optimizer, NamesItsState) {
  std::map<std::string, std::pair<std::string, size_t>> seen;
  Optimizer(With(Moments::k8Bit), kMixed)
      .ForEachState([&](const std::string& name, const char* dtype, std::span<std::byte> bytes) {
        EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % (dtype[0] == 'F' ? 4 : 1), 0u);
        seen[name] = {dtype, bytes.size()};
      });
  const std::map<std::string, std::pair<std::string, size_t>> expected = {
      {"m", {"F32", 4200 * 4}},
      {"v", {"F32", 4200 * 4}},  // 100 + 4095 + 5
      {"m.absmax", {"F32", (20 + 40) * 4}},
      {"v.absmax", {"F32", (20 + 40) * 4}},
      {"m.codes", {"U8", 15000}},
      {"v.codes", {"U8", 15000}}};
  EXPECT_EQ(seen, expected);
}

TEST(Optimizer, GoesOnFromAnotherOnesState) {
  for (const Moments moments : {Moments::kF32, Moments::k8Bit}) {
    Arrays whole(kMixed);
    Optimizer first(With(moments), kMixed), second(With(moments), kMixed);
    for (int t = 1; t <= 3; ++t) Step(&first, &whole, t);
    Arrays resumed = whole;
    const auto saved = StateOf(first);
    second.ForEachState([&](const std::string& name, const char*, std::span<std::byte> bytes) {
      std::copy(saved.at(name).begin(), saved.at(name).end(), bytes.begin());
    });
    second.set_steps(first.steps());
    for (int t = 4; t <= 6; ++t) {
      Step(&first, &whole, t);
      Step(&second, &resumed, t);
    }
    EXPECT_EQ(whole.values, resumed.values);
    EXPECT_EQ(StateOf(first), StateOf(second));
  }
}

// Parameters are updated as if each were alone: small ones as with f32 moments, and no block spans two.
TEST(Optimizer, UpdatesEachParameterAlone) {
  Arrays together(kMixed), f32 = together;
  Optimizer optimizer(With(Moments::k8Bit), kMixed), reference(With(Moments::kF32), kMixed);
  const std::vector<float> start = together.values;
  for (int t = 1; t <= 3; ++t) {
    Step(&optimizer, &together, t);
    Step(&reference, &f32, t);
  }
  for (size_t p = 0; p + 1 < kMixed.size(); ++p) {
    const int64_t begin = kMixed[p], end = kMixed[p + 1];
    const std::vector<float> got(together.values.begin() + begin, together.values.begin() + end);
    if (end - begin < Optimizer::kLeast8Bit) {
      EXPECT_EQ(got, std::vector<float>(f32.values.begin() + begin, f32.values.begin() + end));
      continue;
    }
    Arrays alone({0, end - begin});
    std::copy(start.begin() + begin, start.begin() + end, alone.values.begin());
    Optimizer own(With(Moments::k8Bit), alone.begins);
    for (int t = 1; t <= 3; ++t) {
      const std::vector<float> all = Numbers(kMixed.back(), static_cast<uint32_t>(t));
      std::copy(all.begin() + begin, all.begin() + end, alone.gradients.begin());
      Exec ex = RunningExec();
      own.Update(ex, alone.Flat(), 1e-2, 2);
    }
    EXPECT_EQ(got, alone.values) << "parameter " << p;
  }
}

TEST(Optimizer, DoesNotDependOnTheThreads) {
  const std::vector<int64_t> begins = {0, 40000, 40100, 90000};
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 5}) {
    Arrays arrays(begins);
    Optimizer optimizer(With(Moments::k8Bit), begins);
    for (int t = 1; t <= 3; ++t) Step(&optimizer, &arrays, t, threads);
    results.push_back(arrays.values);
  }
  EXPECT_EQ(results[0], results[1]);
  EXPECT_EQ(results[0], results[2]);
}

TEST(Optimizer, ClipsTheMeanGradientAndClearsIt) {
  for (const Moments moments : {Moments::kF32, Moments::k8Bit}) {
    OptimizerOptions options = With(moments);
    options.max_grad_norm = 2.0;
    Arrays clipped({0, 5000}), scaled = clipped;
    clipped.gradients = Numbers(5000, 1);
    double squares = 0;
    for (const float g : clipped.gradients) squares += static_cast<double>(g) * static_cast<double>(g);
    const double norm = std::sqrt(squares) / 4;
    ASSERT_GT(norm, 2.0);
    for (size_t i = 0; i < 5000; ++i) {
      scaled.gradients[i] = static_cast<float>(static_cast<double>(clipped.gradients[i]) / 4 * 2.0 / norm);
    }
    Exec ex = RunningExec();
    const auto outcome = Optimizer(options, clipped.begins).Update(ex, clipped.Flat(), 1e-2, 4);
    EXPECT_NEAR(outcome.norm, norm, 1e-9 * norm);
    EXPECT_FALSE(outcome.skipped);
    EXPECT_EQ(clipped.gradients, std::vector<float>(5000));
    Optimizer(With(moments), scaled.begins).Update(ex, scaled.Flat(), 1e-2, 1);
    for (size_t i = 0; i < 5000; ++i) ASSERT_NEAR(clipped.values[i], scaled.values[i], 1e-7);
  }
}

TEST(Optimizer, SkipsAGradientThatIsNotFinite) {
  for (const Moments moments : {Moments::kF32, Moments::k8Bit}) {
    Arrays arrays(kMixed);
    Optimizer optimizer(With(moments), kMixed);
    Step(&optimizer, &arrays, 1);
    const std::vector<float> values = arrays.values;
    const auto state = StateOf(optimizer);
    arrays.gradients = Numbers(kMixed.back(), 2);
    arrays.gradients[77] = std::numeric_limits<float>::quiet_NaN();
    Exec ex = RunningExec();
    EXPECT_TRUE(optimizer.Update(ex, arrays.Flat(), 1e-2, 2).skipped);
    EXPECT_EQ(optimizer.steps(), 1);
    EXPECT_EQ(arrays.values, values);
    EXPECT_EQ(StateOf(optimizer), state);
    EXPECT_EQ(arrays.gradients, std::vector<float>(arrays.values.size()));
  }
}

// 1/2 sum c (w - target)^2 with curvatures over four decades and a noisy gradient, 50 steps.
double LossAfterDescent(Moments moments) {
  constexpr int64_t kCount = 8192;
  Arrays arrays({0, kCount});
  const std::vector<float> target = Numbers(kCount, 100), place = Numbers(kCount, 101);
  std::vector<double> curvature;
  for (const float x : place) curvature.push_back(std::pow(10.0, 2.0 * static_cast<double>(x)));
  OptimizerOptions options = With(moments);
  options.weight_decay = 0;
  Optimizer optimizer(options, arrays.begins);
  const auto slope = [&](size_t i) {
    return curvature[i] * (static_cast<double>(arrays.values[i]) - static_cast<double>(target[i]));
  };
  for (int t = 1; t <= 50; ++t) {
    const std::vector<float> noise = Numbers(kCount, static_cast<uint32_t>(t));
    for (size_t i = 0; i < target.size(); ++i) {
      arrays.gradients[i] = static_cast<float>(slope(i) * (1.0 + static_cast<double>(noise[i])));
    }
    Exec ex = RunningExec();
    optimizer.Update(ex, arrays.Flat(), 2e-2, 1);
  }
  double loss = 0;
  for (size_t i = 0; i < target.size(); ++i) loss += 0.5 * slope(i) * slope(i) / curvature[i];
  return loss;
}

TEST(Optimizer, DescendsWith8BitMomentsAsWithF32) {
  const double f32 = LossAfterDescent(Moments::kF32), eight = LossAfterDescent(Moments::k8Bit);
  EXPECT_NEAR(eight / f32, 1.0, 0.05) << f32 << " with f32 moments, " << eight << " with 8 bits";
}

}  // namespace
}  // namespace rung::train
