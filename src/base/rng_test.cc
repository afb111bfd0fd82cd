#include "base/rng.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace rung {
namespace {

using Words = std::array<uint32_t, 4>;

// Philox4x32-10 as the paper writes it, section 3.3.
Words Philox(Words counter, std::array<uint32_t, 2> key) {
  const auto high = [](uint32_t a, uint32_t b) { return static_cast<uint32_t>((uint64_t{a} * b) >> 32); };
  for (int round = 0; round < 10; ++round) {
    counter = {high(0xCD9E8D57u, counter[2]) ^ counter[1] ^ key[0], 0xCD9E8D57u * counter[2],
               high(0xD2511F53u, counter[0]) ^ counter[3] ^ key[1], 0xD2511F53u * counter[0]};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

// The known answers of Random123 (kat_vectors, philox 4x32 10).
TEST(Rng, TheTextbookFormGivesTheKnownAnswers) {
  constexpr uint32_t kOnes = 0xffffffffu;
  EXPECT_EQ(Philox({0, 0, 0, 0}, {0, 0}), (Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(Philox({kOnes, kOnes, kOnes, kOnes}, {kOnes, kOnes}),
            (Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(Philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
            (Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Rng, BitsAreThoseOfTheTextbookForm) {
  for (uint64_t seed : {uint64_t{0}, uint64_t{42}, uint64_t{0xfedcba9876543210}}) {
    for (Stream stream : {Stream::kInit, Stream::kShuffle, Stream::kDropout, Stream::kSample}) {
      for (uint32_t substream : {0u, 7u, 0xffffffffu}) {
        const Rng rng(seed, stream, substream);
        for (uint64_t index : {uint64_t{0}, uint64_t{3}, uint64_t{4}, uint64_t{1} << 34, ~uint64_t{0}}) {
          const uint64_t block = index / 4;
          const Words words = Philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32),
                                      static_cast<uint32_t>(stream), substream},
                                     {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
          EXPECT_EQ(rng.Bits(index), words[index % 4]);
        }
      }
    }
  }
}

TEST(Rng, UniformFillsTheUnitInterval) {
  const Rng rng(1, Stream::kInit);
  double sum = 0, squares = 0;
  constexpr int kCount = 100000;
  for (uint64_t i = 0; i < kCount; ++i) {
    const float x = rng.Uniform(i);
    ASSERT_GE(x, 0.0f);
    ASSERT_LT(x, 1.0f);
    ASSERT_EQ(x * 0x1p24f, std::floor(x * 0x1p24f));
    sum += x;
    squares += double{x} * x;
  }
  // Five standard deviations of the mean of x and of x^2.
  EXPECT_NEAR(sum / kCount, 1.0 / 2, 5 * std::sqrt(1.0 / 12 / kCount));
  EXPECT_NEAR(squares / kCount, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / kCount));
}

TEST(Rng, BelowIsBoundedAndEven) {
  const Rng rng(2, Stream::kShuffle);
  constexpr uint32_t kBound = 7;
  constexpr int kCount = 70000;
  std::vector<int> counts(kBound);
  for (uint64_t i = 0; i < kCount; ++i) {
    const uint32_t x = rng.Below(i, kBound);
    ASSERT_LT(x, kBound);
    ++counts[x];
  }
  for (int count : counts) EXPECT_NEAR(count, kCount / 7, 5 * std::sqrt(kCount / 7.0 * 6 / 7));
  EXPECT_EQ(rng.Below(5, 1), 0u);
}

}  // namespace
}  // namespace rung
