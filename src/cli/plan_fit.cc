#include "cli/plan_fit.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace rung::cli {
namespace {

std::string Sequences(const train::Fit& fit) {
  if (fit.tokens == 0)
    return fmt::format("{} tokens need {}", train::kFitStep, FormatBytes(fit.run.memory.total()));
  if (fit.tokens <= fit.sequence) return "one sequence";
  return fmt::format("sequences of {}", fit.sequence);
}

std::string Joined(const std::string& first, const std::string& second) {
  return first + (first.empty() || second.empty() ? "" : " ") + second;
}

// "--tokens 4096 --max-length 4096 --recompute": all that the proposal sets.
std::string FitFlags(const train::FitRow& row, const train::FitRequest& request) {
  const train::Fit& fit = row.Proposed(request);
  return Joined(fmt::format("--tokens {} --max-length {}", fit.tokens, fit.sequence), row.flags);
}

}  // namespace

std::string FitTable(const std::vector<train::MethodFit>& methods, const train::FitRequest& request) {
  size_t width = 0;
  const auto label = [&](const train::MethodFit& method, const train::FitRow& row) {
    return fmt::format("{:<16}{}", method.name, row.flags.empty() ? "as given" : row.flags);
  };
  for (const train::MethodFit& method : methods) {
    for (const train::FitRow& row : method.rows) width = std::max(width, label(method, row).size());
  }
  std::string table = fmt::format("largest --tokens in {}: one sequence of up to {}, then several of {}\n",
                                  FormatBytes(request.limit), request.longest, request.longest);
  for (const train::MethodFit& method : methods) {
    for (const train::FitRow& row : method.rows) {
      table += fmt::format("  {:<{}} {:>9}   {}\n", label(method, row), width, row.largest.tokens,
                           Sequences(row.largest));
    }
  }
  return table;
}

std::string FitAdvice(const train::MethodFit& method, const train::FitRequest& request) {
  if (!method.fits()) return "";
  const train::FitRow& row = method.best();
  const train::Fit& fit = row.Proposed(request);
  const std::string wanted = fmt::format("--tokens {}", request.tokens);
  // A flag may stand once: one that was given is replaced, and left alone where it says the right thing.
  std::string set, replaced;
  const auto change = [&](const char* flag, int64_t before, bool given, int64_t after) {
    set = Joined(set, fmt::format("{} {}", flag, after));
    if (given) replaced = Joined(replaced, fmt::format("{} {}", flag, before));
  };
  if (request.tokens != fit.tokens) change("--tokens", request.tokens, request.tokens_given, fit.tokens);
  if (std::min(request.max_length, fit.tokens + 1) != fit.sequence) {
    change("--max-length", request.max_length, request.max_length_given, fit.sequence);
  }
  set = Joined(set, row.flags);
  const std::string reason =
      !row.wanted            ? fmt::format("nothing takes {}, this takes the most", wanted)
      : request.tokens_given ? fmt::format("the cheapest that takes {}", wanted)
                             : fmt::format("the cheapest that takes the default {}, at its largest", wanted);
  if (set.empty()) return fmt::format("{}: the command as it is\n", reason);
  return fmt::format("{}; {}:\n  {}\n", reason,
                     replaced.empty() ? "add to the command" : fmt::format("instead of {}", replaced), set);
}

nlohmann::ordered_json FitJson(const std::vector<train::MethodFit>& methods,
                               const train::FitRequest& request) {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const train::MethodFit& method : methods) {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const train::FitRow& row : method.rows) {
      rows.push_back({{"policies", row.flags},
                      {"tokens", row.largest.tokens},
                      {"sequence", row.largest.sequence},
                      {"total_bytes", row.largest.run.memory.total()},
                      {"takes_wanted", row.wanted.has_value()}});
    }
    list.push_back({{"name", method.name}, {"rows", rows}, {"fits", method.fits()}});
    list.back()["takes_wanted"] = method.best().wanted.has_value();
    list.back()["flags"] = method.fits() ? nlohmann::ordered_json(FitFlags(method.best(), request)) : nullptr;
  }
  return {{"limit_bytes", request.limit},
          {"longest_sequence", request.longest},
          {"wanted_tokens", request.tokens},
          {"methods", list}};
}

}  // namespace rung::cli
