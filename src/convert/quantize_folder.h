// A model in another format: a Hugging Face folder (NF4 in bitsandbytes' layout, docs/formats/nf4.md, or
// floating point), or a GGUF file (quantize_gguf.h).
#pragma once

#include <functional>
#include <span>
#include <string>

#include "base/files.h"
#include "convert/tensor_reader.h"
#include "model/weights.h"

namespace rung::convert {

struct QuantizeOptions {
  Path model, out;
  // kNone: a tensor stays as it is, as far as the output can have it so.
  model::Recipe recipe;
  uint64_t shard_bytes = uint64_t{4} << 30;  // of a folder's file, unless one tensor alone is larger
};

struct QuantizeResult {
  int64_t linears = 0;  // matrices that the recipe changed
  uint64_t bytes_before = 0, bytes_after = 0;
};

// on_progress: tensors done, of how many; returns false to stop.
using QuantizeProgress = std::function<bool(size_t done, size_t total)>;
// What a person should know.
using QuantizeNote = std::function<void(const std::string& note)>;

// What the recipe says of a matrix: the first pattern that matches its name in a folder or in a GGUF file.
model::Quantize ChoiceFor(const model::Recipe& recipe, const ModelTensor& tensor);

// Throws Error for a pattern that no matrix matches.
void CheckKeep(const model::Recipe& recipe, const TensorReader& source);

// Throws Error (kBadInput) for a number among rows `begin` on, of `cols` weights, that `format` cannot hold.
// name: the tensor's.
void CheckRows(std::span<const float> rows, int64_t cols, int64_t begin, format::Format format,
               const std::string& name);

// Memory: tens of megabytes, and the packed bytes of one matrix where the model has them packed. `out` is
// complete or not there. Throws Error.
QuantizeResult QuantizeFolder(const QuantizeOptions& options, const QuantizeProgress& on_progress,
                              const QuantizeNote& on_note);

}  // namespace rung::convert
