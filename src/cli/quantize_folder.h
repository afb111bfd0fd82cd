// A 16- or 32-bit Hugging Face folder to NF4 in bitsandbytes' layout (docs/formats/nf4.md).
#pragma once

#include <functional>
#include <string>

#include "base/files.h"

namespace rung::cli {

struct QuantizeOptions {
  Path model, out;
  bool nested = true;       // scales in 8 bits (double quantisation)
  bool embeddings = false;  // the embedding and the head too: only this program reads such a folder
};

struct QuantizeResult {
  int64_t linears = 0;  // matrices that became NF4
  uint64_t bytes_before = 0, bytes_after = 0;
};

// on_progress: matrices done, of how many; returns false to stop.
using QuantizeProgress = std::function<bool(size_t done, size_t total)>;

// Memory: one matrix at a time, half a byte a weight. `out` is complete or not there. Throws Error.
QuantizeResult QuantizeFolder(const QuantizeOptions& options, const QuantizeProgress& on_progress);

}  // namespace rung::cli
