#include "model/float_rows.h"

#include <algorithm>
#include <cstring>
#include <numeric>

namespace rung::model {
namespace {

constexpr int64_t kPiece = int64_t{1} << 20;  // weights: small beside any model, large enough for the disk

template <class Word>
void GatherColumns(const std::byte* from, int64_t rows, int64_t cols, int64_t begin, int64_t end,
                   std::byte* to) {
  for (int64_t k = 0; k < cols; ++k) {
    for (int64_t r = begin; r < end; ++r) {
      std::memcpy(to + ((r - begin) * cols + k) * static_cast<int64_t>(sizeof(Word)),
                  from + (k * rows + r) * static_cast<int64_t>(sizeof(Word)), sizeof(Word));
    }
  }
}

}  // namespace

std::optional<format::Format> FloatFormat(const std::string& dtype) {
  if (dtype == "F32") return format::Format::kF32;
  if (dtype == "F16") return format::Format::kF16;
  if (dtype == "BF16") return format::Format::kBf16;
  return std::nullopt;
}

std::optional<format::Format> FloatOrFloat8(const std::string& dtype) {
  return dtype == "F8_E4M3" ? format::Format::kF8E4m3 : FloatFormat(dtype);
}

int64_t FloatRows::PieceRows(int64_t unit) const {
  const int64_t whole = unit / std::gcd(unit, cols_);
  return std::max<int64_t>(kPiece / cols_ / whole, 1) * whole;
}

Status FloatRows::ReadStored(int64_t begin, int64_t end, std::byte* out) {
  const int64_t width = format::Of(format_).block_bytes;
  if (!transposed_) {
    return tensors_.Read(entry_, static_cast<uint64_t>(begin * cols_ * width),
                         {out, static_cast<size_t>((end - begin) * cols_ * width)});
  }
  if (whole_.empty()) {
    whole_.resize(entry_.bytes);
    if (Status read = tensors_.Read(entry_, 0, whole_); !read.ok()) return read;
  }
  if (width == 1) GatherColumns<uint8_t>(whole_.data(), rows_, cols_, begin, end, out);
  if (width == 2) GatherColumns<uint16_t>(whole_.data(), rows_, cols_, begin, end, out);
  if (width == 4) GatherColumns<uint32_t>(whole_.data(), rows_, cols_, begin, end, out);
  return Ok{};
}

Status FloatRows::Read(int64_t begin, int64_t end, float* out) {
  const int64_t count = (end - begin) * cols_;
  raw_.resize(static_cast<size_t>(count * format::Of(format_).block_bytes));
  if (Status read = ReadStored(begin, end, raw_.data()); !read.ok()) return read;
  format::Matrix piece;
  piece.format = format_;
  piece.rows = end - begin;
  piece.cols = cols_;
  piece.data = raw_.data();
  format::Of(format_).decode(piece, 0, count, out);
  if (!scales_ || scales_->count == 0) return Ok{};
  for (int64_t r = begin; r < end; ++r) {
    const float* scale = scales_->values.data() + r / scales_->rows * scales_->groups;
    for (int64_t k = 0; k < cols_; ++k) *out++ *= scale[k / scales_->cols];
  }
  return Ok{};
}

}  // namespace rung::model
