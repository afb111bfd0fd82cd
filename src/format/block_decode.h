// What the decoders of GGUF's block formats share. A format is a type over one block:
//
//   kWeights, kBytes   of a block
//   kGroup             consecutive weights that share a scale; divides kWeights
//   Block(data)        reads what the whole block has in common
//   ScaleOf(group)     a Scale or ScaleAndOffset
//   CodeOf(i)          whole number of weight i of the block
//
// Order of operations: those of the gguf package, each rounded by itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/half.h"
#include "format/format.h"

namespace rung::format {

inline constexpr int64_t kBlock = 32;
inline constexpr int64_t kSuperblock = 256;

// Bytes of a mapped file: any alignment.
template <class T>
T Read(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

inline float ReadF16(const std::byte* at) { return ToFloat(Read<F16>(at)); }
inline int ByteAt(const std::byte* at, int64_t i) { return std::to_integer<int>(at[i]); }

// The low nibbles of 16 bytes are the first 16 of 32 weights, the high nibbles the last.
inline int NibbleAt(const std::byte* codes, int64_t i) {
  const int byte = ByteAt(codes, i % 16);
  return i < 16 ? byte & 15 : byte >> 4;
}

// w = d * q
struct Scale {
  float d;
  float operator()(int code) const { return d * static_cast<float>(code); }
};

// w = d * q + m. A type of its own: adding a zero would turn -0 into +0.
struct ScaleAndOffset {
  float d, m;
  float operator()(int code) const { return d * static_cast<float>(code) + m; }
};

template <class Block>
void DecodeBlocks(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  for (int64_t i = begin; i < end;) {
    const int64_t first = i / Block::kWeights * Block::kWeights;
    const int64_t block_end = std::min(end, first + Block::kWeights);
    const Block block(matrix.data + first / Block::kWeights * Block::kBytes);
    while (i < block_end) {
      const int64_t group = (i - first) / Block::kGroup;
      const int64_t stop = std::min(block_end, first + (group + 1) * Block::kGroup);
      const auto scale = block.ScaleOf(group);
      for (; i < stop; ++i) *out++ = scale(block.CodeOf(i - first));
    }
  }
}

}  // namespace rung::format
