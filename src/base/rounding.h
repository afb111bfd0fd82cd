// Whole numbers of a size.
#pragma once

#include <cstdint>

namespace rung {

// a / b rounded up; b > 0, a >= 0.
constexpr int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
// The least multiple of b that is not below a.
constexpr int64_t RoundUp(int64_t a, int64_t b) { return CeilDiv(a, b) * b; }

}  // namespace rung
