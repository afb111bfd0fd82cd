// The options that say what of a data file is read and how it becomes examples: shared by the verbs that read
// data.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/verb.h"
#include "data/reader.h"
#include "train/options.h"

namespace rung::cli {

struct DataFlags {
  std::string format = "auto", sample_by = "line", columns, template_prompt, template_completion,
              template_text;
  int64_t max_bad_rows = 0;
  std::string truncate = "left", token_cache = "auto", token_cache_limit = "20GiB";
  bool mask_history = false, special_tokens = false;
  double valid_fraction = 0.0;
};
// --format, --columns, --template-*, --sample-by, --special-tokens, --max-bad-rows.
void AddReadFlags(CLI::App& app, DataFlags* flags);
// --truncate, --mask-history, --valid-fraction, --token-cache, --token-cache-limit.
void AddExampleFlags(CLI::App& app, DataFlags* flags);
// Throw Error.
data::ReadOptions ResolveReading(const DataFlags& flags);
train::DataOptions Resolve(const DataFlags& flags);
// Bytes of "8GiB", more than 0. Throws Error (kUsage) that names the flag.
uint64_t SizeOf(const std::string& text, const char* flag);
// The length of one example, at most --tokens + 1. `given`: --max-length, where it was; a default gives way
// to the model's context. Throws Error (kUsage) where what was given lets an example exceed that.
int64_t WithinContext(int64_t length, std::optional<int64_t> given, int64_t context);

}  // namespace rung::cli
