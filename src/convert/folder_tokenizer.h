// A GGUF file's tokenizer as Hugging Face's files.
#pragma once

#include <string>

#include "convert/output_folder.h"
#include "io/gguf.h"

namespace rung::convert {

// tokenizer.json, tokenizer_config.json and generation_config.json. Nothing, and a note, for a tokenizer that
// is none or that is not known here.
ModelTexts TokenizerTexts(const io::Gguf& gguf, const OnNote& on_note);

}  // namespace rung::convert
