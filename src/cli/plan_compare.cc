#include "cli/plan_compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/plan_reasons.h"
#include "cli/svg.h"
#include "cli/train_flags.h"

namespace rung::cli {
namespace {

constexpr const char* kQlora = "QLoRA formula";
constexpr const char* kLadder = "ladder formula";
constexpr double kGiB = 1024.0 * 1024.0 * 1024.0;

// "12.3 T": three or more digits, so that small models do not show as nothing.
std::string FormatCount(double value) {
  constexpr const char* kPrefixes[] = {"", " k", " M", " G", " T", " P", " E"};
  size_t p = 0;
  for (; value >= 1000.0 && p + 1 < std::size(kPrefixes); ++p) value /= 1000.0;
  return fmt::format("{:.{}f}{}", value, p > 0 ? 1 : 0, kPrefixes[p]);
}

PlanColumn FormulaColumn(const char* name, const train::FormulaMemory& memory, bool ladder) {
  PlanColumn column{name, {}};
  const auto add = [&](const char* item, double bytes) {
    if (bytes > 0) column.items.emplace_back(item, static_cast<uint64_t>(std::llround(bytes)));
  };
  add("weights", memory.weights);
  add("parameters", memory.parameters);
  add("gradients", memory.gradients);
  add("optimizer", memory.optimizer);
  add(NameOf(Use::kTaps), memory.taps);
  add(NameOf(ladder ? Use::kRungs : Use::kSaved), memory.linear + memory.attention);
  add(NameOf(Use::kLowRank), memory.low_rank);
  add(NameOf(Use::kBackbone), memory.transient);
  return column;
}

// The items of all columns, each once, in their order.
std::vector<std::string> ItemNames(const std::vector<PlanColumn>& columns) {
  std::vector<std::string> names;
  for (const PlanColumn& column : columns) {
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

std::vector<MethodVariant> MethodVariants(const train::TrainOptions& options) {
  train::TrainOptions ladder = options, keep = options;
  ladder.method = train::Method::kLadder;
  ladder.ladder.delta = 0;
  // Low-rank pairs stand beside a ladder only above its joining point, and only where they were asked for
  // with one: in a comparison --lora-r is else of the columns of lora.
  if (options.ladder.rejoin.value_or(0) == 0) ladder.lora.r = 0;
  train::TrainOptions xladder = ladder;
  xladder.method = train::Method::kXladder;
  xladder.ladder.delta = options.ladder.delta;
  xladder.ladder.taps.clear();
  keep.method = train::Method::kLora;
  keep.policy.blocks = model::BlockMemory::kKeep;
  train::TrainOptions recompute = keep;
  recompute.policy.blocks = model::BlockMemory::kRecompute;
  return {{"ladder", ladder}, {"xladder", xladder}, {"lora keep", keep}, {"lora recompute", recompute}};
}

uint64_t PlanColumn::total() const {
  uint64_t sum = 0;
  for (const auto& item : items) sum += item.second;
  return sum;
}

uint64_t PlanColumn::Bytes(const std::string& item) const {
  for (const auto& [known, bytes] : items) {
    if (known == item) return bytes;
  }
  return 0;
}

PlanColumn ColumnOf(std::string name, const train::MemoryPlan& plan) {
  PlanColumn column{std::move(name), {}};
  for (const train::PlanItem& item : plan.items) column.items.emplace_back(item.name, item.bytes);
  return column;
}

const Comparison::Method& Comparison::Of(const train::TrainOptions& options) const {
  const bool recompute = options.policy.blocks == model::BlockMemory::kRecompute;
  switch (options.method) {
    case train::Method::kLadder:
      return methods[0];
    case train::Method::kXladder:
      return methods[1];
    case train::Method::kLora:
      break;
  }
  return methods[recompute ? 3 : 2];
}

Comparison Compare(const train::PlanModel& model, const train::TrainOptions& options, int64_t sequence) {
  Comparison comparison;
  for (const MethodVariant& variant : MethodVariants(options)) {
    Result<train::PlannedRun> run = train::PlanRun(model, variant.options, sequence);
    if (!run.ok()) {
      throw Error(run.failure().code, fmt::format("--compare, {}: {}", variant.name, run.failure().message));
    }
    comparison.columns.push_back(ColumnOf(variant.name, run.value().memory));
    comparison.methods.push_back({variant.name, variant.options.method, std::move(run).value()});
  }
  const model::Config& config = model.config();
  const train::PlannedRun &ladder = comparison.methods[0].run, &keep = comparison.methods[2].run;
  const train::FormulaMemory qlora = train::QloraFormula(config, keep.parameters, options.tokens, sequence);
  const train::FormulaMemory side =
      train::LadderFormula(config, *ladder.spec.ladder, ladder.parameters, options.tokens, sequence);
  comparison.columns.push_back(FormulaColumn(kQlora, qlora, false));
  comparison.columns.push_back(FormulaColumn(kLadder, side, true));
  const auto explain = [&](const Comparison::Method& method, const char* name,
                           std::vector<Difference> found) {
    for (Difference& d : found) {
      d.method = method.name;
      d.formula_name = name;
      comparison.differences.push_back(std::move(d));
    }
  };
  explain(comparison.methods[2], kQlora, LoraDifferences(config, options, keep, qlora));
  explain(comparison.methods[0], kLadder, LadderDifferences(config, options, ladder, side));
  return comparison;
}

std::string CompareTable(const Comparison& comparison) {
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
  for (const Difference& d : comparison.differences) {
    if (d.method != method) table += fmt::format("{} against the {}:\n", d.method, d.formula_name);
    method = d.method;
    table += fmt::format("  {:<20}{:>11} against {:>9}: {}\n", d.item, FormatBytes(d.plan),
                         d.formula > 0 ? FormatBytes(d.formula) : "-", d.reason);
  }
  return table;
}

nlohmann::ordered_json CompareJson(const Comparison& comparison) {
  nlohmann::ordered_json methods = nlohmann::ordered_json::array(), formulas = methods, differences = methods;
  for (const Comparison::Method& m : comparison.methods) {
    nlohmann::ordered_json json = {{"name", m.name}, {"method", train::NameOf(m.method)}};
    json["parameters"] = m.run.parameters;
    json.update(PlanJson(m.run.memory));
    methods.push_back(json);
  }
  for (size_t c = comparison.methods.size(); c < comparison.columns.size(); ++c) {
    const PlanColumn& column = comparison.columns[c];
    nlohmann::ordered_json items = nlohmann::ordered_json::array();
    for (const auto& [name, bytes] : column.items) items.push_back({{"name", name}, {"bytes", bytes}});
    formulas.push_back({{"name", column.name}, {"items", items}, {"total_bytes", column.total()}});
  }
  for (const Difference& d : comparison.differences) {
    differences.push_back({{"method", d.method},
                           {"formula", d.formula_name},
                           {"item", d.item},
                           {"plan_bytes", d.plan},
                           {"formula_bytes", d.formula},
                           {"reason", d.reason}});
  }
  return {{"methods", methods}, {"formulas", formulas}, {"differences", differences}};
}

std::string PlanChart(const std::vector<PlanColumn>& columns, const std::string& title, uint64_t limit) {
  StackedBars chart;
  chart.title = title;
  chart.unit = "GiB";
  chart.series = ItemNames(columns);
  for (const PlanColumn& column : columns) {
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
