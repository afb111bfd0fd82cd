// The options that say what of a data file is read and how it becomes examples: shared by the verbs that read
// data.
#pragma once

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

}  // namespace rung::cli
