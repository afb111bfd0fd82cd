#include "format/nf4.h"

#include <algorithm>
#include <cmath>

#include "base/rounding.h"

namespace rung::format {
namespace {

// A weight over its block's maximum gets the number of thresholds below it as its code. Four of them (0, 8,
// 12 and 14) are one unit in the last place off the midpoints of the levels: published checkpoints were made
// with these.
constexpr std::array<float, 15> kThreshold = {
    -0.8480964004993439f,  -0.6106329262256622f,  -0.4599952697753906f,   -0.33967943489551544f,
    -0.23460740596055984f, -0.13791173323988914f, -0.045525018125772476f, 0.03979014977812767f,
    0.1202552504837513f,   0.2035212516784668f,   0.2920137718319893f,    0.3893125355243683f,
    0.5016634166240692f,   0.6427869200706482f,   0.8614784181118011f};

// NaN (0 * 1/0 in an all-zero block) is above no threshold.
unsigned CodeOf(float x) {
  unsigned code = 0;
  for (const float threshold : kThreshold) code += x > threshold;
  return code;
}

float LargestMagnitude(const float* x, int64_t n) {
  float largest = 0.0f;
  for (int64_t i = 0; i < n; ++i) largest = std::max(largest, std::fabs(x[i]));
  return largest;
}

// The nearest entry of the map. A value halfway between two gets the even index: bitsandbytes bisects over
// the even entries and leaves one only when the value is strictly beyond the midpoint. NaN ends at 0.
uint8_t NestedCodeOf(const std::array<float, 256>& map, float x) {
  if (!(x > map[0])) return 0;
  const auto above = std::lower_bound(map.begin(), map.end(), x);
  if (above == map.end()) return 255;
  const auto upper = static_cast<size_t>(above - map.begin());
  const float midpoint = (map[upper - 1] + map[upper]) * 0.5f;
  const bool up = x > midpoint || (x == midpoint && upper % 2 == 0);
  return static_cast<uint8_t>(up ? upper : upper - 1);
}

// Seven decades; decade i has 2^i entries of each sign, at the midpoints of 2^i equal parts of [0.1, 1].
std::array<float, 256> MakeNestedMap() {
  std::array<float, 256> map{};
  size_t count = 0;
  for (int decade = 0; decade < 7; ++decade) {
    const int points = (1 << decade) + 1;
    const float step = (1.0f - 0.1f) / static_cast<float>(points - 1);
    const float power = static_cast<float>(std::pow(10.0, decade - 6));
    const auto bound = [&](int k) {
      return k < points / 2 ? std::fma(step, static_cast<float>(k), 0.1f)
                            : std::fma(-step, static_cast<float>(points - 1 - k), 1.0f);
    };
    for (int k = 0; k + 1 < points; ++k) {
      const float middle = (bound(k) + bound(k + 1)) / 2.0f * power;
      map[count++] = middle;
      map[count++] = -middle;
    }
  }
  map[count++] = 0.0f;
  map[count++] = 1.0f;
  std::sort(map.begin(), map.end());
  return map;
}

}  // namespace

const std::array<float, 256>& Nf4NestedMap() {
  static const std::array<float, 256> map = MakeNestedMap();
  return map;
}

int64_t Nf4ScaleBytes(int64_t n, bool nested) {
  const int64_t blocks = CeilDiv(n, kNf4Block);
  return nested ? blocks + 4 * CeilDiv(blocks, kNf4NestedBlock) : 4 * blocks;
}

Nf4Encoded EncodeNf4(const float* weights, int64_t n, bool nested) {
  Nf4Encoded encoded;
  encoded.codes.resize(static_cast<size_t>((n + 1) / 2));
  for (int64_t begin = 0; begin < n; begin += kNf4Block) {
    const int64_t end = std::min(n, begin + kNf4Block);
    const float largest = LargestMagnitude(weights + begin, end - begin);
    const float inverse = 1.0f / largest;
    encoded.absmax.push_back(largest);
    for (int64_t i = begin; i < end; i += 2) {
      const unsigned high = CodeOf(weights[i] * inverse);
      const unsigned low = CodeOf((i + 1 < end ? weights[i + 1] : 0.0f) * inverse);
      encoded.codes[static_cast<size_t>(i / 2)] = static_cast<uint8_t>(high << 4 | low);
    }
  }
  if (nested) NestScales(&encoded);
  return encoded;
}

void NestScales(Nf4Encoded* encoded) {
  const std::vector<float> scale = std::move(encoded->absmax);
  double sum = 0.0;
  for (const float s : scale) sum += s;
  encoded->offset = scale.empty() ? 0.0f : static_cast<float>(sum / static_cast<double>(scale.size()));

  const auto blocks = static_cast<int64_t>(scale.size());
  encoded->absmax.clear();
  encoded->nested_codes.resize(scale.size());
  for (int64_t begin = 0; begin < blocks; begin += kNf4NestedBlock) {
    const int64_t count = std::min(kNf4NestedBlock, blocks - begin);
    std::array<float, kNf4NestedBlock> centred;
    for (int64_t i = 0; i < count; ++i)
      centred[static_cast<size_t>(i)] = scale[static_cast<size_t>(begin + i)] - encoded->offset;
    const float largest = LargestMagnitude(centred.data(), count);
    const float inverse = 1.0f / largest;
    encoded->absmax.push_back(largest);
    for (int64_t i = 0; i < count; ++i) {
      encoded->nested_codes[static_cast<size_t>(begin + i)] =
          NestedCodeOf(Nf4NestedMap(), centred[static_cast<size_t>(i)] * inverse);
    }
  }
}

}  // namespace rung::format
