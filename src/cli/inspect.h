// What `rung inspect` finds out about a file or folder, before it is printed as a table or as JSON.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "base/files.h"
#include "model/adapter_file.h"
#include "model/config.h"
#include "model/weights.h"
#include "text/tokenizer.h"

namespace rung::cli {

struct TensorRow {
  std::string name, format;
  std::vector<int64_t> shape;  // outermost first
  uint64_t bytes = 0;
  std::string used = {};  // the format that it is loaded in, where a recipe was asked about; empty: `format`
};

struct FormatTotal {
  int64_t tensors = 0;
  uint64_t bytes = 0;
  bool supported = true;
};

struct Inspection {
  std::string kind;  // "GGUF file", "Hugging Face folder", "config", "adapter"
  std::string architecture, name;
  std::optional<model::Config> config;        // nullopt: not one that can be run
  std::map<std::string, std::string> shapes;  // as the file says, when there is no config
  std::optional<model::AdapterInfo> adapter;
  int64_t parameters = 0;  // as counted from the tensors, or from the shapes where they are quantised apart
  std::vector<TensorRow> tensors;
  std::map<std::string, FormatTotal> formats;
  std::map<std::string, uint64_t> loaded;  // bytes by format as the recipe loads them; empty: none was given
  std::optional<text::Tokenizer> tokenizer;
  bool no_vocabulary = false;              // the file says that it has none
  std::vector<std::string> not_supported;  // one reason each
  std::vector<std::string> warnings;       // what may change the computation and is not read
};

// Throws Error for what is no model at all. recipe: also what loading would make of the tensors; nullptr: not
// asked.
Inspection Inspect(const Path& path, const model::Recipe* recipe = nullptr);

}  // namespace rung::cli
