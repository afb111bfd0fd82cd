// GGUF's blocks of 32 weights.
#include "format/block_decode.h"
#include "format/decoders.h"

namespace rung::format {
namespace {

// Formats with one scale a block.
struct OneScale {
  static constexpr int64_t kWeights = kBlock, kGroup = kBlock;
  Scale scale;
  Scale ScaleOf(int64_t) const { return scale; }
};

// f16 d, f16 m
struct OneScaleAndOffset {
  static constexpr int64_t kWeights = kBlock, kGroup = kBlock;
  ScaleAndOffset scale;
  ScaleAndOffset ScaleOf(int64_t) const { return scale; }
};

// f16 d, 32 int8.  w = d * q
struct Q8_0 : OneScale {
  static constexpr int64_t kBytes = kQ8_0Bytes;
  const std::byte* codes;
  explicit Q8_0(const std::byte* block) : OneScale{{ReadF16(block)}}, codes(block + 2) {}
  int CodeOf(int64_t i) const { return Read<int8_t>(codes + i); }
};

// f16 d, 16 bytes.  w = d * (q - 8)
struct Q4_0 : OneScale {
  static constexpr int64_t kBytes = kQ4_0Bytes;
  const std::byte* codes;
  explicit Q4_0(const std::byte* block) : OneScale{{ReadF16(block)}}, codes(block + 2) {}
  int CodeOf(int64_t i) const { return NibbleAt(codes, i) - 8; }
};

// f16 d, f16 m, 16 bytes.  w = d * q + m
struct Q4_1 : OneScaleAndOffset {
  static constexpr int64_t kBytes = kQ4_1Bytes;
  const std::byte* codes;
  explicit Q4_1(const std::byte* block)
      : OneScaleAndOffset{{ReadF16(block), ReadF16(block + 2)}}, codes(block + 4) {}
  int CodeOf(int64_t i) const { return NibbleAt(codes, i); }
};

// Bit i of 32 is the fifth bit of code i.
int FifthBit(uint32_t bits, int64_t i) { return static_cast<int>(bits >> i & 1u) << 4; }

// f16 d, 32 fifth bits, 16 bytes.  w = d * (q - 16)
struct Q5_0 : OneScale {
  static constexpr int64_t kBytes = kQ5_0Bytes;
  uint32_t fifth;
  const std::byte* codes;
  explicit Q5_0(const std::byte* block)
      : OneScale{{ReadF16(block)}}, fifth(Read<uint32_t>(block + 2)), codes(block + 6) {}
  int CodeOf(int64_t i) const { return (NibbleAt(codes, i) | FifthBit(fifth, i)) - 16; }
};

// f16 d, f16 m, 32 fifth bits, 16 bytes.  w = d * q + m
struct Q5_1 : OneScaleAndOffset {
  static constexpr int64_t kBytes = kQ5_1Bytes;
  uint32_t fifth;
  const std::byte* codes;
  explicit Q5_1(const std::byte* block)
      : OneScaleAndOffset{{ReadF16(block), ReadF16(block + 2)}},
        fifth(Read<uint32_t>(block + 4)),
        codes(block + 8) {}
  int CodeOf(int64_t i) const { return NibbleAt(codes, i) | FifthBit(fifth, i); }
};

}  // namespace

void DecodeQ8_0(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Q8_0>(matrix, begin, end, out);
}
void DecodeQ4_0(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Q4_0>(matrix, begin, end, out);
}
void DecodeQ4_1(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Q4_1>(matrix, begin, end, out);
}
void DecodeQ5_0(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Q5_0>(matrix, begin, end, out);
}
void DecodeQ5_1(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  DecodeBlocks<Q5_1>(matrix, begin, end, out);
}

}  // namespace rung::format
