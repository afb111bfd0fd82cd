// Frozen matrices for tests, in every format.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/half.h"
#include "format/format.h"
#include "format/nf4.h"

namespace rung::cpu {

using format::Format;

// A frozen matrix of random bytes whose scales are sane numbers of both signs. It starts at an odd address.
class Frozen {
 public:
  Frozen(Format format, int64_t rows, int64_t cols, bool nested, uint32_t seed) : random_(seed) {
    const size_t bytes = static_cast<size_t>(format::DataBytes(format, rows, cols));
    data_.resize(bytes + 1);
    for (std::byte& b : data_) b = static_cast<std::byte>(random_());
    view_.format = format;
    view_.rows = rows;
    view_.cols = cols;
    view_.data = data_.data() + 1;
    SetScales(bytes);
    if (format == Format::kNf4) SetNf4Scales(nested);
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
  void SetScales(size_t bytes) {
    const auto block = static_cast<size_t>(format::Of(view_.format).block_bytes);
    for (size_t at = 0; at + block <= bytes; at += block) {
      switch (view_.format) {
        case Format::kF32:
          Put(at, Number());
          break;
        case Format::kBf16:
          Put(at, ToBf16(Number()));
          break;
        case Format::kQ4_1:
          Put(at + 2, ToF16(Number()));
          [[fallthrough]];
        case Format::kF16:
        case Format::kQ8_0:
        case Format::kQ4_0:
          Put(at, ToF16(Number() * 0.1f));
          break;
        case Format::kNf4:
          return;
      }
    }
  }
  void SetNf4Scales(bool nested) {
    const int64_t blocks = (view_.rows * view_.cols + 63) / 64;
    for (int64_t i = 0; i < blocks; ++i) scales_.push_back(i % 7 == 3 ? 0.0f : std::fabs(Number()));
    view_.scales.absmax = scales_.data();
    if (!nested) return;
    for (int64_t i = 0; i < blocks; ++i) codes_.push_back(static_cast<uint8_t>(random_()));
    view_.scales.codes = codes_.data();
    view_.scales.map = format::Nf4NestedMap().data();
    view_.scales.offset = 0.37f;
  }

  std::mt19937 random_;
  std::vector<std::byte> data_;
  std::vector<float> scales_;
  std::vector<uint8_t> codes_;
  format::Matrix view_;
};

}  // namespace rung::cpu
