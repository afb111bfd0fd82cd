// 4-bit NormalFloat as bitsandbytes stores it (QLoRA, arXiv 2305.14314): 16 quantiles of a
// standard normal, one absolute maximum per 64 consecutive weights of the flat row-major matrix.
//
//   codes   (ceil(n/2)) bytes   first weight in the HIGH nibble
//   absmax  (ceil(n/64)) f32, or 8-bit codes with one f32 per 256 of them (double quantisation)
//   w[i] = kNf4Level[code[i]] * scale(i / 64)
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace rung::format {

inline constexpr int64_t kNf4Block = 64;
inline constexpr int64_t kNf4NestedBlock = 256;

inline constexpr std::array<float, 16> kNf4Level = {-1.0f,
                                                    -0.6961928009986877f,
                                                    -0.5250730514526367f,
                                                    -0.39491748809814453f,
                                                    -0.28444138169288635f,
                                                    -0.18477343022823334f,
                                                    -0.09105003625154495f,
                                                    0.0f,
                                                    0.07958029955625534f,
                                                    0.16093020141124725f,
                                                    0.24611230194568634f,
                                                    0.33791524171829224f,
                                                    0.44070982933044434f,
                                                    0.5626170039176941f,
                                                    0.7229568362236023f,
                                                    1.0f};

// FP4 of bitsandbytes: laid out as NF4, with these levels (sign, two bits of exponent, one of mantissa, over
// the largest). Code 8 is +0.
inline constexpr std::array<float, 16> kFp4Level = {
    0.0f, 0.0625f / 12,  8.0f / 12,  1.0f,  4.0f / 12,  0.5f,  2.0f / 12,  0.25f,
    0.0f, -0.0625f / 12, -8.0f / 12, -1.0f, -4.0f / 12, -0.5f, -2.0f / 12, -0.25f};

// The signed dynamic 8-bit map of bitsandbytes, ascending (create_dynamic_map; linspace by fused
// multiply-add).
const std::array<float, 256>& Nf4NestedMap();

// An encoded matrix, owned.
struct Nf4Encoded {
  std::vector<uint8_t> codes;         // (ceil(n/2))
  std::vector<float> absmax;          // (blocks), or (ceil(blocks/256)) when nested
  std::vector<uint8_t> nested_codes;  // (blocks), empty when not nested
  float offset = 0.0f;                // mean of the block maxima, when nested
};

// Bytes of the scales of n weights, which stand apart from the codes.
int64_t Nf4ScaleBytes(int64_t n, bool nested);

// Encodes n weights by bitsandbytes' CUDA rule (w * (1/absmax), strict thresholds; an all-zero block gives
// code 0).
Nf4Encoded EncodeNf4(const float* weights, int64_t n, bool nested);

// Quantises the block maxima of a matrix encoded without nesting: what EncodeNf4 does when `nested`.
void NestScales(Nf4Encoded* encoded);

}  // namespace rung::format
