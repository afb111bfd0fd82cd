#include "cli/plan_compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/svg.h"
#include "cli/train_flags.h"

namespace rung::cli {
namespace {

constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

// "12.3 T": three or more digits, so that small models do not show as nothing.
std::string FormatCount(double value) {
  constexpr const char* kPrefixes[] = {"", " k", " M", " G", " T", " P", " E"};
  size_t p = 0;
  for (; value >= 1000.0 && p + 1 < std::size(kPrefixes); ++p) value /= 1000.0;
  return fmt::format("{:.{}f}{}", value, p > 0 ? 1 : 0, kPrefixes[p]);
}

// The items of all columns, each once, in their order.
std::vector<std::string> ItemNames(const std::vector<train::PlanColumn>& columns) {
  std::vector<std::string> names;
  for (const train::PlanColumn& column : columns) {
    // A name that is new stands behind the one before it in its own column.
    auto place = names.begin();
    for (const auto& item : column.items) {
      const auto known = std::find(names.begin(), names.end(), item.first);
      place = std::next(known == names.end() ? names.insert(place, item.first) : known);
    }
  }
  return names;
}

}  // namespace

std::string CompareTable(const train::Comparison& comparison) {
  constexpr int kWidth = 16;
  const auto line = [&](const std::string& name, const auto& cell) {
    std::string text = fmt::format("  {:<20}", name);
    for (size_t c = 0; c < comparison.columns.size(); ++c) text += fmt::format("{:>{}}", cell(c), kWidth);
    return text + "\n";
  };
  const auto& columns = comparison.columns;
  std::string table = line("", [&](size_t c) { return columns[c].name; });
  for (const std::string& name : ItemNames(columns)) {
    table += line(name, [&](size_t c) {
      const uint64_t bytes = columns[c].Bytes(name);
      return bytes > 0 ? FormatBytes(bytes) : std::string("-");
    });
  }
  const auto of_method = [&](const auto& value) {
    return [&](size_t c) {
      return c < comparison.methods.size() ? value(comparison.methods[c]) : std::string();
    };
  };
  table += line("total", [&](size_t c) { return FormatBytes(columns[c].total()); });
  table += line("trained parameters",
                of_method([](const auto& m) { return FormatCount(static_cast<double>(m.run.parameters)); }));
  table +=
      line("FLOP of a step", of_method([](const auto& m) { return FormatCount(m.run.memory.step.flops); }));
  table += "\nformulas: arXiv 2512.14237 for QLoRA; for a ladder in the same manner (inferred)\n";
  std::string method;
  for (const train::Difference& d : comparison.differences) {
    if (d.method != method) table += fmt::format("{} against the {}:\n", d.method, d.formula_name);
    method = d.method;
    table += fmt::format("  {:<20}{:>11} against {:>9}: {}\n", d.item, FormatBytes(d.plan),
                         d.formula > 0 ? FormatBytes(d.formula) : "-", d.reason);
  }
  return table;
}

nlohmann::ordered_json CompareJson(const train::Comparison& comparison) {
  nlohmann::ordered_json methods = nlohmann::ordered_json::array(), formulas = methods, differences = methods;
  for (const train::MethodPlan& m : comparison.methods) {
    nlohmann::ordered_json json = {{"name", m.name}, {"method", train::NameOf(m.method)}};
    json["parameters"] = m.run.parameters;
    json.update(PlanJson(m.run.memory));
    methods.push_back(json);
  }
  for (size_t c = comparison.methods.size(); c < comparison.columns.size(); ++c) {
    const train::PlanColumn& column = comparison.columns[c];
    nlohmann::ordered_json items = nlohmann::ordered_json::array();
    for (const auto& [name, bytes] : column.items) items.push_back({{"name", name}, {"bytes", bytes}});
    formulas.push_back({{"name", column.name}, {"items", items}, {"total_bytes", column.total()}});
  }
  for (const train::Difference& d : comparison.differences) {
    differences.push_back({{"method", d.method},
                           {"formula", d.formula_name},
                           {"item", d.item},
                           {"plan_bytes", d.plan},
                           {"formula_bytes", d.formula},
                           {"reason", d.reason}});
  }
  return {{"methods", methods}, {"formulas", formulas}, {"differences", differences}};
}

std::string PlanChart(const std::vector<train::PlanColumn>& columns, const std::string& title,
                      uint64_t limit) {
  StackedBars chart;
  chart.title = title;
  chart.unit = "GiB";
  chart.series = ItemNames(columns);
  for (const train::PlanColumn& column : columns) {
    StackedBars::Bar bar{column.name, FormatBytes(column.total()), {}};
    for (const std::string& item : chart.series) {
      bar.values.push_back(static_cast<double>(column.Bytes(item)) / kGiB);
    }
    chart.bars.push_back(std::move(bar));
  }
  chart.limit = static_cast<double>(limit) / kGiB;
  if (limit > 0) chart.limit_name = fmt::format("limit {}", FormatBytes(limit));
  return DrawStackedBars(chart);
}

}  // namespace rung::cli
