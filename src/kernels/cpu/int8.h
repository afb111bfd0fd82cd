// Products of frozen matrices in 8 bits: about twice as fast as in Bf16, and an approximation.
//
// W (64 rows at a time, decoded to Bf16 from any format) becomes whole numbers u with one scale t per weight
// row; x becomes whole numbers q with one scale s per row, but for its outliers: the numbers of a row that
// are larger than kOutlierMeans times the mean magnitude of the row stay in Bf16.
//
//   t[r] = max_k |W[r,k]| / 127
//   u[r,k] = round(W[r,k] * (127 / max_k |W[r,k]|))
//   limit = kOutlierMeans * mean_k |x[n,k]|, rounded down to Bf16; raised by half octaves until at most
//           OutliersOf(K) numbers of the row are above it; at most max_k |x[n,k]|
//   s[n] = limit / 127
//   q[n,k] = round(x[n,k] * (127 / limit)), 0 for an outlier
//   y[n,r] = s[n] t[r] sum_k q[n,k] u[r,k] + sum_{outliers k} x[n,k] W[r,k]
//
// The first sum is exact (32 bits), the second is of Bf16 products in f32. A limit of less than 2^-100
// counts as 0. A row of x with a number that is not finite gives NaN; such a row of W gives nothing finite.
//
// Why outliers are chosen row by row: a few channels of a transformer's activations are 20 to 50 times as
// large as the rest, and one scale for both loses the rest. A choice of columns for all rows of a call would
// save a few percent of time, but then a row's result would depend on the rows beside it: on how samples are
// packed, on the tile of a recomputation, on whether taps come from a cache. Here a row of y depends on its
// row of x and on W alone, whatever N > kFewRows and the threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/half.h"
#include "kernels/cpu/panel.h"

namespace rung::cpu {

inline constexpr float kOutlierMeans = 6.5f;
// The most outliers of a row: what bounds their memory, and the time of a row made of little else.
constexpr int64_t OutliersOf(int64_t K) { return (K + 31) / 32; }
// Sums of products below 2^14 stay below 2^31.
inline constexpr int64_t kMaxInt8Depth = 131072;

// Whether Project may multiply in 8 bits: the context asks for it, its ISA and the machine can, and the rows
// are many.
bool UsesInt8(const Context& context, int64_t N, int64_t K);
// Matrices stored in f32 never are: trained factors come as such (ops::AsMatrix), and whoever stores f32
// wants its digits.
bool IsInt8(const Product& product);

// Project for the products with IsInt8; the others are left alone. scratch: ProjectInt8Scratch bytes, 64-byte
// aligned.
void ProjectInt8(const Context& context, const Bf16* x, int64_t ldx, int64_t N,
                 std::span<const Product> products, std::byte* scratch);
size_t ProjectInt8Scratch(const Context& context, int64_t N, int64_t K);

}  // namespace rung::cpu
