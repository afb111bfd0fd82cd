#include "exec/finite_watch.h"

#include <fmt/format.h>

#include <cstring>

namespace rung {
namespace {

// An exponent of ones alone, by bits: no compiler option changes what this says.
template <class Bits>
int64_t CountIn(const Tensor& tensor, Bits exponent) {
  int64_t count = 0;
  for (int64_t row = 0; row < tensor.rows(); ++row) {
    const std::byte* data = tensor.data + static_cast<size_t>(row * tensor.stride) * sizeof(Bits);
    for (int64_t c = 0; c < tensor.cols(); ++c) {
      Bits bits;
      std::memcpy(&bits, data + static_cast<size_t>(c) * sizeof(Bits), sizeof(Bits));
      count += (bits & exponent) == exponent;
    }
  }
  return count;
}

}  // namespace

int64_t CountNotFinite(const Tensor& tensor) {
  if (tensor.dtype == DType::kF32) return CountIn<uint32_t>(tensor, 0x7f800000u);
  if (tensor.dtype == DType::kBf16) return CountIn<uint16_t>(tensor, 0x7f80u);
  return 0;
}

void FiniteWatch::Check(const char* op, const Place& place, std::span<const Tensor> written) {
  ++launches_;
  if (first_) return;
  int64_t count = 0, size = 0;
  for (const Tensor& tensor : written) {
    count += CountNotFinite(tensor);
    size += tensor.size();
  }
  if (count > 0) first_ = {op, place.part, place.index, launches_, count, size};
}

std::string FiniteWatch::Finding::text() const {
  std::string where = part.empty() ? "" : " in " + part;
  if (index >= 0) where += fmt::format(" {}", index);
  return fmt::format("{}{}: {} of {} numbers are not finite", op, where, not_finite, size);
}

}  // namespace rung
