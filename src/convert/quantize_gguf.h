// A model as a GGUF file, with the names, the order of rows and the keys of llama.cpp's converter
// (docs/formats/gguf.md).
#pragma once

#include "convert/quantize_folder.h"

namespace rung::convert {

// Norms and biases are f32. From a GGUF file everything that is not converted comes along byte for byte.
// Refused (kUsage): a family without an architecture there, a format that GGUF does not have. Memory as
// QuantizeFolder, and one f32 matrix where the folder has it transposed. `out` is complete or not there.
// Throws Error.
QuantizeResult QuantizeGguf(const QuantizeOptions& options, const OnProgress& on_progress,
                            const OnNote& on_note);

}  // namespace rung::convert
