// Weight formats: how the numbers of a frozen matrix are stored.
//
// A format is one row of a table (format.cc) and, per device, one fast decoder
// (kernels/cpu/panel_*). Nothing else in the engine names a format: it asks for rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace rung::format {

enum class Format : uint8_t {
  kF32,
  kF16,
  kBf16,
  kQ8_0,
  kQ4_0,
  kQ4_1,  // GGUF, blocks of 32
  kNf4,   // bitsandbytes, format/nf4.h
  kQ5_0,
  kQ5_1,  // GGUF, blocks of 32
  kQ2K,
  kQ3K,
  kQ4K,
  kQ5K,
  kQ6K,  // GGUF, superblocks of 256
  kIq4Nl,
  kIq4Xs,
  kMxfp4,   // GGUF, codes that look up a level
  kFp4,     // bitsandbytes, as kNf4 with other levels
  kF8E4m3,  // one byte a weight, scales apart or none
  kInt4,    // GPTQ's and AWQ's codes in row-major order, scales apart
};
inline constexpr int kFormatCount = 20;

// Scales stored apart from the codes. Flat index: block b covers weights [64b, 64b+64) of the
// row-major matrix, so a block may straddle rows when cols is not a multiple of 64.
//
//   single:  scale(b) = absmax[b]
//   double:  scale(b) = map[codes[b]] * absmax[b / 256] + offset     (f32 multiply, then add)
struct BlockScales {
  const float* absmax = nullptr;   // (blocks), or the second level (blocks/256) when codes is set
  const uint8_t* codes = nullptr;  // (blocks), double quantisation only
  const float* map = nullptr;      // (256), double quantisation only
  float offset = 0.0f;

  float At(int64_t block) const {
    // Two statements: a fused multiply-add would round once and differ from bitsandbytes.
    if (!codes) return absmax[block];
    const volatile float product = map[codes[block]] * absmax[block / 256];
    return product + offset;
  }
};

// Scales of tiles of a matrix: what kF8E4m3 and kInt4 keep apart.
//
//   w[r][k] = scale[r / rows][g(k)] * (code[r][k] - zero[r][g(k)])      g(k) = index ? index[k] : k / cols
struct TileScales {
  const float* scale = nullptr;    // (ceil(matrix rows / rows), groups); nullptr: all 1, kF8E4m3 only
  const uint8_t* zero = nullptr;   // (matrix rows, groups), kInt4 only, where rows is 1; nullptr: all 0
  const int32_t* index = nullptr;  // (matrix cols): the group of each column, in [0, groups)
  int64_t rows = 1, cols = 0;      // of a tile; without `scale` meaningless
  int64_t groups = 0;
};

// A frozen matrix (rows, cols), row-major, in its storage format. A view: the bytes belong to the
// mapped file or to the model's weight buffer. No alignment of `data` is assumed.
struct Matrix {
  Format format = Format::kF32;
  int64_t rows = 0, cols = 0;
  const std::byte* data = nullptr;
  BlockScales scales = {};  // kNf4, kFp4
  TileScales tiles = {};    // kF8E4m3, kInt4: codes of kInt4 stand two in a byte, the first in the low nibble
};

// Everything the rest of the engine may know about a format.
struct Info {
  std::string_view name;  // as users write it: "q4_1", "nf4"
  int64_t block;          // weights of one block; cols is a multiple of it, except for kNf4 and kFp4
  int64_t block_bytes;    // bytes of one block in Matrix::data
  int gguf_type;          // ggml's type number, -1 when GGUF has none
  // Decodes weights [begin, end) of the flat row-major matrix into f32, exactly as the format's
  // reference implementation does. Any begin and end. Scalar: the specification of the fast decoders.
  void (*decode)(const Matrix& matrix, int64_t begin, int64_t end, float* out);
};

const Info& Of(Format format);

// The format of a ggml type number; nullptr when it is not one we read.
const Info* FromGguf(int gguf_type, Format* format);
// "f32, f16, ...": the formats that GGUF files may have, for messages.
std::string GgufNames();

// Bytes of Matrix::data for this shape (scales kept apart not counted).
int64_t DataBytes(Format format, int64_t rows, int64_t cols);
// Bytes of data and scales together: what one pass over the matrix reads.
int64_t TotalBytes(const Matrix& matrix);

// One row, by the scalar reference.
void DecodeRow(const Matrix& matrix, int64_t row, float* out);

}  // namespace rung::format
