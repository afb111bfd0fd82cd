// --config run.yaml: the options of a verb as a YAML map, keys as on the command line with _ for -.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/result.h"

namespace rung::cli {

// Appends to `arguments` what the file named by --config sets and the command line does not: flags win, also
// over keys of options that they exclude. A list of values is joined by commas. Some names that other
// programs use stand for ours. `rung plan` passes over what only `rung train` has, so that a run is planned
// with its own file. An unknown key, one that is set twice, a nested value or a file that is no map is a
// failure that names the line and the nearest known key.
Status MergeConfigFile(const CLI::App& verb, std::vector<std::string>* arguments);

}  // namespace rung::cli
