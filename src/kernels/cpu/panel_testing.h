// What tests of panels and of the products on them share.
#pragma once

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/frozen_testing.h"
#include "kernels/cpu/panel.h"

namespace rung::cpu {

template <class T>
T To(float x) {
  if constexpr (sizeof(T) == 2) {
    return ToBf16(x);
  } else {
    return x;
  }
}

template <class T>
uint32_t BitsOf(T x) {
  if constexpr (sizeof(T) == 2) {
    return x.bits;
  } else {
    return std::bit_cast<uint32_t>(x);
  }
}

template <class T>
std::vector<T> Numbers(int64_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  std::vector<T> out(static_cast<size_t>(count));
  for (T& x : out) x = To<T>(uniform(random));
  return out;
}

// 64-byte aligned, as panels must be.
template <class T>
class Panel {
 public:
  explicit Panel(int64_t K)
      : memory_(static_cast<size_t>(PanelElements(K)) * sizeof(T) + 64, std::byte{0xff}) {
    void* at = memory_.data();
    size_t space = memory_.size();
    panel_ = static_cast<T*>(std::align(64, memory_.size() - 64, at, space));
  }
  T* data() { return panel_; }

 private:
  std::vector<std::byte> memory_;  // NaN: whatever is not written spoils the product
  T* panel_;
};

inline std::vector<Isa> IsasHere() {
  std::vector<Isa> all;
  for (int i = 0; i <= static_cast<int>(BestIsa()); ++i) all.push_back(static_cast<Isa>(i));
  return all;
}

// Calls body(isa, T{}) for each compute type on each ISA.
template <class Body>
void OnEachCore(const Body& body) {
  for (const Isa isa : IsasHere()) {
    SCOPED_TRACE(NameOf(isa));
    body(isa, float{});
    if (PanelFor<Bf16>(isa)) {
      SCOPED_TRACE("bf16");
      body(isa, Bf16{});
    }
  }
}

// |got - sum_k a b| within the rounding of a sum of K products in f32, in any order and by any pairing.
inline void ExpectSum(double got, double expected, double magnitude, int64_t K, double rounding) {
  const double tolerance = static_cast<double>(K + 4) * 0x1p-24 * magnitude + rounding * std::fabs(expected);
  ASSERT_LE(std::fabs(got - expected), tolerance) << got << " for " << expected;
}

struct Sum {
  double value = 0.0, magnitude = 0.0;
};
template <class T, class W>
Sum DotOf(const T* a, const W* b, int64_t K) {
  Sum sum;
  for (int64_t k = 0; k < K; ++k) {
    const double product = static_cast<double>(ToFloat(a[k])) * static_cast<double>(ToFloat(b[k]));
    sum.value += product;
    sum.magnitude += std::fabs(product);
  }
  return sum;
}

struct DecodeCase {
  Format format;
  int64_t rows, cols;
  bool nested = false;
  Tiling tiling = {};
};
inline const DecodeCase kDecodeCases[] = {
    {Format::kF32, 70, 96},
    {Format::kF32, 5, 46},
    {Format::kF16, 70, 64},
    {Format::kF16, 17, 98},
    {Format::kBf16, 70, 128},
    {Format::kBf16, 33, 30},
    {Format::kQ8_0, 70, 96},
    {Format::kQ8_0, 3, 32},
    {Format::kQ4_0, 70, 96},
    {Format::kQ4_0, 31, 32},
    {Format::kQ4_1, 70, 160},
    {Format::kQ4_1, 64, 32},
    {Format::kNf4, 70, 192},
    {Format::kNf4, 300, 64, true},
    {Format::kNf4, 70, 96},
    {Format::kNf4, 70, 46, true},
    {Format::kNf4, 9, 2048, true},
    {Format::kFp4, 70, 192},
    {Format::kFp4, 33, 64, true},
    {Format::kFp4, 17, 46},
    {Format::kQ5_0, 70, 96},
    {Format::kQ5_0, 3, 32},
    {Format::kQ5_1, 70, 96},
    {Format::kQ5_1, 31, 32},
    {Format::kIq4Nl, 70, 96},
    {Format::kIq4Nl, 17, 32},
    {Format::kMxfp4, 70, 96},
    {Format::kMxfp4, 17, 32},
    {Format::kIq4Xs, 70, 512},
    {Format::kIq4Xs, 3, 256},
    {Format::kQ2K, 70, 512},
    {Format::kQ2K, 3, 256},
    {Format::kQ3K, 70, 512},
    {Format::kQ3K, 3, 256},
    {Format::kQ4K, 70, 512},
    {Format::kQ4K, 3, 256},
    {Format::kQ5K, 70, 512},
    {Format::kQ5K, 3, 256},
    {Format::kQ6K, 70, 512},
    {Format::kQ6K, 3, 256},
    {Format::kF8E4m3, 70, 96},                       // no scales
    {Format::kF8E4m3, 200, 320, false, {128, 128}},  // the last tiles are cut
    {Format::kF8E4m3, 17, 46, false, {17, 46}},      // one scale
    {Format::kF8E4m3, 17, 98, false, {1, 98}},       // one of each row
    {Format::kF8E4m3, 9, 160, false, {4, 24}},       // tiles end inside a span
    {Format::kInt4, 70, 256, false, {1, 128}},
    {Format::kInt4, 33, 96, false, {1, 32}},
    {Format::kInt4, 17, 46, false, {1, 46}},         // one group, cut short
    {Format::kInt4, 17, 160, false, {1, 40}},        // groups end inside a span
    {Format::kInt4, 70, 320, false, {1, 64, true}},  // act-order
    {Format::kInt4, 9, 2112, false, {1, 128, true}},
    {Format::kInt4, 9, 2112, false, {1, 32, true}},  // many groups
    {Format::kInt4, 9, 2112, false, {1, 8, true}},   // and more than any table holds
};
inline std::string Name(const DecodeCase& c) {
  return std::string(format::Of(c.format).name) + (c.nested ? " nested " : " ") + std::to_string(c.rows) +
         "x" + std::to_string(c.cols) + " in tiles of " + std::to_string(c.tiling.rows) + "x" +
         std::to_string(c.tiling.cols) + (c.tiling.shuffled ? ", shuffled" : "");
}
inline Frozen Make(const DecodeCase& c, uint32_t seed) {
  return Frozen(c.format, c.rows, c.cols, c.nested, seed, c.tiling);
}

}  // namespace rung::cpu
