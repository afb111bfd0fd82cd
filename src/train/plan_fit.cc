#include "train/plan_fit.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "train/method_comparison.h"

namespace rung::train {
namespace {

FitRow RowOf(const PlanModel& model, const TrainOptions& options, const FitRequest& request,
             const PolicySet& set) {
  TrainOptions at = set.Apply(options);
  FitRow row{set.flags, LargestFit(model, at, request.longest, request.limit).OrThrow(), {}};
  at.max_length = std::min({request.max_length, request.longest, at.tokens + 1});
  PlannedRun run = PlanRun(model, at, at.max_length).OrThrow();
  if (run.memory.total() <= request.limit) row.wanted = Fit{at.tokens, at.max_length, std::move(run)};
  return row;
}

void Choose(MethodFit* method) {
  const auto tokens = [](const FitRow& row) { return row.largest.tokens; };
  const auto enough = std::find_if(method->rows.begin(), method->rows.end(),
                                   [](const FitRow& row) { return row.wanted.has_value(); });
  const auto most = std::max_element(method->rows.begin(), method->rows.end(),
                                     [&](const FitRow& a, const FitRow& b) { return tokens(a) < tokens(b); });
  const auto chosen = enough != method->rows.end() ? enough
                      : tokens(*most) > 0          ? most
                                                   : std::prev(method->rows.end());
  method->chosen = static_cast<size_t>(chosen - method->rows.begin());
}

}  // namespace

const Fit& FitRow::Proposed(const FitRequest& request) const {
  return wanted && request.tokens_given ? *wanted : largest;
}

MethodFit FitPolicies(const PlanModel& model, const TrainOptions& options, const FitRequest& request) {
  MethodFit method{NameOf(options.method), {}};
  const model::AdapterSpec spec = ResolveAdapter(options, model.config()).OrThrow();
  for (const PolicySet& set : PolicySets(model, options, spec)) {
    if (request.fixed && !method.rows.empty() && method.fits()) break;
    method.rows.push_back(RowOf(model, options, request, set));
  }
  Choose(&method);
  return method;
}

std::vector<MethodFit> FitMethods(const PlanModel& model, const TrainOptions& options,
                                  const FitRequest& request) {
  std::vector<MethodFit> methods;
  for (const MethodVariant& variant : MethodVariants(options, model.config())) {
    MethodFit method{variant.name, {}};
    Result<model::AdapterSpec> resolved = ResolveAdapter(variant.options, model.config());
    if (!resolved.ok()) resolved = RefusalOf(variant, resolved.failure());
    const model::AdapterSpec spec = std::move(resolved).OrThrow();
    // Blocks that run again would turn "lora keep" into the next one.
    const bool keep = !spec.ladder && variant.options.policy.blocks == model::BlockMemory::kKeep;
    const std::vector<PolicySet> sets = PolicySets(model, variant.options, spec, keep);
    method.rows.push_back(RowOf(model, variant.options, request, sets.front()));
    if (sets.size() > 1) method.rows.push_back(RowOf(model, variant.options, request, sets.back()));
    Choose(&method);
    methods.push_back(std::move(method));
  }
  return methods;
}

}  // namespace rung::train
