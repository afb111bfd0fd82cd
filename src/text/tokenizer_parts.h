// The processing steps that a tokenizer.json names, read into ours. What is not supported is refused by name.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/files.h"
#include "base/result.h"
#include "text/json_reader.h"
#include "text/tokenizer_impl.h"

namespace rung::text {

// The parsed form of a tokenizer.json; `name` stands in messages.
Result<std::shared_ptr<TokenizerImpl>> ReadTokenizerRoot(const nlohmann::json& root, const std::string& name);
// A folder with vocab.json and merges.txt (GPT-2's own form, byte-level BPE), as the tokenizer.json that it
// stands for. Special tokens are those that the files beside them name.
Result<nlohmann::json> ReadVocabularyFiles(const Path& folder);

// Each takes the component's JSON, which may be null (the component is absent).
void ReadNormalizer(const nlohmann::json& json, JsonReader* reader, Normalizer* normalizer);
// Sets *byte_level when the pieces are to be taken as bytes.
void ReadPreTokenizer(const nlohmann::json& json, JsonReader* reader, PreTokenizer* pretokenizer,
                      bool* byte_level);
// Sets *byte_tokens when tokens "<0xNN>" stand for bytes.
void ReadDecoder(const nlohmann::json& json, JsonReader* reader, TokenizerImpl* impl, bool* byte_tokens);
// Only whether a text begins with a special token: its text, "" when it does not.
std::string ReadFirstSpecial(const nlohmann::json& post_processor, JsonReader* reader);

}  // namespace rung::text
