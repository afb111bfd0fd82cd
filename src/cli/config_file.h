// --config run.yaml: the options of a verb as a YAML map, keys as on the command line with _ for -.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/result.h"

namespace rung::cli {

// Appends to `arguments` what the file named by --config sets and the command line does not: flags win. An
// unknown key, a nested value or a file that is no map is a failure that names the line and the nearest known
// key.
Status MergeConfigFile(const CLI::App& verb, std::vector<std::string>* arguments);

}  // namespace rung::cli
