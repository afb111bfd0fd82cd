// Methods side by side: their plans, the closed formula of the literature (paper_formula.h), and why they
// differ.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "train/paper_formula.h"
#include "train/plan_search.h"

namespace rung::train {

// A method with its own defaults where `options` leave them open; settings that only other methods have are
// dropped.
struct MethodVariant {
  std::string name;
  TrainOptions options;
};
// "ladder", "xladder", "lora keep", "lora recompute". A ladder has pairs where the options have a rank and
// ask, by their method or by --rejoin, for a ladder that rejoins; else the rank is lora's alone.
std::vector<MethodVariant> MethodVariants(const TrainOptions& options, const model::Config& config);

// What a method that cannot be what the options ask for is refused with.
Failure RefusalOf(const MethodVariant& variant, const Failure& failure);

// A bar of the chart, a column of the table.
struct PlanColumn {
  std::string name;
  std::vector<std::pair<std::string, uint64_t>> items;
  uint64_t total() const;
  uint64_t Bytes(const std::string& item) const;  // 0 when there is none
};
PlanColumn ColumnOf(std::string name, const MemoryPlan& plan);

// Why the plan of a method has other bytes than the formula of its column.
struct Difference {
  std::string method, formula_name, item;
  uint64_t plan = 0, formula = 0;
  std::string reason;
};

struct MethodPlan {
  std::string name;
  Method method = Method::kLadder;
  PlannedRun run;
};

struct Comparison {
  std::vector<MethodPlan> methods;
  std::vector<PlanColumn> columns;  // of the methods, then of the formulas
  std::vector<Difference> differences;

  // The method of the options, as they would have it.
  const MethodPlan& Of(const TrainOptions& options) const;
};
// Throws Error when a method cannot be what the options ask for.
Comparison Compare(const PlanModel& model, const TrainOptions& options, int64_t sequence);

}  // namespace rung::train
