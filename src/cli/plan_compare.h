// Methods side by side: their plans, and the closed formula of the literature (train/paper_formula.h).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "train/paper_formula.h"
#include "train/plan_search.h"

namespace rung::cli {

// A method with its own defaults where `options` leave them open; settings that only other methods have are
// dropped.
struct MethodVariant {
  std::string name;
  train::TrainOptions options;
};
// "ladder", "xladder", "lora keep", "lora recompute".
std::vector<MethodVariant> MethodVariants(const train::TrainOptions& options);

// A bar of the chart, a column of the table.
struct PlanColumn {
  std::string name;
  std::vector<std::pair<std::string, uint64_t>> items;
  uint64_t total() const;
  uint64_t Bytes(const std::string& item) const;  // 0 when there is none
};
PlanColumn ColumnOf(std::string name, const train::MemoryPlan& plan);

// Why the plan of a method has other bytes than the formula of its column.
struct Difference {
  std::string method, formula_name, item;
  uint64_t plan = 0, formula = 0;
  std::string reason;
};

struct Comparison {
  struct Method {
    std::string name;
    train::Method method = train::Method::kLadder;
    train::PlannedRun run;
  };
  std::vector<Method> methods;
  std::vector<PlanColumn> columns;  // of the methods, then of the formulas
  std::vector<Difference> differences;

  // The method of the options, as they would have it.
  const Method& Of(const train::TrainOptions& options) const;
};
// Throws Error when a method cannot be what the options ask for.
Comparison Compare(const train::PlanModel& model, const train::TrainOptions& options, int64_t sequence);

std::string CompareTable(const Comparison& comparison);
nlohmann::ordered_json CompareJson(const Comparison& comparison);

// Stacked bars of the columns, in GiB. limit 0: no line.
std::string PlanChart(const std::vector<PlanColumn>& columns, const std::string& title, uint64_t limit);

}  // namespace rung::cli
