// config.json of a merged folder.
#pragma once

#include <string>

#include "convert/tensor_reader.h"

namespace rung::convert {

// config.json: the folder's own without its quantisation, or one that says what a GGUF file's header does.
// Throws Error, as does RopeOfDivisors.
std::string MergedConfig(const TensorReader& source, const Path& model, const std::string& dtype);

// What Llama 3's scaling divides each frequency by: GGUF's rope_freqs.
std::vector<float> Llama3Divisors(const model::Config& config);

// Llama 3's scaling of RoPE from the divisors that a GGUF file has in its place. A config that cannot be said
// this way is refused.
model::RopeConfig RopeOfDivisors(const model::Config& config, const std::string& where);

}  // namespace rung::convert
