#include "convert/noise.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/error.h"
#include "base/half.h"
#include "format/nf4.h"

namespace rung::convert {
namespace {

uint64_t Bits(uint64_t key, uint64_t index) {
  uint64_t z = key + index * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

double Cumulative(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

// The x >= 0 with Cumulative(x) = p >= 1/2, to single precision.
double Quantile(double p) {
  double low = 0.0, high = 8.0;
  for (int i = 0; i < 32; ++i) {
    const double middle = 0.5 * (low + high);
    (Cumulative(middle) < p ? low : high) = middle;
  }
  return 0.5 * (low + high);
}

// The largest of 64 magnitudes is below x with probability (2 Cumulative(x) - 1)^64.
std::array<float, 256> LargestOfBlock() {
  std::array<float, 256> largest{};
  for (size_t i = 0; i < largest.size(); ++i) {
    const double all_below = (static_cast<double>(i) + 0.5) / 256.0;
    const double below = std::pow(all_below, 1.0 / static_cast<double>(format::kNf4Block));
    largest[i] = static_cast<float>(Quantile(0.5 * (1.0 + below)));
  }
  return largest;
}

// P(code <= c): one weight of a block is the largest, of either sign; the others are normal, cut off there.
double CodeAtMost(size_t c, const std::array<float, 256>& largest) {
  if (c == 15) return 1.0;
  const double threshold =
      0.5 * (static_cast<double>(format::kNf4Level[c]) + static_cast<double>(format::kNf4Level[c + 1]));
  double inner = 0.0;
  for (const float bound : largest) {
    const double a = static_cast<double>(bound);
    inner += (Cumulative(threshold * a) - Cumulative(-a)) / (Cumulative(a) - Cumulative(-a)) / 256.0;
  }
  const double block = static_cast<double>(format::kNf4Block);
  return 0.5 / block + inner * (block - 1.0) / block;
}

}  // namespace

Noise::Noise() {
  scale_ = LargestOfBlock();
  size_t next = 0;
  for (size_t c = 0; c < format::kNf4Level.size(); ++c) {
    const auto end = static_cast<size_t>(std::lround(256.0 * CodeAtMost(c, scale_)));
    while (next < end) code_[next++] = static_cast<uint8_t>(c);
  }
  // Codes and scales are drawn apart, which makes weights a little wider than those of one Gaussian block.
  double level = 0.0, level2 = 0.0, bound = 0.0, bound2 = 0.0;
  for (size_t i = 0; i < 256; ++i) {
    const double l = static_cast<double>(format::kNf4Level[code_[i]]), a = static_cast<double>(scale_[i]);
    level += l / 256.0;
    level2 += l * l / 256.0;
    bound += a / 256.0;
    bound2 += a * a / 256.0;
  }
  const double deviation = std::sqrt(level2 * bound2 - level * level * bound * bound);
  for (float& scale : scale_) scale = static_cast<float>(static_cast<double>(scale) / deviation);

  constexpr size_t kHalf = 32768;
  normal_.resize(2 * kHalf);
  for (size_t i = 0; i < kHalf; ++i) {
    const double p = 0.5 + (static_cast<double>(i) + 0.5) / (2.0 * kHalf);
    normal_[kHalf + i] = ToBf16(static_cast<float>(kDeviation * Quantile(p))).bits;
    normal_[kHalf - 1 - i] = static_cast<uint16_t>(normal_[kHalf + i] | 0x8000);
  }
}

void Noise::Codes(uint64_t key, uint64_t begin, std::span<uint8_t> bytes) const {
  RUNG_CHECK(begin % 4 == 0, "noise: codes begin at a multiple of 4 bytes");
  for (size_t i = 0; i < bytes.size(); i += 4) {
    uint64_t bits = Bits(key, (begin + i) / 4);
    const size_t end = std::min(bytes.size(), i + 4);
    for (size_t k = i; k < end; ++k, bits >>= 16) {
      bytes[k] = static_cast<uint8_t>(code_[bits & 255] << 4 | code_[bits >> 8 & 255]);
    }
  }
}

std::vector<float> Noise::Scales(uint64_t key, int64_t blocks, double deviation) const {
  std::vector<float> scales(static_cast<size_t>(blocks));
  for (size_t i = 0; i < scales.size(); i += 8) {
    uint64_t bits = Bits(key, i / 8);
    const size_t end = std::min(scales.size(), i + 8);
    for (size_t k = i; k < end; ++k, bits >>= 8)
      scales[k] = static_cast<float>(deviation) * scale_[bits & 255];
  }
  return scales;
}

void Noise::Normal(uint64_t key, uint64_t begin, std::span<uint16_t> bf16) const {
  RUNG_CHECK(begin % 4 == 0, "noise: numbers begin at a multiple of 4");
  for (size_t i = 0; i < bf16.size(); i += 4) {
    uint64_t bits = Bits(key, (begin + i) / 4);
    const size_t end = std::min(bf16.size(), i + 4);
    for (size_t k = i; k < end; ++k, bits >>= 16) bf16[k] = normal_[bits & 0xFFFF];
  }
}

}  // namespace rung::convert
