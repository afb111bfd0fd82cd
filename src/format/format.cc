#include "format/format.h"

#include <array>

#include "base/rounding.h"
#include "format/block_decode.h"
#include "format/decoders.h"
#include "format/nf4.h"

namespace rung::format {
namespace {

template <class T>
void DecodePlain(const Matrix& matrix, int64_t begin, int64_t end, float* out) {
  const std::byte* at = matrix.data + static_cast<size_t>(begin) * sizeof(T);
  for (int64_t i = begin; i < end; ++i, at += sizeof(T)) *out++ = ToFloat(Read<T>(at));
}

// In the order of Format.
constexpr std::array<Info, kFormatCount> kFormats = {{
    {"f32", 1, 4, 0, DecodePlain<float>},
    {"f16", 1, 2, 1, DecodePlain<F16>},
    {"bf16", 1, 2, 30, DecodePlain<Bf16>},
    {"q8_0", kBlock, kQ8_0Bytes, 8, DecodeQ8_0},
    {"q4_0", kBlock, kQ4_0Bytes, 2, DecodeQ4_0},
    {"q4_1", kBlock, kQ4_1Bytes, 3, DecodeQ4_1},
    {"nf4", kNf4Block, kNf4Block / 2, -1, DecodeNf4},
    {"q5_0", kBlock, kQ5_0Bytes, 6, DecodeQ5_0},
    {"q5_1", kBlock, kQ5_1Bytes, 7, DecodeQ5_1},
    {"q2_k", kSuperblock, kQ2KBytes, 10, DecodeQ2K},
    {"q3_k", kSuperblock, kQ3KBytes, 11, DecodeQ3K},
    {"q4_k", kSuperblock, kQ4KBytes, 12, DecodeQ4K},
    {"q5_k", kSuperblock, kQ5KBytes, 13, DecodeQ5K},
    {"q6_k", kSuperblock, kQ6KBytes, 14, DecodeQ6K},
    {"iq4_nl", kBlock, kIq4NlBytes, 20, DecodeIq4Nl},
    {"iq4_xs", kSuperblock, kIq4XsBytes, 23, DecodeIq4Xs},
    {"mxfp4", kBlock, kMxfp4Bytes, 39, DecodeMxfp4},
    {"fp4", kNf4Block, kNf4Block / 2, -1, DecodeFp4},
    {"f8_e4m3", 1, 1, -1, DecodeF8E4m3},
    {"int4", 2, 1, -1, DecodeInt4},
}};

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
  // The last block of these may be cut short, at a whole byte.
  if (format == Format::kNf4 || format == Format::kFp4) return CeilDiv(rows * cols, 2);
  return rows * (cols / info.block) * info.block_bytes;
}

int64_t TotalBytes(const Matrix& matrix) {
  int64_t bytes = DataBytes(matrix.format, matrix.rows, matrix.cols);
  if (matrix.scales.absmax) bytes += Nf4ScaleBytes(matrix.rows * matrix.cols, matrix.scales.codes != nullptr);
  const TileScales& tiles = matrix.tiles;
  if (tiles.scale) bytes += 4 * CeilDiv(matrix.rows, tiles.rows) * tiles.groups;
  if (tiles.zero) bytes += matrix.rows * tiles.groups;
  if (tiles.index) bytes += 4 * matrix.cols;
  return bytes;
}

void DecodeRow(const Matrix& matrix, int64_t row, float* out) {
  Of(matrix.format).decode(matrix, row * matrix.cols, (row + 1) * matrix.cols, out);
}

}  // namespace rung::format
