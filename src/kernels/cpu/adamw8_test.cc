// 8-bit AdamW against a textbook step in f64, and against bitsandbytes on the CPU
// (tests/data/optimizer/adamw8.bin, tools/make_adamw8_golden.py).
#include "kernels/cpu/adamw8.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/half.h"
#include "base/rng.h"

namespace rung::cpu {
namespace {

class GoldenFile {
 public:
  GoldenFile() {
    std::ifstream in("tests/data/optimizer/adamw8.bin", std::ios::binary);
    RUNG_CHECK(in.good(), "no such golden file: tests run in the root of the repository");
    bytes_.assign(std::istreambuf_iterator<char>(in), {});
    RUNG_CHECK(bytes_.starts_with("rungadm8"), "a golden file of another kind");
    at_ = 8;
    Array<char>();  // which versions made it
  }
  int64_t Int() { return Take<int64_t>(1)[0]; }
  template <class T>
  std::vector<T> Array() {
    return Take<T>(Take<uint64_t>(1)[0]);
  }
  std::vector<float> Bf16s() {
    std::vector<float> out;
    for (const uint16_t bits : Array<uint16_t>()) out.push_back(ToFloat(Bf16{bits}));
    return out;
  }

 private:
  template <class T>
  std::vector<T> Take(uint64_t count) {
    RUNG_CHECK(count <= (bytes_.size() - at_) / sizeof(T), "golden file too short");
    std::vector<T> out(count);
    if (count) std::memcpy(out.data(), bytes_.data() + at_, count * sizeof(T));
    at_ += count * sizeof(T);
    return out;
  }
  std::string bytes_;
  size_t at_ = 0;
};

// Weights and moments, as one thing to compare and to go on from.
struct State {
  explicit State(std::vector<float> values)
      : weight(std::move(values)),
        m(weight.size()),
        v(weight.size()),
        m_absmax(Blocks()),
        v_absmax(Blocks()) {}
  size_t Blocks() const { return static_cast<size_t>(AdamW8Blocks(static_cast<int64_t>(weight.size()))); }
  void Update(const Context& context, const AdamW& step, const std::vector<float>& gradient) {
    AdamW8Update(context, step, gradient.data(), static_cast<int64_t>(weight.size()), weight.data(),
                 {m.data(), v.data(), m_absmax.data(), v_absmax.data()});
  }
  bool operator==(const State&) const = default;

  std::vector<float> weight;
  std::vector<uint8_t> m, v;
  std::vector<float> m_absmax, v_absmax;
};

template <class Run>
void ForEachIsa(const Run& run) {
  for (int isa = 0; isa <= static_cast<int>(BestIsa()); ++isa) {
    SCOPED_TRACE(NameOf(static_cast<Isa>(isa)));
    run(Context{static_cast<Isa>(isa), 1});
  }
}

AdamW StepOf(double rate, double beta1, double beta2, double epsilon, double decay, int t) {
  return {static_cast<float>(rate),
          static_cast<float>(beta1),
          static_cast<float>(beta2),
          static_cast<float>(epsilon),
          static_cast<float>(decay),
          static_cast<float>(1 - std::pow(beta1, t)),
          static_cast<float>(1 - std::pow(beta2, t)),
          1.0f};
}

// The nearest level by looking at all of them, in f64; the even code when two are equally near. No m < 0
// and no v > 0 gets the code of 0.
int NearestCode(DynamicSign sign, double x) {
  const auto& map = DynamicMap(sign);
  int best = 0;
  for (int i = 1; i < 256; ++i) {
    const double now = std::fabs(x - static_cast<double>(map[static_cast<size_t>(i)]));
    const double before = std::fabs(x - static_cast<double>(map[static_cast<size_t>(best)]));
    if (now < before || (now == before && i % 2 == 0)) best = i;
  }
  if (sign == DynamicSign::kSigned) return x < 0 && best == 127 ? 126 : best;
  return x > 0 && best == 0 ? 1 : best;
}

TEST(DynamicMap, IsThatOfBitsandbytes) {
  GoldenFile file;
  for (const DynamicSign sign : {DynamicSign::kSigned, DynamicSign::kUnsigned}) {
    const std::vector<float> expected = file.Array<float>();
    ASSERT_EQ(expected.size(), 256u);
    for (size_t i = 0; i < 256; ++i) {
      EXPECT_EQ(std::bit_cast<uint32_t>(DynamicMap(sign)[i]), std::bit_cast<uint32_t>(expected[i])) << i;
    }
  }
}

// Numbers around every border and level of a map, and of all magnitudes between.
std::vector<float> NumbersFor(DynamicSign sign) {
  const auto& map = DynamicMap(sign);
  std::vector<float> numbers = {0.0f, -0.0f, 1e-30f, -1e-30f, 1e-40f, -1.0f, 1.0f};
  for (size_t i = 0; i + 1 < 256; ++i) {
    for (const float x : {map[i], (map[i] + map[i + 1]) * 0.5f}) {
      numbers.insert(numbers.end(), {x, std::nextafter(x, -2.0f), std::nextafter(x, 2.0f)});
    }
  }
  const Rng random(1, Stream::kInit);
  for (uint64_t i = 0; i < 20000; ++i) {
    const float magnitude = std::pow(10.0f, -9.0f * random.Uniform(2 * i));
    numbers.push_back(random.Uniform(2 * i + 1) < 0.5f ? -magnitude : magnitude);
  }
  return numbers;
}

// With beta 0 a moment is the gradient, or its square, and with a 1 in every block the maximum is 1.
std::vector<float> OneInEveryBlock(const std::vector<float>& numbers) {
  std::vector<float> gradient;
  for (const float x : numbers) {
    if (gradient.size() % kAdamW8Block == 0) gradient.push_back(1.0f);
    gradient.push_back(x);
  }
  return gradient;
}

// The middle of two levels is rounded to f32 before it is compared with: there alone the code may be that of
// a number a rounding away.
bool IsBorder(DynamicSign sign, float x) {
  const auto& map = DynamicMap(sign);
  for (size_t i = 0; i + 1 < 256; ++i) {
    if (x == (map[i] + map[i + 1]) * 0.5f) return true;
  }
  return false;
}

TEST(AdamW8Update, FindsTheNearestSignedCode) {
  const std::vector<float> gradient = OneInEveryBlock(NumbersFor(DynamicSign::kSigned));
  ForEachIsa([&](const Context& context) {
    State state(std::vector<float>(gradient.size()));
    state.Update(context, StepOf(0, 0, 0, 1, 0, 1), gradient);
    int bad = 0;
    for (size_t i = 0; i < gradient.size() && bad < 4; ++i) {
      const float x = gradient[i];
      const int want = NearestCode(DynamicSign::kSigned, static_cast<double>(x));
      if (state.m[i] == want) continue;
      const bool border = IsBorder(DynamicSign::kSigned, x) && std::abs(state.m[i] - want) == 1;
      if (border && state.m[i] % 2 == 0) continue;
      ADD_FAILURE() << x << ": code " << int{state.m[i]} << ", expected " << want;
      ++bad;
    }
  });
}

TEST(AdamW8Update, FindsTheNearestUnsignedCode) {
  std::vector<float> roots;
  for (const float x : NumbersFor(DynamicSign::kUnsigned)) {
    const float root = std::sqrt(std::fabs(x));
    roots.insert(roots.end(), {root, std::nextafter(root, 0.0f), std::min(1.0f, std::nextafter(root, 2.0f))});
  }
  const std::vector<float> gradient = OneInEveryBlock(roots);
  ForEachIsa([&](const Context& context) {
    State state(std::vector<float>(gradient.size()));
    state.Update(context, StepOf(0, 0, 0, 1, 0, 1), gradient);
    int bad = 0, borders = 0;
    for (size_t i = 0; i < gradient.size() && bad < 4; ++i) {
      const float x = gradient[i] * gradient[i];
      const int want = NearestCode(DynamicSign::kUnsigned, static_cast<double>(x));
      const bool border = IsBorder(DynamicSign::kUnsigned, x);
      borders += border;
      if (state.v[i] == want) continue;
      if (border && std::abs(state.v[i] - want) == 1 && state.v[i] % 2 == 0) continue;
      ADD_FAILURE() << x << ": code " << int{state.v[i]} << ", expected " << want;
      ++bad;
    }
    EXPECT_GT(borders, 100);
  });
}

TEST(AdamW8Update, PutsAHalfwayNumberOnTheEvenCode) {
  const auto& map = DynamicMap(DynamicSign::kSigned);
  std::vector<float> halfway;
  for (size_t i = 0; i + 1 < 256; ++i) halfway.push_back((map[i] + map[i + 1]) * 0.5f);
  const std::vector<float> gradient = OneInEveryBlock(halfway);
  ForEachIsa([&](const Context& context) {
    State state(std::vector<float>(gradient.size()));
    state.Update(context, StepOf(0, 0, 0, 1, 0, 1), gradient);
    for (size_t i = 0; i < 255; ++i) EXPECT_EQ(state.m[i + 1], i % 2 == 0 ? i : i + 1) << halfway[i];
  });
}

// The moments of one element after a step, in f64, and how far rounding may have moved them.
struct Reference {
  double m, v, m_error, v_error, weight, change;
};
Reference TextbookStep(const State& before, size_t i, double g, const std::vector<float>& options, int t) {
  const auto value = [](float x) { return static_cast<double>(x); };
  const double rate = value(options[0]), beta1 = value(options[1]), beta2 = value(options[2]);
  const size_t block = i / kAdamW8Block;
  const double m0 = value(DynamicMap(DynamicSign::kSigned)[before.m[i]]) * value(before.m_absmax[block]);
  const double v0 = value(DynamicMap(DynamicSign::kUnsigned)[before.v[i]]) * value(before.v_absmax[block]);
  Reference r{};
  r.m = beta1 * m0 + (1 - beta1) * g;
  r.v = beta2 * v0 + (1 - beta2) * g * g;
  r.m_error = 1e-6 * (std::fabs(beta1 * m0) + std::fabs((1 - beta1) * g));
  r.v_error = 1e-4 * r.v;  // 1 - beta2 is rounded
  const double m_hat = r.m / (1 - std::pow(beta1, t)), v_hat = r.v / (1 - std::pow(beta2, t));
  r.change = rate * m_hat / (std::sqrt(v_hat) + value(options[3]));
  r.weight = value(before.weight[i]) * (1 - rate * value(options[4])) - r.change;
  return r;
}

// Counts of the comparison of codes with bitsandbytes'.
struct Agreement {
  int64_t equal = 0, comparable = 0, all = 0;
};

// The code is that of x, or of a number within `error` of it. bitsandbytes' is that of a number within half a
// step of its grid; where no border is so near, the two must be equal.
void ExpectCode(DynamicSign sign, double x, double error, int got, int golden, Agreement* agreement) {
  EXPECT_GE(got, NearestCode(sign, x - error));
  EXPECT_LE(got, NearestCode(sign, x + error));
  const double grid = 1.02 / 65535 + error;
  const int low = NearestCode(sign, x - grid), high = NearestCode(sign, x + grid);
  EXPECT_GE(golden, low);
  EXPECT_LE(golden, high);
  ++agreement->all;
  agreement->equal += got == golden;
  if (low != high) return;
  ++agreement->comparable;
  EXPECT_EQ(got, golden) << "of " << x;
}

void ExpectStep(const State& before, const State& got, const State& golden,
                const std::vector<float>& gradient, const std::vector<float>& options, int t) {
  Agreement m_agreement, v_agreement;
  for (size_t i = 0; i < got.weight.size() && !testing::Test::HasFailure(); ++i) {
    SCOPED_TRACE(testing::Message() << "element " << i);
    const Reference r = TextbookStep(before, i, static_cast<double>(gradient[i]), options, t);
    const double allowed = 2.5e-7 * std::fabs(r.weight) + 1e-4 * std::fabs(r.change);
    EXPECT_NEAR(got.weight[i], r.weight, allowed);
    EXPECT_NEAR(golden.weight[i], r.weight, allowed);
    const auto m_absmax = static_cast<double>(got.m_absmax[i / kAdamW8Block]);
    const auto v_absmax = static_cast<double>(got.v_absmax[i / kAdamW8Block]);
    if (m_absmax == 0) continue;
    ExpectCode(DynamicSign::kSigned, r.m / m_absmax, r.m_error / m_absmax, got.m[i], golden.m[i],
               &m_agreement);
    ExpectCode(DynamicSign::kUnsigned, r.v / v_absmax, r.v_error / v_absmax, got.v[i], golden.v[i],
               &v_agreement);
  }
  EXPECT_GT(m_agreement.comparable, m_agreement.all / 4);
  EXPECT_GT(v_agreement.comparable, v_agreement.all / 20);
  for (size_t b = 0; b < got.Blocks(); ++b) {
    EXPECT_NEAR(got.m_absmax[b], golden.m_absmax[b], 1e-6 * golden.m_absmax[b]) << "block " << b;
    EXPECT_NEAR(got.v_absmax[b], golden.v_absmax[b], 1e-4 * golden.v_absmax[b]) << "block " << b;
  }
}

// Each step starts from bitsandbytes' state before it, so that no difference grows.
TEST(AdamW8Update, StepsAsBitsandbytesAndTheTextbook) {
  ForEachIsa([](const Context& context) {
    GoldenFile file;
    file.Array<float>();
    file.Array<float>();
    const int64_t cases = file.Int();
    ASSERT_EQ(cases, 2);
    for (int64_t c = 0; c < cases; ++c) {
      SCOPED_TRACE(testing::Message() << "case " << c);
      const int64_t n = file.Int(), steps = file.Int();
      const std::vector<float> options = file.Array<float>();
      State golden(file.Bf16s());
      ASSERT_EQ(static_cast<int64_t>(golden.weight.size()), n);
      for (int t = 1; t <= static_cast<int>(steps); ++t) {
        SCOPED_TRACE(testing::Message() << "step " << t);
        const State before = golden;
        const std::vector<float> gradient = file.Bf16s();
        golden.weight = file.Array<float>();
        golden.m = file.Array<uint8_t>();
        golden.v = file.Array<uint8_t>();
        golden.m_absmax = file.Array<float>();
        golden.v_absmax = file.Array<float>();
        State got = before;
        const auto option = [&](size_t i) { return static_cast<double>(options[i]); };
        got.Update(context, StepOf(option(0), option(1), option(2), option(3), option(4), t), gradient);
        ExpectStep(before, got, golden, gradient, options, t);
      }
    }
  });
}

std::vector<float> Normals(int64_t n, uint32_t substream) {
  const Rng random(7, Stream::kInit, substream);
  std::vector<float> x;
  for (int64_t i = 0; i < n; ++i) x.push_back(2.0f * random.Uniform(static_cast<uint64_t>(i)) - 1.0f);
  return x;
}

TEST(AdamW8Update, DoesNotDependOnTheThreads) {
  ForEachIsa([](Context context) {
    for (const int64_t n : {int64_t{1}, int64_t{300}, int64_t{16384}, int64_t{70001}}) {
      const auto run = [&](int threads) {
        context.threads = threads;
        State state(Normals(n, 0));
        for (int t = 1; t <= 3; ++t) {
          state.Update(context, StepOf(1e-2, 0.9, 0.999, 1e-8, 0.1, t), Normals(n, static_cast<uint32_t>(t)));
        }
        return state;
      };
      const State one = run(1);
      for (const int threads : {2, 3, 7}) EXPECT_TRUE(one == run(threads)) << n << ", " << threads;
    }
  });
}

TEST(AdamW8Update, ScalesTheGradientFirst) {
  ForEachIsa([](const Context& context) {
    std::vector<float> gradient = Normals(1000, 1);
    State scaled(Normals(1000, 0)), plain = scaled;
    AdamW step = StepOf(1e-2, 0.9, 0.999, 1e-8, 0.1, 1);
    step.gradient_scale = 0.25f;
    scaled.Update(context, step, gradient);
    for (float& g : gradient) g *= 0.25f;
    step.gradient_scale = 1.0f;
    plain.Update(context, step, gradient);
    EXPECT_TRUE(scaled == plain);
  });
}

// What completes the last block must not count in its maximum, which shrinks when the gradient turns.
TEST(AdamW8Update, TreatsAPartOfABlockAsABlock) {
  ForEachIsa([](const Context& context) {
    State part(Normals(300, 0)), whole = part;
    whole.weight.resize(512);
    whole = State(whole.weight);
    for (int t = 1; t <= 3; ++t) {
      std::vector<float> gradient(300, t == 2 ? -0.9f : 1.0f);
      const AdamW step = StepOf(1e-2, 0.9, 0.999, 1e-8, 0.1, t);
      part.Update(context, step, gradient);
      gradient.resize(512);
      whole.Update(context, step, gradient);
      EXPECT_EQ(part.m_absmax, whole.m_absmax);
      EXPECT_EQ(part.v_absmax, whole.v_absmax);
    }
    whole.weight.resize(300);
    whole.m.resize(300);
    whole.v.resize(300);
    EXPECT_TRUE(part == whole);
  });
}

// A maximum whose inverse would be infinite must not leave NaN behind.
TEST(AdamW8Update, SurvivesVanishingGradients) {
  ForEachIsa([](const Context& context) {
    State state(std::vector<float>(512, 1.0f));
    std::vector<float> gradient(512, 1e-39f);
    for (int t = 1; t <= 3; ++t) {
      state.Update(context, StepOf(1e-2, 0.9, 0.999, 1e-8, 0.0, t), gradient);
      gradient.assign(512, 0.0f);
    }
    for (const float w : state.weight) EXPECT_EQ(w, 1.0f);
    for (size_t b = 0; b < 2; ++b) EXPECT_EQ(state.m_absmax[b] + state.v_absmax[b], 0.0f);
  });
}

}  // namespace
}  // namespace rung::cpu
