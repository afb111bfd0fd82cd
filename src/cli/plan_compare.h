// How a comparison of methods is shown.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "train/method_comparison.h"

namespace rung::cli {

std::string CompareTable(const train::Comparison& comparison);
nlohmann::ordered_json CompareJson(const train::Comparison& comparison);

// Stacked bars of the columns, in GiB. limit 0: no line.
std::string PlanChart(const std::vector<train::PlanColumn>& columns, const std::string& title,
                      uint64_t limit);

}  // namespace rung::cli
