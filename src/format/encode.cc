#include "format/encode.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/half.h"
#include "format/block_decode.h"
#include "format/decoders.h"

namespace rung::format {
namespace {

using Codes = std::array<uint8_t, kBlock>;

void Write(std::byte* at, F16 value) { std::memcpy(at, &value, sizeof(value)); }

// Bits of the largest |x|. As whole numbers magnitudes are ordered too, with infinity and NaN above all
// others, and a maximum of whole numbers is a vector instruction without -ffast-math.
uint32_t LargestBits(const float* x, int64_t n) {
  int32_t largest = 0;
  for (int64_t i = 0; i < n; ++i)
    largest = std::max(largest, static_cast<int32_t>(std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu));
  return static_cast<uint32_t>(largest);
}

// The first weight of largest magnitude, with its sign.
float LargestSigned(const float* x) {
  const uint32_t largest = LargestBits(x, kBlock);
  for (int64_t i = 0; i < kBlock; ++i)
    if ((std::bit_cast<uint32_t>(x[i]) & 0x7fffffffu) == largest) return x[i];
  return 0.0f;
}

float InverseOf(float d) { return d == 0.0f ? 0.0f : 1.0f / d; }

// codes = min(whole((x - least) * inverse + half), top). Where the inverse overflows the quotients are
// infinite or NaN, which the reference turns to 0.
void CodesOf(const float* x, float least, float inverse, float half, int32_t top, Codes* codes) {
  if (std::fabs(inverse) > FLT_MAX) {
    codes->fill(0);
    return;
  }
  for (size_t i = 0; i < kBlock; ++i) {
    const auto whole = static_cast<int32_t>((x[i] - least) * inverse + half);
    (*codes)[i] = static_cast<uint8_t>(std::min(whole, top));
  }
}

// The low nibbles of 16 bytes are the first 16 codes.
void WriteNibbles(const Codes& codes, std::byte* out) {
  for (size_t i = 0; i < 16; ++i)
    out[i] = static_cast<std::byte>((codes[i] & 15) | static_cast<uint8_t>(codes[i + 16] << 4));
}

void WriteFifthBits(const Codes& codes, std::byte* out) {
  uint32_t bits = 0;
  for (size_t i = 0; i < kBlock; ++i) bits |= static_cast<uint32_t>(codes[i] >> 4) << i;
  std::memcpy(out, &bits, sizeof(bits));
}

// q4_0 and q5_0: the weight of largest magnitude gets code 0, which stands for -kHalf.
template <int kHalf>
void EncodeAroundZero(const float* x, std::byte* out) {
  const float d = LargestSigned(x) / -static_cast<float>(kHalf);
  Codes codes;
  CodesOf(x, 0.0f, InverseOf(d), static_cast<float>(kHalf) + 0.5f, 2 * kHalf - 1, &codes);
  Write(out, ToF16(d));
  if (kHalf == 16) WriteFifthBits(codes, out + 2);
  WriteNibbles(codes, out + (kHalf == 16 ? 6 : 2));
}

// q4_1 and q5_1: codes from the least weight to the largest.
template <int kTop>
void EncodeFromLeast(const float* x, std::byte* out) {
  float least = x[0], largest = x[0];
  for (int64_t i = 1; i < kBlock; ++i) {
    least = x[i] < least ? x[i] : least;
    largest = x[i] > largest ? x[i] : largest;
  }
  const float d = (largest - least) / static_cast<float>(kTop);
  Codes codes;
  CodesOf(x, least, InverseOf(d), 0.5f, kTop, &codes);
  Write(out, ToF16(d));
  Write(out + 2, ToF16(least));
  if (kTop == 31) WriteFifthBits(codes, out + 4);
  WriteNibbles(codes, out + (kTop == 31 ? 8 : 4));
}

// Halves are rounded away from zero.
void EncodeQ8_0(const float* x, std::byte* out) {
  const float d = std::bit_cast<float>(LargestBits(x, kBlock)) / 127.0f;
  const float inverse = InverseOf(d);
  Write(out, ToF16(d));
  int8_t codes[kBlock] = {};
  if (std::fabs(inverse) <= FLT_MAX) {
    for (int64_t i = 0; i < kBlock; ++i) {
      // Through a whole number: that vectorises without SSE4.1. The difference is exact.
      const float quotient = x[i] * inverse;
      const auto whole = static_cast<int32_t>(quotient);
      const auto rest = static_cast<int32_t>(2.0f * (quotient - static_cast<float>(whole)));
      codes[i] = static_cast<int8_t>(whole + rest);
    }
  }
  std::memcpy(out + 2, codes, sizeof(codes));
}

// The exponent of the largest magnitude less 2: over that power it is in [4, 8), and 6 is the largest level.
// Then the nearest level, of two the smaller magnitude, and of the two zeros the positive one.
void EncodeMxfp4(const float* x, std::byte* out) {
  const float largest = std::bit_cast<float>(LargestBits(x, kBlock));
  uint8_t exponent = 0;
  if (largest > 0.0f) {
    // In f32, where the logarithm of a number just below a power of two may round up to a whole one. Below
    // 2^-125 the byte wraps, as in the reference: a power so large that all codes are 0.
    const auto logarithm = static_cast<float>(std::log2(static_cast<double>(largest)));
    exponent = static_cast<uint8_t>(static_cast<int>(std::floor(logarithm)) - 2 + 127);
  }
  out[0] = std::byte{exponent};
  const float d = PowerOfMxfp4(exponent);
  std::array<int32_t, kBlock> above{};
  for (size_t level = 0; level < 7; ++level) {
    // Exact, and so are the distances to the levels on either side: the reference, which compares these,
    // finds the same. Where the level above is infinite nothing reaches it.
    const float below = d * static_cast<float>(kE2M1Twice[level]);
    const float midpoint = below * 0.5f + d * static_cast<float>(kE2M1Twice[level + 1]) * 0.5f;
    for (size_t i = 0; i < kBlock; ++i) above[i] += std::fabs(x[i]) > midpoint ? 1 : 0;
  }
  Codes codes;
  for (size_t i = 0; i < kBlock; ++i)
    codes[i] = static_cast<uint8_t>(above[i] | (x[i] < 0.0f && above[i] > 0 ? 8 : 0));
  WriteNibbles(codes, out + 1);
}

template <class T, T kConvert(float)>
void EncodePlain(const float* weights, int64_t n, std::byte* out) {
  for (int64_t i = 0; i < n; ++i, out += sizeof(T)) {
    const T value = kConvert(weights[i]);
    std::memcpy(out, &value, sizeof(T));
  }
}

template <int64_t kBytes, void kEncode(const float*, std::byte*)>
void EncodeBlocks(const float* weights, int64_t n, std::byte* out) {
  for (int64_t i = 0; i < n; i += kBlock, out += kBytes) kEncode(weights + i, out);
}

float Same(float x) { return x; }

// Midpoint between the largest f16 and the next power of two: from here on ToF16 gives infinity.
constexpr float kF16End = 65520.0f;

struct Encoder {
  Format format;
  void (*encode)(const float* weights, int64_t n, std::byte* out);
  float end;  // weights of smaller magnitude are encodable
};

// Ends: bf16 from its midpoint to infinity; of q8_0, q4_0 and q5_0 the scale must be below kF16End, and the
// division by 127 must not round up to it.
constexpr Encoder kEncoders[] = {
    {Format::kF32, EncodePlain<float, Same>, std::numeric_limits<float>::infinity()},
    {Format::kF16, EncodePlain<F16, ToF16>, kF16End},
    {Format::kBf16, EncodePlain<Bf16, ToBf16>, 0x1.ffp127f},
    {Format::kQ8_0, EncodeBlocks<kQ8_0Bytes, EncodeQ8_0>, 127 * kF16End},
    {Format::kQ4_0, EncodeBlocks<kQ4_0Bytes, EncodeAroundZero<8>>, 8 * kF16End},
    {Format::kQ4_1, EncodeBlocks<kQ4_1Bytes, EncodeFromLeast<15>>, kF16End},
    {Format::kQ5_0, EncodeBlocks<kQ5_0Bytes, EncodeAroundZero<16>>, 16 * kF16End},
    {Format::kQ5_1, EncodeBlocks<kQ5_1Bytes, EncodeFromLeast<31>>, kF16End},
    {Format::kMxfp4, EncodeBlocks<kMxfp4Bytes, EncodeMxfp4>, std::numeric_limits<float>::infinity()},
};

const Encoder* Find(Format format) {
  for (const Encoder& encoder : kEncoders)
    if (encoder.format == format) return &encoder;
  return nullptr;
}

}  // namespace

bool IsEncodable(Format format, const float* weights, int64_t n) {
  const Encoder* encoder = Find(format);
  return encoder && LargestBits(weights, n) < std::bit_cast<uint32_t>(encoder->end);
}

void Encode(Format format, const float* weights, int64_t n, std::byte* out) {
  if (const Encoder* encoder = Find(format)) encoder->encode(weights, n, out);
}

}  // namespace rung::format
