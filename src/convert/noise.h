// Random weights as they lie in an NF4 folder, made faster than a disk takes them.
//
// Bits are a pure function of (key, index): the finaliser of SplitMix64 (Steele et al., OOPSLA 2014) over
// key + index * its odd constant. Two multiplications for 64 bits, no order of calls to respect; Philox of
// base/rng.h takes 20 of them for 128. It gives the keys.
//
// Everything else is a table of equally likely values, so that a number costs one look-up:
//
//   code     of a Gaussian weight in a block of 64 whose largest magnitude is the scale
//   scale    256 quantiles of that largest magnitude
//   bf16     65,536 quantiles of the normal distribution
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace rung::convert {

class Noise {
 public:
  Noise();

  // bytes[i] = two codes, for byte begin + i of a matrix. begin is a multiple of 4.
  void Codes(uint64_t key, uint64_t begin, std::span<uint8_t> bytes) const;
  // One scale a block, so that weights have this standard deviation.
  std::vector<float> Scales(uint64_t key, int64_t blocks, double deviation) const;
  // Numbers [begin, begin + size) of a tensor. begin is a multiple of 4. The table is made for one deviation.
  void Normal(uint64_t key, uint64_t begin, std::span<uint16_t> bf16) const;

  static constexpr double kDeviation = 0.02;  // of Normal: transformers' initializer_range

 private:
  std::array<uint8_t, 256> code_{};
  std::array<float, 256> scale_{};  // of weights of deviation 1
  std::vector<uint16_t> normal_;    // (65536)
};

}  // namespace rung::convert
