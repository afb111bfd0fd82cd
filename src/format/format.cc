#include "format/format.h"

#include <array>
#include <cstring>

#include "base/half.h"
#include "format/nf4.h"

namespace rung::format {
namespace {

constexpr int64_t kGgufBlock = 32;

// Bytes of a mapped file: any alignment.
template <class T>
T Read(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof(T));
  return value;
}

float ReadF16(const std::byte* at) { return ToFloat(Read<F16>(at)); }

template <class T>
void DecodePlain(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  const std::byte* at = matrix.data + static_cast<size_t>(begin) * sizeof(T);
  for (int64_t i = begin; i < end; ++i, at += sizeof(T)) *out++ = ToFloat(Read<T>(at));
}

// Q8_0: f16 d, 32 int8.  w = d * q
struct Q8_0 {
  static constexpr int64_t kBytes = 34;
  float d;
  const std::byte* codes;
  explicit Q8_0(const std::byte* block) : d(ReadF16(block)), codes(block + 2) {}
  float At(int64_t i) const { return d * static_cast<float>(Read<int8_t>(codes + i)); }
};

// The low nibbles of 16 bytes are a block's first 16 weights, the high nibbles its last.
int NibbleAt(const std::byte* codes, int64_t i) {
  const int byte = std::to_integer<int>(codes[i % 16]);
  return i < 16 ? byte & 15 : byte >> 4;
}

// Q4_0: f16 d, 16 bytes.  w = d * (q - 8)
struct Q4_0 {
  static constexpr int64_t kBytes = 18;
  float d;
  const std::byte* codes;
  explicit Q4_0(const std::byte* block) : d(ReadF16(block)), codes(block + 2) {}
  float At(int64_t i) const { return d * static_cast<float>(NibbleAt(codes, i) - 8); }
};

// Q4_1: f16 d, f16 m, 16 bytes.  w = d * q + m; the product of 11 and 4 bits is exact, so the sum alone
// rounds
struct Q4_1 {
  static constexpr int64_t kBytes = 20;
  float d, m;
  const std::byte* codes;
  explicit Q4_1(const std::byte* block) : d(ReadF16(block)), m(ReadF16(block + 2)), codes(block + 4) {}
  float At(int64_t i) const { return d * static_cast<float>(NibbleAt(codes, i)) + m; }
};

template <class Block>
void DecodeBlocks(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  for (int64_t i = begin; i < end;) {
    const int64_t first = i / kGgufBlock * kGgufBlock;
    const int64_t stop = end < first + kGgufBlock ? end : first + kGgufBlock;
    const Block block(matrix.data + first / kGgufBlock * Block::kBytes);
    for (; i < stop; ++i) *out++ = block.At(i - first);
  }
}

void DecodeNf4(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  for (int64_t i = begin; i < end;) {
    const int64_t block = i / kNf4Block;
    const int64_t stop = end < (block + 1) * kNf4Block ? end : (block + 1) * kNf4Block;
    const float scale = matrix.scales.At(block);
    for (; i < stop; ++i) {
      const unsigned byte = std::to_integer<unsigned>(matrix.data[i / 2]);
      *out++ = kNf4Level[i % 2 ? byte & 15u : byte >> 4] * scale;
    }
  }
}

// In the order of Format.
constexpr std::array<Info, kFormatCount> kFormats = {{
    {"f32", 1, 4, 0, DecodePlain<float>},
    {"f16", 1, 2, 1, DecodePlain<F16>},
    {"bf16", 1, 2, 30, DecodePlain<Bf16>},
    {"q8_0", kGgufBlock, Q8_0::kBytes, 8, DecodeBlocks<Q8_0>},
    {"q4_0", kGgufBlock, Q4_0::kBytes, 2, DecodeBlocks<Q4_0>},
    {"q4_1", kGgufBlock, Q4_1::kBytes, 3, DecodeBlocks<Q4_1>},
    {"nf4", kNf4Block, kNf4Block / 2, -1, DecodeNf4},
}};

constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

const Info& Of(Format format) { return kFormats[static_cast<size_t>(format)]; }

const Info* FromGguf(int gguf_type, Format* format) {
  if (gguf_type < 0) return nullptr;
  for (size_t i = 0; i < kFormats.size(); ++i) {
    if (kFormats[i].gguf_type != gguf_type) continue;
    *format = static_cast<Format>(i);
    return &kFormats[i];
  }
  return nullptr;
}

std::string GgufNames() {
  std::string names;
  for (const Info& info : kFormats) {
    if (info.gguf_type < 0) continue;
    if (!names.empty()) names += ", ";
    names += info.name;
  }
  return names;
}

int64_t DataBytes(Format format, int64_t rows, int64_t cols) {
  const Info& info = Of(format);
  // NF4's last block may be cut short, at a whole byte.
  return format == Format::kNf4 ? CeilDiv(rows * cols, 2) : rows * (cols / info.block) * info.block_bytes;
}

int64_t TotalBytes(const Matrix& matrix) {
  const int64_t data = DataBytes(matrix.format, matrix.rows, matrix.cols);
  if (!matrix.scales.absmax) return data;
  const int64_t blocks = CeilDiv(matrix.rows * matrix.cols, kNf4Block);
  if (!matrix.scales.codes) return data + 4 * blocks;
  return data + blocks + 4 * CeilDiv(blocks, kNf4NestedBlock);
}

void DecodeRow(const Matrix& matrix, int64_t row, float* out) {
  Of(matrix.format).decode(matrix, row * matrix.cols, (row + 1) * matrix.cols, out);
}

}  // namespace rung::format
