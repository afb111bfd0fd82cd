// `rung plan --fit`: the largest batch in a given memory, by policies or by methods.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "train/plan_search.h"

namespace rung::cli {

struct FitRequest {
  uint64_t limit = 0;
  int64_t longest = 0;  // tokens of one sequence
  int64_t wanted = 0;   // tokens that are enough
  bool fixed = false;   // policies were given: others are tried only where nothing fits
};

struct FitRow {
  std::string flags;  // policies beside those given; empty: none
  train::Fit fit;
};
struct MethodFit {
  std::string name;
  std::vector<FitRow> rows;
  size_t chosen = 0;  // the cheapest that takes `wanted` tokens, or the first that takes the most
  const FitRow& best() const { return rows[chosen]; }
  bool fits() const { return best().fit.tokens > 0; }
};

// Of the options' method, a row for each of its policy sets.
MethodFit FitPolicies(const train::PlanModel& model, const train::TrainOptions& options,
                      const FitRequest& request);
// Of every method as given, and with all its policies.
std::vector<MethodFit> FitMethods(const train::PlanModel& model, const train::TrainOptions& options,
                                  const FitRequest& request);

std::string FitTable(const std::vector<MethodFit>& methods, const FitRequest& request);
// "--tokens 4096 --max-length 4096 --recompute": what to add to a command.
std::string FitFlags(const FitRow& row);
nlohmann::ordered_json FitJson(const std::vector<MethodFit>& methods, const FitRequest& request);

}  // namespace rung::cli
