// The options of a run with their values and where each came from: for `rung config show` and run.json.
#pragma once

#include <optional>

#include "cli/config_file.h"
#include "cli/option_info.h"
#include "cli/train_flags.h"

namespace rung::cli {

enum class Origin : uint8_t { kDefault, kFile, kFlag, kModel };

struct ResolvedOption {
  OptionInfo info;
  nlohmann::ordered_json value;  // null: not set
  Origin origin = Origin::kDefault;
  ConfigOrigin place;  // of kFile
  std::string unused;  // why the value changes nothing; empty: it counts
};

// Of `app` after parsing. `options` is what Resolve made of it. What the model's shape decides is there when
// it is known (`config`), and null with origin kModel when not. Throws Error (kUsage) for a shape that cannot
// be.
std::vector<ResolvedOption> ResolveOptions(CLI::App& app, const train::TrainOptions& options,
                                           const model::Config* config);

// A configuration file of what was given; what holds where nothing is said stands in comments. An option that
// is given with its default's value may be refused where it has no use, so defaults are not given.
std::string OptionsYaml(const std::vector<ResolvedOption>& all);
// {"tokens": {"value": 64, "origin": "file", "file": "run.yaml", "line": 3}}
nlohmann::ordered_json OptionsJson(const std::vector<ResolvedOption>& all);

}  // namespace rung::cli
