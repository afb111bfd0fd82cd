// The decoders of the formats, for the table in format.cc. Each has the contract of Info::decode.
#pragma once

#include <array>
#include <bit>
#include <cstdint>

#include "format/format.h"

namespace rung::format {

using Decoder = void(const Matrix& matrix, int64_t begin, int64_t end, float* out);

// blocks32.cc
Decoder DecodeQ8_0, DecodeQ4_0, DecodeQ4_1, DecodeQ5_0, DecodeQ5_1;
inline constexpr int64_t kQ8_0Bytes = 34, kQ4_0Bytes = 18, kQ4_1Bytes = 20, kQ5_0Bytes = 22, kQ5_1Bytes = 24;

// superblocks.cc
Decoder DecodeQ2K, DecodeQ3K, DecodeQ4K, DecodeQ5K, DecodeQ6K;
inline constexpr int64_t kQ2KBytes = 84, kQ3KBytes = 110, kQ4KBytes = 144, kQ5KBytes = 176, kQ6KBytes = 210;

// levels.cc
Decoder DecodeIq4Nl, DecodeIq4Xs, DecodeMxfp4, DecodeNf4, DecodeFp4;
inline constexpr int64_t kIq4NlBytes = 18, kIq4XsBytes = 136, kMxfp4Bytes = 17;
// Levels of MXFP4, twice the values of E2M1: whole numbers.
inline constexpr std::array<int8_t, 16> kE2M1Twice = {0, 1,  2,  3,  4,  6,  8,  12,
                                                      0, -1, -2, -3, -4, -6, -8, -12};
// 2^(e - 128), subnormal below e = 2: half of the scale that the exponent byte e stands for.
inline float PowerOfMxfp4(uint32_t e) {
  return std::bit_cast<float>(e < 2 ? 0x00200000u << e : (e - 1) << 23);
}

// tiles.cc
Decoder DecodeF8E4m3, DecodeInt4;

}  // namespace rung::format
