// What the headers of a model have of the tensors that its config asks for.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/gguf.h"
#include "model/model_tensors.h"

namespace rung::convert {

struct SourceTensor : model::ModelTensor {
  std::string kept;    // dtype of one that is copied byte by byte: no weight that is known here; else empty
  std::string stored;  // the name of its format, "bf16"; empty for one that is kept
  std::string usual;   // its name in transformers, which a folder may spell without a prefix
  uint64_t bytes = 0;  // as stored, scales kept apart not counted
};

struct WrongTensor {
  model::TensorRole role;
  std::string message;  // names file and tensor
};

struct TensorListing {
  // The known ones in the order of a pass, of a GGUF file those that are wrong too: they can be copied. Then
  // what a folder has beside them.
  std::vector<SourceTensor> tensors;
  std::vector<std::string> missing;  // names
  std::vector<WrongTensor> wrong;
};

// `config`: the file's own.
TensorListing ListTensors(const std::shared_ptr<const io::Gguf>& gguf, const model::Config& config);
// Throws Error for headers that cannot be read.
TensorListing ListTensors(const io::Safetensors& tensors, const Path& folder, const model::Config& config);

// Stored as numbers that need no scales beside them, in this shape.
bool IsPlain(const io::TensorEntry* entry, const model::ModelTensor& tensor);

}  // namespace rung::convert
