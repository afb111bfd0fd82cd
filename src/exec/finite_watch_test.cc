#include "exec/finite_watch.h"

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <limits>

#include "exec/exec.h"

namespace rung {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(FiniteWatchTest, CountsWhatIsNotFiniteOfEveryType) {
  std::array<float, 8> x = {0.0f, -kInf, 1e38f, kNan, -0.0f, kInf, std::numeric_limits<float>::denorm_min(),
                            kNan};
  EXPECT_EQ(CountNotFinite(View(x.data(), 2, 4)), 4);
  // A view passes over what lies between its rows.
  Tensor narrow = View(x.data(), 2, 4).Cols(0, 2);
  EXPECT_EQ(CountNotFinite(narrow), 2);
  EXPECT_EQ(CountNotFinite(Tensor{}), 0);
  std::array<Bf16, 5> half = {Bf16{0x7f80}, Bf16{0x7f7f}, Bf16{0xff80}, Bf16{0xffc1}, Bf16{0x8000}};
  EXPECT_EQ(CountNotFinite(View(half.data(), 1, 5)), 3);
  std::array<int32_t, 2> numbers = {0x7f800000, -1};
  EXPECT_EQ(CountNotFinite(View(numbers.data(), 1, 2)), 0);
}

TEST(FiniteWatchTest, TheFirstLaunchIsNamedWithItsPlace) {
  alignas(Arena::kAlignment) std::array<std::byte, 64> slab{};
  Exec ex(Arena(slab.data(), slab.size()), {cpu::BestIsa(), 1}, DType::kF32);
  std::array<float, 4> x = {1, 2, 3, 4}, y = {};
  const Tensor tx = View(x.data(), 1, 4), ty = View(y.data(), 2, 2);
  const auto run = [&] {
    At model(ex, "the embedding");
    ex.Launch("copy", {}, {tx}, [&] { x[0] = 1.0f; });
    {
      At layer(ex, "layer", 3);
      ex.Launch("divide", {}, {tx, Tensor{}, ty}, [&] { y[1] = x[0] / 0.0f, y[2] = -y[1]; });
    }
    ex.Launch("copy", {}, {tx}, [&] { x[0] = kNan; });
  };
  run();  // nobody looks
  x[0] = 1.0f;
  y = {};
  FiniteWatch watch;
  ex.set_watch(&watch);
  EXPECT_TRUE(ex.watched());
  run();
  ex.set_watch(nullptr);
  ASSERT_TRUE(watch.first());
  EXPECT_EQ(watch.first()->op, "divide");
  EXPECT_EQ(watch.first()->part, "layer");
  EXPECT_EQ(watch.first()->index, 3);
  EXPECT_EQ(watch.first()->launch, 2);
  EXPECT_EQ(watch.first()->text(), "divide in layer 3: 2 of 8 numbers are not finite");
}

TEST(FiniteWatchTest, APlanIsNotWatched) {
  Exec ex = Exec::Planning({cpu::BestIsa(), 1}, DType::kF32);
  FiniteWatch watch;
  ex.set_watch(&watch);
  ex.Launch("read", {}, {View(static_cast<float*>(nullptr), 1, 4)}, [] { FAIL(); });
  EXPECT_FALSE(watch.first());
}

}  // namespace
}  // namespace rung
