// Rows of a floating-point matrix of a safetensors file as f32, a few at a time.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "format/format.h"
#include "io/safetensors.h"

namespace rung::model {

// The format of a safetensors dtype; nullopt when it is none of the floating-point ones whose numbers need no
// scale.
std::optional<format::Format> FloatFormat(const std::string& dtype);
// That, or float8, which may have scales.
std::optional<format::Format> FloatOrFloat8(const std::string& dtype);

// Scales of a float8 matrix: one for each tile. Without values: all 1.
struct Float8Scales {
  std::vector<float> values;      // (ceil(matrix rows / rows), groups); empty of a plan
  int64_t rows = 1, cols = 0;     // of a tile
  int64_t groups = 0, count = 0;  // groups: tiles beside each other; count: of all; 0: no scales
};

// The weights of one tensor, (rows, cols) as they are used.
class FloatRows {
 public:
  // What it is given outlives it. transposed: the tensor is (cols, rows); then it is read as a whole.
  FloatRows(const io::Safetensors& tensors, const io::TensorEntry& entry, int64_t rows, int64_t cols,
            bool transposed = false, const Float8Scales* scales = nullptr)
      : tensors_(tensors),
        entry_(entry),
        rows_(rows),
        cols_(cols),
        transposed_(transposed),
        scales_(scales),
        format_(*FloatOrFloat8(entry.dtype)) {}

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  format::Format format() const { return format_; }
  // Rows of one piece: together they are a multiple of `unit` weights, and small beside any model.
  int64_t PieceRows(int64_t unit) const;
  // out ((end - begin) * cols).
  Status Read(int64_t begin, int64_t end, float* out);
  // The same rows in the file's own format; no scale is applied.
  Status ReadStored(int64_t begin, int64_t end, std::byte* out);

 private:
  const io::Safetensors& tensors_;
  const io::TensorEntry& entry_;
  int64_t rows_, cols_;
  bool transposed_;
  const Float8Scales* scales_;
  format::Format format_;
  std::vector<std::byte> raw_, whole_;
};

}  // namespace rung::model
