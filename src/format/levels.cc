// Formats whose codes look up a level.
#include <array>

#include "format/block_decode.h"
#include "format/decoders.h"
#include "format/nf4.h"

namespace rung::format {
namespace {

constexpr std::array<int8_t, 16> kIq4Level = {-127, -104, -83, -65, -49, -35, -22, -10,
                                              1,    13,   25,  38,  53,  69,  89,  113};

int LevelOf(const std::array<int8_t, 16>& levels, int code) { return levels[static_cast<size_t>(code)]; }

// f16 d, 16 bytes.  w = d * level
struct Iq4Nl {
  static constexpr int64_t kWeights = kBlock, kGroup = kBlock, kBytes = kIq4NlBytes;
  Scale scale;
  const std::byte* codes;
  explicit Iq4Nl(const std::byte* block) : scale{ReadF16(block)}, codes(block + 2) {}
  Scale ScaleOf(int64_t) const { return scale; }
  int CodeOf(int64_t i) const { return LevelOf(kIq4Level, NibbleAt(codes, i)); }
};

// f16 d, the high two bits of 8 scales in 2 bytes, their low nibbles in 4, 8 times 16 bytes.
//   w = (d * (scale - 32)) * level
struct Iq4Xs {
  static constexpr int64_t kWeights = kSuperblock, kGroup = 32, kBytes = kIq4XsBytes;
  const std::byte* block;
  float d;
  int high;
  explicit Iq4Xs(const std::byte* at) : block(at), d(ReadF16(at)), high(Read<uint16_t>(at + 2)) {}
  Scale ScaleOf(int64_t group) const {
    const int low = ByteAt(block + 4, group / 2) >> (group % 2 * 4) & 15;
    const int top = high >> (group * 2) & 3;
    return {d * static_cast<float>((low | top << 4) - 32)};
  }
  int CodeOf(int64_t i) const { return LevelOf(kIq4Level, NibbleAt(block + 8 + i / 32 * 16, i % 32)); }
};

// Exponent e, 16 bytes.  w = 2^(e - 128) * twice the level
struct Mxfp4 {
  static constexpr int64_t kWeights = kBlock, kGroup = kBlock, kBytes = kMxfp4Bytes;
  Scale scale;
  const std::byte* codes;
  explicit Mxfp4(const std::byte* block) : scale{PowerOfMxfp4(Read<uint8_t>(block))}, codes(block + 1) {}
  Scale ScaleOf(int64_t) const { return scale; }
  int CodeOf(int64_t i) const { return LevelOf(kE2M1Twice, NibbleAt(codes, i)); }
};

// Blocks of the flat matrix, the first weight of a byte in its high nibble.  w = level * scale
void DecodeBlocksApart(const std::array<float, 16>& levels, const Matrix& matrix, int64_t begin, int64_t end,
                       float* out) {
  for (int64_t i = begin; i < end;) {
    const int64_t block = i / kNf4Block;
    const int64_t stop = std::min(end, (block + 1) * kNf4Block);
    const float scale = matrix.scales.At(block);
    for (; i < stop; ++i) {
      const unsigned byte = std::to_integer<unsigned>(matrix.data[i / 2]);
      *out++ = levels[i % 2 ? byte & 15u : byte >> 4] * scale;
    }
  }
}

}  // namespace

void DecodeIq4Nl(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Iq4Nl>(matrix, begin, end, out);
}
void DecodeIq4Xs(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Iq4Xs>(matrix, begin, end, out);
}
void DecodeMxfp4(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Mxfp4>(matrix, begin, end, out);
}
void DecodeNf4(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocksApart(kNf4Level, matrix, begin, end, out);
}
void DecodeFp4(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocksApart(kFp4Level, matrix, begin, end, out);
}

}  // namespace rung::format
