// What a model is, by every byte that decides what it computes.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/files.h"

namespace rung::train {

struct ModelFile {
  std::string name;  // in its folder; of a GGUF file in parts "part 2 of 3"; empty: the only file
  uint64_t bytes = 0;
  std::string sha256;  // 64 hex digits
};
struct ModelHash {
  // Of the one file, or of several the SHA-256 of their hashes, a line each. A copy of a model has the same.
  // Empty: not known.
  std::string sha256;
  std::vector<ModelFile> files;
};

// Reads every file that the weights are in, and a folder's settings, whole, at one to two GB/s where the disk
// is as fast: which leaves them in the system's cache for loading. `on_bytes`, which may be empty: told of
// the bytes that are read and of all, now and then; false throws Error (kInterrupted). Throws Error when a
// file cannot be read.
ModelHash HashModel(const Path& model,
                    const std::function<bool(uint64_t done, uint64_t total)>& on_bytes = nullptr);

}  // namespace rung::train
