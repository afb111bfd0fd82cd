// --config run.yaml: the options of a verb as a YAML map (JSON is YAML), keys as on the command line with _
// for -.
#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace rung::cli {

struct ConfigOrigin {
  std::string file;
  int line = 0;  // from 1
};
using ConfigOrigins = std::map<std::string, ConfigOrigin>;  // by key

// A verb that remembers which of its options a file has given.
class ConfiguredApp : public CLI::App {
 public:
  using CLI::App::App;
  ConfigOrigins origins;
};

// Appends to `arguments` what the file named by --config sets and the command line does not: flags win, also
// over keys of options that they exclude. A list of values is joined by commas, or given value by value to an
// option that may stand several times. Names and values of other programs stand for ours (config_aliases.h).
// `rung plan` passes over what only `rung train` has, so that a run is planned with its own file. An unknown
// key, one that is set twice or beside another that excludes it, a value that is not of its type, a section
// or a file that is no map is a failure that names the line and what may have been meant.
Result<ConfigOrigins> MergeConfigFile(const CLI::App& verb, std::vector<std::string>* arguments);

// A message about options, with the places of those that a file has given: before it that of the first option
// it names ("run.yaml:5: --taps ..."), behind it those of the others.
std::string WithOrigins(const std::string& message, const ConfigOrigins& origins);

}  // namespace rung::cli
