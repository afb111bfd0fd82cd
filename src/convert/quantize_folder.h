// A model in another format: a Hugging Face folder (NF4 in bitsandbytes' layout, docs/formats/nf4.md, or
// floating point), or a GGUF file (quantize_gguf.h).
#pragma once

#include <string>

#include "base/files.h"
#include "convert/output_folder.h"
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

// What the recipe says of a matrix: the first pattern that matches its name in a folder or in a GGUF file.
model::Quantize ChoiceFor(const model::Recipe& recipe, const model::ModelTensor& tensor);

// Throws Error for a pattern that no matrix matches.
void CheckKeep(const model::Recipe& recipe, const TensorReader& source);

// Memory: tens of megabytes, and the packed bytes of one matrix where the model has them packed. `out` is
// complete or not there. Throws Error.
QuantizeResult QuantizeFolder(const QuantizeOptions& options, const OnProgress& on_progress,
                              const OnNote& on_note);

}  // namespace rung::convert
