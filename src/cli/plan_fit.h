// How `rung plan --fit` is shown.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "train/plan_fit.h"

namespace rung::cli {

std::string FitTable(const std::vector<train::MethodFit>& methods, const train::FitRequest& request);
// What to do with the command as it was typed: add flags, or put them in the place of its own. Empty where
// nothing fits.
std::string FitAdvice(const train::MethodFit& method, const train::FitRequest& request);
nlohmann::ordered_json FitJson(const std::vector<train::MethodFit>& methods,
                               const train::FitRequest& request);

}  // namespace rung::cli
