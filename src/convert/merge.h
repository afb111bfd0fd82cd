// Low-rank pairs into the weights that they stand beside: a Hugging Face folder that needs no adapter.
#pragma once

#include <string>

#include "base/files.h"
#include "convert/output_folder.h"
#include "kernels/cpu/isa.h"

namespace rung::convert {

struct MergeOptions {
  Path model, adapter, out;
  // bfloat16, float16, float32; auto: float16 where config.json or most of the weights say so, else bfloat16
  std::string dtype = "auto";
  uint64_t shard_bytes = uint64_t{4} << 30;  // a file of weights is not made larger, unless by one tensor
  cpu::Context context;
};

struct MergeResult {
  int64_t merged = 0;  // matrices that pairs were added to
  uint64_t bytes = 0;  // of all weight files
  std::string dtype;
};

// W + s B A in f32, rounded once; tensors that are no weights known here are copied byte for byte. Memory:
// the packed bytes of one matrix and some tens of megabytes. Notes come before that work. `out` is complete
// or not there. Throws Error; a ladder is refused (kUsage).
MergeResult MergeModel(const MergeOptions& options, const OnProgress& on_progress, const OnNote& on_note);

}  // namespace rung::convert
