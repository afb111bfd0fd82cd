// A Hugging Face folder's tokenizer as the keys of a GGUF file.
#pragma once

#include <string>

#include "base/files.h"
#include "convert/output_folder.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"

namespace rung::convert {

// tokenizer.ggml.* and the chat template, for a model of V tokens. A folder without a tokenizer, or with one
// that GGUF has no words for, gives a file without vocabulary, and a note that says why. A tokenizer.json
// that is damaged is refused. Throws Error.
io::GgufFields VocabularyFields(const Path& folder, int64_t V, const OnNote& on_note);

// The metadata of a GGUF file for another one of the same model, byte for byte: all but what says how its
// tensors are stored. `gguf` outlives it.
io::GgufFields CopiedFields(const io::Gguf& gguf);

}  // namespace rung::convert
