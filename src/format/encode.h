// Writing the formats that need no calibration. NF4 has an encoder of its own (format/nf4.h): its scales
// stand apart.
#pragma once

#include <cstddef>
#include <cstdint>

#include "format/format.h"

namespace rung::format {

// Whether n weights can be written: the format has an encoder (f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1
// and mxfp4, those that the gguf package encodes too), all weights are finite, and so are the f16 numbers of
// the format that stand for them (a weight of f16, the scales of q8_0). Sufficient: a block of q4_1 or q5_1
// could at times be wider.
bool IsEncodable(Format format, const float* weights, int64_t n);

// Encodes n weights, a multiple of the format's block, to n / block * block_bytes bytes, the same ones as the
// gguf package's quantisation (but a least weight of q4_1 or q5_1 that is zero may have the other sign). The
// caller sees to it that the format has an encoder and the weights are encodable; otherwise the contents of
// `out` are unspecified (f32, f16 and bf16 keep NaN and infinities), and no other byte is touched. `out` may
// have any alignment. Pure: parts of a matrix may be encoded on many threads.
void Encode(Format format, const float* weights, int64_t n, std::byte* out);

}  // namespace rung::format
