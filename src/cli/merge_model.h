// Low-rank pairs into the weights that they stand beside: a Hugging Face folder that needs no adapter.
#pragma once

#include <functional>
#include <string>

#include "base/files.h"
#include "kernels/cpu/isa.h"

namespace rung::cli {

struct MergeOptions {
  Path model, adapter, out;
  std::string dtype = "auto";  // bfloat16, float16, float32; auto: the model's own 16-bit type, or bfloat16
  uint64_t shard_bytes = uint64_t{4} << 30;  // a file of weights is not made larger, unless by one tensor
  cpu::Context context;
};

struct MergeResult {
  int64_t merged = 0;  // matrices that pairs were added to
  uint64_t bytes = 0;  // of all weight files
  std::string dtype;
  bool from_quantized = false, has_tokenizer = true;
};

// on_progress: tensors done, of how many; returns false to stop.
using MergeProgress = std::function<bool(size_t done, size_t total)>;

// W + s B A in f32, rounded once. Memory: the packed bytes of one matrix and some tens of megabytes. `out` is
// complete or not there: it is made as `<out>.tmp` and renamed. Throws Error; a ladder is refused (kUsage).
MergeResult MergeModel(const MergeOptions& options, const MergeProgress& on_progress);

}  // namespace rung::cli
