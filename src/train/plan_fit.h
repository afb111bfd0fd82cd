// The largest batch in a given memory, by policies or by methods.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "train/plan_search.h"

namespace rung::train {

struct FitRequest {
  uint64_t limit = 0;
  int64_t longest = 0;  // tokens of one sequence
  // As on the command line, or by default: the batch that is enough.
  int64_t tokens = 0, max_length = 0;
  bool tokens_given = false, max_length_given = false;
  bool fixed = false;  // policies were given: others are tried only where nothing fits
};

struct FitRow {
  std::string flags;          // policies beside those given; empty: none
  Fit largest;                // tokens 0: nothing fits
  std::optional<Fit> wanted;  // the request's own batch, where it fits

  // What the row is proposed for: the batch that was asked for, else the largest.
  const Fit& Proposed(const FitRequest& request) const;
};
struct MethodFit {
  std::string name;
  std::vector<FitRow> rows;
  size_t chosen = 0;  // the cheapest that takes `wanted` tokens, or the first that takes the most
  const FitRow& best() const { return rows[chosen]; }
  bool fits() const { return best().wanted || best().largest.tokens > 0; }
};

// Of the options' method, a row for each of its policy sets.
MethodFit FitPolicies(const PlanModel& model, const TrainOptions& options, const FitRequest& request);
// Of every method as given, and with all its policies; of "lora keep" all that keep it what it is.
std::vector<MethodFit> FitMethods(const PlanModel& model, const TrainOptions& options,
                                  const FitRequest& request);

}  // namespace rung::train
