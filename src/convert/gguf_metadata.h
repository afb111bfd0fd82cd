// What a GGUF file says of a model besides its weights and its tokenizer: the keys that llama.cpp's converter
// writes for the architecture, and the tensors that stand for a scaling of RoPE.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "io/gguf_writer.h"
#include "model/config.h"
#include "model/weights.h"

namespace rung::convert {

// `config` as a folder has it, of a family that has an architecture (GgufArchitecture). `name`: of the model.
io::GgufFields GgufMetadata(const model::Config& config, const std::string& name);

// general.file_type of a file most of whose weights have this format.
uint32_t GgufFileType(format::Format format);

// "rope_freqs.weight" and its like: f32 vectors by name.
std::vector<std::pair<std::string, std::vector<float>>> RopeTensors(const model::Config& config);

}  // namespace rung::convert
