// A model of random weights in NF4, of any shape: for measuring what a real one of that shape would take.
#pragma once

#include <cstdint>
#include <string>

#include "convert/quantize_folder.h"

namespace rung::convert {

struct RandomOptions {
  std::string shape;  // a name of model::ShapeNames, or the path of a config.json or its folder
  Path out;
  bool nested = true;       // scales in 8 bits (double quantisation)
  bool embeddings = false;  // the embedding and the head in NF4 too
  uint64_t seed = 0;
  uint64_t shard_bytes = uint64_t{2} << 30;  // of a file, unless one tensor alone is larger
};

// Writes config.json and weights, no tokenizer. Weights have a standard deviation of 0.02, those of o and
// down 0.02 / sqrt(2L), so that the residual stream keeps its size through any depth; norms are 1. The same
// seed gives the same bytes. Memory: the f32 scales of one matrix. `out` is complete or not there. Throws
// Error.
QuantizeResult QuantizeRandom(const RandomOptions& options, const OnProgress& on_progress);

}  // namespace rung::convert
