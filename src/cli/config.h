// rung config: what a configuration file may hold, and what a run would make of one.
#pragma once

#include <nlohmann/json.hpp>

#include "cli/verb.h"

namespace rung::cli {

Action AddConfigSchema(CLI::App& app);
Action AddConfigShow(CLI::App& app);

// A JSON Schema (2020-12) of the files that --config takes, from the options of `verb` before parsing. Names
// of other programs are deprecated properties that refer to ours.
nlohmann::ordered_json ConfigSchema(CLI::App& verb);

}  // namespace rung::cli
