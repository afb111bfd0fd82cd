// What `rung version` says.
#pragma once

#include <nlohmann/json.hpp>

namespace rung::cli {

nlohmann::ordered_json VersionJson();

}  // namespace rung::cli
