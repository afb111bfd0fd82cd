// The weights of a Hugging Face folder made from those of a model, a few megabytes at a time.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "convert/nf4_file.h"
#include "convert/tensor_reader.h"

namespace rung::convert {

// Adds to rows [begin, end) of a tensor, in f32. False: nothing is added to any row of it.
using AddToRows = std::function<bool(const SourceTensor& tensor, int64_t begin, int64_t end, float* rows)>;

// Every tensor of `source` as `outputs`, one for each, says; rounded once, after `add` (which may be null).
// What CheckRows refuses is refused, but f16 that stays f16 is what it was. Returns the bytes of all files.
// Throws Error.
uint64_t WriteWeights(const ShardOptions& options, TensorReader& source,
                      const std::vector<OutputTensor>& outputs, const AddToRows& add);

// Throws Error (kBadInput) for a number among rows `begin` on, of `cols` weights, that `format` cannot hold.
// name: the tensor's.
void CheckRows(std::span<const float> rows, int64_t cols, int64_t begin, format::Format format,
               const std::string& name);

}  // namespace rung::convert
