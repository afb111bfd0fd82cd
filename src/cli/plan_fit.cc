#include "cli/plan_fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/plan_compare.h"

namespace rung::cli {
namespace {

FitRow RowOf(const train::PlanModel& model, const train::TrainOptions& options, const FitRequest& request,
             const train::PolicySet& set) {
  return {set.flags, train::LargestFit(model, set.Apply(options), request.longest, request.limit).OrThrow()};
}

void Choose(const FitRequest& request, MethodFit* method) {
  const auto tokens = [](const FitRow& row) { return row.fit.tokens; };
  const auto enough = std::find_if(method->rows.begin(), method->rows.end(),
                                   [&](const FitRow& row) { return tokens(row) >= request.wanted; });
  const auto most = std::max_element(method->rows.begin(), method->rows.end(),
                                     [&](const FitRow& a, const FitRow& b) { return tokens(a) < tokens(b); });
  const auto chosen = enough != method->rows.end() ? enough
                      : tokens(*most) > 0          ? most
                                                   : std::prev(method->rows.end());
  method->chosen = static_cast<size_t>(chosen - method->rows.begin());
}

std::string Sequences(const train::Fit& fit) {
  if (fit.tokens == 0)
    return fmt::format("{} tokens need {}", train::kFitStep, FormatBytes(fit.run.memory.total()));
  if (fit.tokens <= fit.sequence) return "one sequence";
  return fmt::format("sequences of {}", fit.sequence);
}

}  // namespace

MethodFit FitPolicies(const train::PlanModel& model, const train::TrainOptions& options,
                      const FitRequest& request) {
  MethodFit method{train::NameOf(options.method), {}};
  const model::AdapterSpec spec = train::ResolveAdapter(options, model.config()).OrThrow();
  for (const train::PolicySet& set : train::PolicySets(model, options, spec)) {
    const bool given_fit = !method.rows.empty() && method.rows.front().fit.tokens > 0;
    if (request.fixed && given_fit) break;
    method.rows.push_back(RowOf(model, options, request, set));
  }
  Choose(request, &method);
  return method;
}

std::vector<MethodFit> FitMethods(const train::PlanModel& model, const train::TrainOptions& options,
                                  const FitRequest& request) {
  std::vector<MethodFit> methods;
  for (const MethodVariant& variant : MethodVariants(options)) {
    MethodFit method{variant.name, {}};
    const model::AdapterSpec spec = train::ResolveAdapter(variant.options, model.config()).OrThrow();
    const std::vector<train::PolicySet> sets = train::PolicySets(model, variant.options, spec);
    method.rows.push_back(RowOf(model, variant.options, request, sets.front()));
    // Everything on turns "lora keep" into the next one.
    const bool keeps =
        spec.lora && !spec.ladder && variant.options.policy.blocks == model::BlockMemory::kKeep;
    if (sets.size() > 1 && !keeps) method.rows.push_back(RowOf(model, variant.options, request, sets.back()));
    Choose(request, &method);
    methods.push_back(std::move(method));
  }
  return methods;
}

std::string FitTable(const std::vector<MethodFit>& methods, const FitRequest& request) {
  size_t width = 0;
  const auto label = [&](const MethodFit& method, const FitRow& row) {
    return fmt::format("{:<16}{}", method.name, row.flags.empty() ? "as given" : row.flags);
  };
  for (const MethodFit& method : methods) {
    for (const FitRow& row : method.rows) width = std::max(width, label(method, row).size());
  }
  std::string table = fmt::format("largest --tokens in {}: one sequence of up to {}, then several of {}\n",
                                  FormatBytes(request.limit), request.longest, request.longest);
  for (const MethodFit& method : methods) {
    for (const FitRow& row : method.rows) {
      table +=
          fmt::format("  {:<{}} {:>9}   {}\n", label(method, row), width, row.fit.tokens, Sequences(row.fit));
    }
  }
  return table;
}

std::string FitFlags(const FitRow& row) {
  return fmt::format("--tokens {} --max-length {}{}{}", row.fit.tokens, row.fit.sequence,
                     row.flags.empty() ? "" : " ", row.flags);
}

nlohmann::ordered_json FitJson(const std::vector<MethodFit>& methods, const FitRequest& request) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const MethodFit& method : methods) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const FitRow& row : method.rows) {
      rows.push_back({{"policies", row.flags},
                      {"tokens", row.fit.tokens},
                      {"sequence", row.fit.sequence},
                      {"total_bytes", row.fit.run.memory.total()}});
    }
    list.push_back({{"name", method.name}, {"rows", rows}, {"fits", method.fits()}});
    list.back()["flags"] = method.fits() ? nlohmann::ordered_json(FitFlags(method.best())) : nullptr;
  }
  return {{"limit_bytes", request.limit},
          {"longest_sequence", request.longest},
          {"wanted_tokens", request.wanted},
          {"methods", list}};
}

}  // namespace rung::cli
