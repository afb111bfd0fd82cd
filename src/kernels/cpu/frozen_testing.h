// Frozen matrices for tests, in every format.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/half.h"
#include "format/format.h"
#include "format/nf4.h"

namespace rung::cpu {

using format::Format;

// How a matrix with scales apart (kF8E4m3, kInt4) is tiled; rows 0 leaves kF8E4m3 without scales and gives
// kInt4 groups of 32.
struct Tiling {
  int64_t rows = 0, cols = 0;
  bool shuffled = false;  // columns belong to groups in any order
};

// A frozen matrix of random bytes whose scales are sane numbers of both signs. It starts at an odd address.
class Frozen {
 public:
  Frozen(Format format, int64_t rows, int64_t cols, bool nested, uint32_t seed, const Tiling& tiling = {})
      : random_(seed) {
    const size_t bytes = static_cast<size_t>(format::DataBytes(format, rows, cols));
    data_.resize(bytes + 1);
    for (std::byte& b : data_) b = static_cast<std::byte>(random_());
    view_.format = format;
    view_.rows = rows;
    view_.cols = cols;
    view_.data = data_.data() + 1;
    SetScales(bytes);
    if (format == Format::kNf4 || format == Format::kFp4) SetBlockScales(nested);
    if (format == Format::kInt4) SetTiles(tiling.rows ? tiling : Tiling{1, std::min<int64_t>(cols, 32)});
    if (format == Format::kF8E4m3 && tiling.rows) SetTiles(tiling);
  }
  const format::Matrix& view() const { return view_; }
  std::vector<float> Decode() const {
    std::vector<float> out(static_cast<size_t>(view_.rows * view_.cols));
    format::Of(view_.format).decode(view_, 0, view_.rows * view_.cols, out.data());
    return out;
  }

 private:
  float Number() { return std::uniform_real_distribution<float>(-1.0f, 1.0f)(random_); }
  template <class V>
  void Put(size_t at, V value) {
    std::memcpy(data_.data() + 1 + at, &value, sizeof(value));
  }
  void PutF16(size_t at, float scale) { Put(at, ToF16(Number() * scale)); }
  void SetScales(size_t bytes) {
    const auto block = static_cast<size_t>(format::Of(view_.format).block_bytes);
    for (size_t at = 0; at + block <= bytes; at += block) SetScalesOfBlock(at);
  }
  void SetScalesOfBlock(size_t at) {
    switch (view_.format) {
      case Format::kF32:
        return Put(at, Number());
      case Format::kBf16:
        return Put(at, ToBf16(Number()));
      case Format::kQ4_1:
      case Format::kQ5_1:
      case Format::kQ4K:
      case Format::kQ5K:
        PutF16(at + 2, 1.0f);
        [[fallthrough]];
      case Format::kF16:
      case Format::kQ8_0:
      case Format::kQ4_0:
      case Format::kQ5_0:
      case Format::kIq4Nl:
      case Format::kIq4Xs:
        return PutF16(at, 0.1f);
      case Format::kQ2K:
        PutF16(at + 80, 0.1f);
        return PutF16(at + 82, 0.1f);
      case Format::kQ3K:
        return PutF16(at + 108, 0.1f);
      case Format::kQ6K:
        return PutF16(at + 208, 0.01f);
      case Format::kMxfp4:
        return Put(at, static_cast<uint8_t>(110 + random_() % 20));
      case Format::kF8E4m3:
        if ((std::to_integer<int>(data_[1 + at]) & 0x7f) == 0x7f) Put(at, uint8_t{0x7e});  // not a NaN
        return;
      case Format::kNf4:
      case Format::kFp4:
      case Format::kInt4:
        return;
    }
  }
  void SetBlockScales(bool nested) {
    const int64_t blocks = (view_.rows * view_.cols + 63) / 64;
    for (int64_t i = 0; i < blocks; ++i) scales_.push_back(i % 7 == 3 ? 0.0f : std::fabs(Number()));
    view_.scales.absmax = scales_.data();
    if (!nested) return;
    for (int64_t i = 0; i < blocks; ++i) codes_.push_back(static_cast<uint8_t>(random_()));
    view_.scales.codes = codes_.data();
    view_.scales.map = format::Nf4NestedMap().data();
    view_.scales.offset = 0.37f;
  }
  void SetTiles(const Tiling& tiling) {
    const int64_t groups = (view_.cols + tiling.cols - 1) / tiling.cols;
    const int64_t tile_rows = (view_.rows + tiling.rows - 1) / tiling.rows;
    for (int64_t i = 0; i < tile_rows * groups; ++i) scales_.push_back(Number());
    view_.tiles = {scales_.data(), nullptr, nullptr, tiling.rows, tiling.cols, groups};
    if (view_.format != Format::kInt4) return;
    for (int64_t i = 0; i < view_.rows * groups; ++i) {
      // AWQ's are 0 to 15, GPTQ's 1 to 16; a decoder must take any byte.
      codes_.push_back(static_cast<uint8_t>(i % 5 == 4 ? random_() : random_() % 17));
    }
    view_.tiles.zero = codes_.data();
    if (!tiling.shuffled) return;
    for (int64_t k = 0; k < view_.cols; ++k) index_.push_back(static_cast<int32_t>(k / tiling.cols));
    std::shuffle(index_.begin(), index_.end(), random_);
    view_.tiles.index = index_.data();
  }

  std::mt19937 random_;
  std::vector<std::byte> data_;
  std::vector<float> scales_;
  std::vector<uint8_t> codes_;
  std::vector<int32_t> index_;
  format::Matrix view_;
};

}  // namespace rung::cpu
