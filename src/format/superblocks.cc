// GGUF's superblocks of 256 weights: groups of 16 or 32 whose small scales share an f16.
#include "format/block_decode.h"
#include "format/decoders.h"

namespace rung::format {
namespace {

// Two bits a weight. 32 bytes hold 128 weights, the first 32 in the lowest two bits; 64 bytes hold all.
int TwoBitsAt(const std::byte* codes, int64_t i) {
  const int64_t half = i / 128, layer = i / 32 % 4;
  return ByteAt(codes, half * 32 + i % 32) >> (2 * layer) & 3;
}

// One bit a weight. 32 bytes hold 256 weights, the first 32 in the lowest bit.
int BitAt(const std::byte* codes, int64_t i) { return ByteAt(codes, i % 32) >> (i / 32) & 1; }

// Four bits a weight. `width` bytes hold 2 * width weights, the first half in the low nibbles.
int FourBitsAt(const std::byte* codes, int64_t width, int64_t i) {
  const int64_t pair = i / (2 * width), layer = i / width % 2;
  return ByteAt(codes, pair * width + i % width) >> (4 * layer) & 15;
}

// 16 x (4 bits scale, 4 bits minimum), 64 bytes of 2 bits, f16 d, f16 dmin.
//   w = (d * scale) * q - (dmin * minimum)
struct Q2K {
  static constexpr int64_t kWeights = kSuperblock, kGroup = 16, kBytes = kQ2KBytes;
  const std::byte* block;
  float d, dmin;
  explicit Q2K(const std::byte* at) : block(at), d(ReadF16(at + 80)), dmin(ReadF16(at + 82)) {}
  ScaleAndOffset ScaleOf(int64_t group) const {
    const int packed = ByteAt(block, group);
    return {d * static_cast<float>(packed & 15), -(dmin * static_cast<float>(packed >> 4))};
  }
  int CodeOf(int64_t i) const { return TwoBitsAt(block + 16, i); }
};

// 32 bytes of the third bits, 64 bytes of 2 bits, 16 x 6 bits scale in 12 bytes, f16 d. The code is less by 4
// where the third bit is clear.
//   w = (d * (scale - 32)) * q
struct Q3K {
  static constexpr int64_t kWeights = kSuperblock, kGroup = 16, kBytes = kQ3KBytes;
  const std::byte* block;
  float d;
  explicit Q3K(const std::byte* at) : block(at), d(ReadF16(at + 108)) {}
  // 8 bytes hold the low nibbles of scales 0-7 and, above them, of 8-15; 4 bytes hold the high two bits of
  // scales g, g + 4, g + 8 and g + 12.
  Scale ScaleOf(int64_t group) const {
    const std::byte* scales = block + 96;
    const int low = ByteAt(scales, group % 8) >> (group / 8 * 4) & 15;
    const int high = ByteAt(scales, 8 + group % 4) >> (group / 4 * 2) & 3;
    return {d * static_cast<float>((low | high << 4) - 32)};
  }
  int CodeOf(int64_t i) const { return TwoBitsAt(block + 32, i) + (BitAt(block, i) << 2) - 4; }
};

// f16 d, f16 dmin, 8 x (6 bits scale, 6 bits minimum) in 12 bytes: the head of Q4_K and Q5_K.
//   w = (d * scale) * q - (dmin * minimum)
struct ScalesOfSixBits {
  static constexpr int64_t kWeights = kSuperblock, kGroup = 32;
  const std::byte* block;
  float d, dmin;
  explicit ScalesOfSixBits(const std::byte* at) : block(at), d(ReadF16(at)), dmin(ReadF16(at + 2)) {}
  // Bytes 0-3 are the scales 0-3, bytes 4-7 the minima 0-3; their two top bits are those of numbers 4-7,
  // whose low nibbles are bytes 8-11, scales low and minima high.
  ScaleAndOffset ScaleOf(int64_t group) const {
    const std::byte* packed = block + 4;
    int scale, minimum;
    if (group < 4) {
      scale = ByteAt(packed, group) & 63;
      minimum = ByteAt(packed, group + 4) & 63;
    } else {
      scale = (ByteAt(packed, group + 4) & 15) | (ByteAt(packed, group - 4) >> 6 << 4);
      minimum = ByteAt(packed, group + 4) >> 4 | (ByteAt(packed, group) >> 6 << 4);
    }
    return {d * static_cast<float>(scale), -(dmin * static_cast<float>(minimum))};
  }
};

// ... and 128 bytes of 4 bits.
struct Q4K : ScalesOfSixBits {
  static constexpr int64_t kBytes = kQ4KBytes;
  using ScalesOfSixBits::ScalesOfSixBits;
  int CodeOf(int64_t i) const { return FourBitsAt(block + 16, 32, i); }
};

// ... 32 bytes of fifth bits and 128 bytes of 4 bits.
struct Q5K : ScalesOfSixBits {
  static constexpr int64_t kBytes = kQ5KBytes;
  using ScalesOfSixBits::ScalesOfSixBits;
  int CodeOf(int64_t i) const { return FourBitsAt(block + 48, 32, i) | BitAt(block + 16, i) << 4; }
};

// 128 bytes of 4 bits, 64 bytes of the bits above, 16 int8 scales, f16 d.
//   w = (d * scale) * (q - 32)
struct Q6K {
  static constexpr int64_t kWeights = kSuperblock, kGroup = 16, kBytes = kQ6KBytes;
  const std::byte* block;
  float d;
  explicit Q6K(const std::byte* at) : block(at), d(ReadF16(at + 208)) {}
  Scale ScaleOf(int64_t group) const { return {d * static_cast<float>(Read<int8_t>(block + 192 + group))}; }
  int CodeOf(int64_t i) const { return (FourBitsAt(block, 64, i) | TwoBitsAt(block + 128, i) << 4) - 32; }
};

}  // namespace

void DecodeQ2K(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Q2K>(matrix, begin, end, out);
}
void DecodeQ3K(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Q3K>(matrix, begin, end, out);
}
void DecodeQ4K(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Q4K>(matrix, begin, end, out);
}
void DecodeQ5K(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Q5K>(matrix, begin, end, out);
}
void DecodeQ6K(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Q6K>(matrix, begin, end, out);
}

}  // namespace rung::format
