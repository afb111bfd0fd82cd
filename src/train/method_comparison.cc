#include "train/method_comparison.h"

#include <fmt/format.h>

#include <cmath>

#include "base/error.h"
#include "train/plan_differences.h"

namespace rung::train {
namespace {

constexpr const char* kQlora = "QLoRA formula";
constexpr const char* kLadder = "ladder formula";

PlanColumn FormulaColumn(const char* name, const FormulaMemory& memory, bool ladder) {
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

}  // namespace

std::vector<MethodVariant> MethodVariants(const TrainOptions& options, const model::Config& config) {
  TrainOptions ladder = options, keep = options;
  ladder.method = Method::kLadder;
  ladder.ladder.delta = 0;
  TrainOptions xladder = ladder;
  xladder.method = Method::kXladder;
  xladder.ladder.delta = options.ladder.delta;
  xladder.ladder.taps.clear();
  const bool asked = options.ladder.rejoin || options.method == Method::kLadder;
  if (!asked || RejoinOf(ladder, config.L) == 0) ladder.lora.r = 0;
  if (RejoinOf(xladder, config.L) == 0) xladder.lora.r = 0;
  keep.method = Method::kLora;
  keep.policy.blocks = model::BlockMemory::kKeep;
  TrainOptions recompute = keep;
  recompute.policy.blocks = model::BlockMemory::kRecompute;
  return {{"ladder", ladder}, {"xladder", xladder}, {"lora keep", keep}, {"lora recompute", recompute}};
}

Failure RefusalOf(const MethodVariant& variant, const Failure& failure) {
  const bool pairs = variant.options.method != Method::kLora && variant.options.lora.r > 0;
  return {fmt::format("--compare, {}: {}{}", variant.name, failure.message,
                      pairs ? "; with --method lora the rank is not of the ladder" : ""),
          failure.code};
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

PlanColumn ColumnOf(std::string name, const MemoryPlan& plan) {
  PlanColumn column{std::move(name), {}};
  for (const PlanItem& item : plan.items) column.items.emplace_back(item.name, item.bytes);
  return column;
}

const MethodPlan& Comparison::Of(const TrainOptions& options) const {
  const bool recompute = options.policy.blocks == model::BlockMemory::kRecompute;
  switch (options.method) {
    case Method::kLadder:
      return methods[0];
    case Method::kXladder:
      return methods[1];
    case Method::kLora:
      break;
  }
  return methods[recompute ? 3 : 2];
}

Comparison Compare(const PlanModel& model, const TrainOptions& options, int64_t sequence) {
  Comparison comparison;
  for (const MethodVariant& variant : MethodVariants(options, model.config())) {
    Result<PlannedRun> run = PlanRun(model, variant.options, sequence);
    if (!run.ok()) run = RefusalOf(variant, run.failure());
    PlannedRun planned = std::move(run).OrThrow();
    comparison.columns.push_back(ColumnOf(variant.name, planned.memory));
    comparison.methods.push_back({variant.name, variant.options.method, std::move(planned)});
  }
  const model::Config& config = model.config();
  const PlannedRun &ladder = comparison.methods[0].run, &keep = comparison.methods[2].run;
  const FormulaMemory qlora = QloraFormula(config, keep.parameters, options.tokens, sequence);
  const FormulaMemory side =
      LadderFormula(config, *ladder.spec.ladder, ladder.parameters, options.tokens, sequence);
  comparison.columns.push_back(FormulaColumn(kQlora, qlora, false));
  comparison.columns.push_back(FormulaColumn(kLadder, side, true));
  const auto explain = [&](const MethodPlan& method, const char* name, std::vector<Difference> found) {
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

}  // namespace rung::train
