#include "cli/train_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>

#include "base/text.h"

namespace rung::cli {

void AddLadderFlags(CLI::App& app, TrainFlags* flags) {
  train::TrainOptions& o = flags->options;
  app.add_option("--method", flags->method, "what is trained: ladder")->check(CLI::IsMember({"ladder"}));
  app.add_option("--taps", o.taps,
                 "tapped layers: all, every:k, top:k or a list; default about five, evenly spaced");
  app.add_option("--rungs", o.rungs, "blocks of the ladder; default one a tap, more are free")
      ->check(CLI::Range(0, 4096));
  app.add_option("--width", o.width, "width of the ladder, a multiple of 32; default hidden size / 4.5")
      ->check(CLI::Range(0, 65536));
  app.add_option("--gate", flags->gate, "how a tap joins the ladder: sum, interpolate")
      ->check(CLI::IsMember({"sum", "interpolate"}));
  app.add_option("--tap-norm", flags->tap_norm, "normalisation of taps: standardize, rms, none")
      ->check(CLI::IsMember({"standardize", "rms", "none"}));
  app.add_option("--output-scale", o.output_scale,
                 "factor of the ladder's output; 0: measured from the model");
  app.add_flag("--recompute-rungs", flags->recompute_rungs,
               "run rungs again in the backward pass instead of keeping them");
}

void AddBatchFlags(CLI::App& app, TrainFlags* flags) {
  train::TrainOptions& o = flags->options;
  app.add_option("--tokens", o.tokens, "tokens of a micro-batch")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 22));
  app.add_option("--max-length", o.max_length,
                 "tokens of one example; longer ones are truncated (default 512)")
      ->check(CLI::Range(2, 1 << 22));
  app.add_option("--memory-limit", flags->memory_limit,
                 "refuse a plan above this, e.g. 8GiB; default: free memory");
}

train::TrainOptions Resolve(const TrainFlags& flags) {
  train::TrainOptions options = flags.options;
  options.compute = Resolve(flags.compute);
  options.backbone = Resolve(flags.model, options.compute);
  options.model = flags.model.model;
  options.data = flags.data;
  options.eval_data = flags.eval_data;
  options.out = flags.out;
  options.schedule = train::ParseSchedule(flags.schedule).OrThrow();
  options.gate = flags.gate == "sum" ? model::Gate::kSum : model::Gate::kInterpolate;
  options.tap_norm = flags.tap_norm == "none"  ? model::TapNorm::kNone
                     : flags.tap_norm == "rms" ? model::TapNorm::kRms
                                               : model::TapNorm::kStandardize;
  options.rung_memory = flags.recompute_rungs ? model::RungMemory::kRecompute : model::RungMemory::kKeep;
  options.max_length = std::min(options.max_length, options.tokens + 1);
  if (!flags.memory_limit.empty()) {
    const int64_t limit = ParseBytes(flags.memory_limit);
    if (limit <= 0) {
      throw Error(ExitCode::kUsage,
                  fmt::format("--memory-limit {}: not a size; write 8GiB or 350MB", flags.memory_limit));
    }
    options.memory_limit = static_cast<uint64_t>(limit);
  }
  return options;
}

std::string PlanTable(const train::MemoryPlan& plan, uint64_t available) {
  std::string table = "memory plan\n";
  for (const train::PlanItem& item : plan.items) {
    table += fmt::format("  {:<20} {:>11}   {}\n", item.name, FormatBytes(item.bytes), item.note);
  }
  table += fmt::format("  {:<20} {:>11}   ", "total", FormatBytes(plan.total()));
  table += available > 0 ? fmt::format("of {} free\n", FormatBytes(available)) : "\n";
  table +=
      fmt::format("  step arena {} at its peak ({})\n", FormatBytes(plan.step.peak.bytes), plan.step.peak.at);
  return table;
}

nlohmann::ordered_json PlanJson(const train::MemoryPlan& plan) {
  nlohmann::ordered_json items = nlohmann::ordered_json::array();
  for (const train::PlanItem& item : plan.items) {
    items.push_back(
        {{"name", item.name}, {"bytes", item.bytes}, {"note", item.note}, {"option", item.option}});
  }
  return {{"items", items},
          {"total_bytes", plan.total()},
          {"step_arena_bytes", plan.step.peak.bytes},
          {"step_arena_peak_at", plan.step.peak.at},
          {"step_flops", plan.step.flops}};
}

}  // namespace rung::cli
