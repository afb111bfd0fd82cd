// What stands beside the weights of a merged folder.
#pragma once

#include <map>
#include <string>

#include "cli/merge_source.h"

namespace rung::cli {

// config.json: the folder's own without its quantisation, or one that says what a GGUF file's header does.
// Throws Error, as all here.
std::string MergedConfig(const MergeSource& source, const Path& model, const std::string& dtype);

// model.safetensors.index.json of tensors and the files they are in.
std::string ShardIndex(const std::map<std::string, std::string>& file_of, uint64_t bytes);

// Tokenizer, template, generation settings: every small text file of a folder but its configuration and
// index.
void CopyModelTexts(const Path& from, const Path& to);

// Llama 3's scaling of RoPE from the divisors that a GGUF file has in its place. A config that cannot be said
// this way is refused.
model::RopeConfig RopeOfDivisors(const model::Config& config, const std::string& where);

}  // namespace rung::cli
