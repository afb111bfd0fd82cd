#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/clock.h"
#include "base/memory.h"
#include "base/text.h"
#include "cli/bench.h"
#include "cli/print.h"
#include "cli/train_flags.h"
#include "train/calibrate.h"
#include "train/step.h"

namespace rung::cli {
namespace {

struct StepCommand {
  TrainFlags flags;
  int64_t sequence = 512, iterations = 5;
  bool trace = false, json = false, step_only = false;
};

double SecondsOf(const std::function<void()>& body) {
  const auto begin = std::chrono::steady_clock::now();
  body();
  return SecondsSince(begin);
}

struct StepTimes {
  double first = 0.0;  // from the start of the process to the end of the first step
  std::vector<double> seconds;
  Trace trace;
  double loss = 0.0;  // nats per target of the last step
};

// Optimizer steps on one batch, in a slab that is gone when this returns.
StepTimes RunSteps(const train::TrainOptions& options, const model::Backbone& backbone,
                   model::Adapter& adapter, double rate, const data::Batch& batch,
                   const train::StepPlan& plan, int64_t iterations) {
  StepTimes times;
  train::Optimizer optimizer(options.optimizer, adapter.params().begins);
  const Slab slab(plan.peak.bytes);
  Exec ex(Arena(slab.base(), slab.bytes()), options.compute.context, options.compute.compute);
  model::BatchInput input(batch);
  input.set_draw(1);
  const int64_t M = input.target_count();
  std::vector<float> loss(static_cast<size_t>(M));
  const auto step = [&] {
    train::Step(ex, backbone, &adapter, input, true, Out{View(loss.data(), 1, M)}, nullptr);
    optimizer.Update(ex, adapter.params(), rate, M);
  };
  const double first = SecondsOf(step);  // touches new memory and makes oneDNN's code
  if (iterations == 0) times.seconds.push_back(first);
  times.first = SecondsSinceProcessStart();
  ex.set_trace(&times.trace);
  for (int64_t i = 0; i < iterations; ++i) times.seconds.push_back(SecondsOf(step));
  for (const float nats : loss) times.loss += static_cast<double>(nats) / static_cast<double>(M);
  if (!std::isfinite(times.loss)) throw Error(ExitCode::kNonFinite, "bench step: the loss is not finite");
  return times;
}

// The frozen blocks over the same rows, without the head.
struct ForwardTimes {
  double seconds = 0.0, flops = 0.0;
};
ForwardTimes RunForward(const train::ComputeOptions& compute, const model::Backbone& backbone,
                        const data::Batch& batch, int64_t iterations) {
  const model::BatchInput input(batch);
  Exec planning = Exec::Planning(compute.context, compute.compute);
  train::CalibrationPass(planning, backbone, input, backbone.config().L, {});
  const Slab slab(planning.arena().peak().bytes);
  Exec ex(Arena(slab.base(), slab.bytes()), compute.context, compute.compute);
  const auto forward = [&] { train::CalibrationPass(ex, backbone, input, backbone.config().L, {}); };
  forward();
  std::vector<double> seconds;
  for (int64_t i = 0; i < std::max<int64_t>(1, iterations); ++i) seconds.push_back(SecondsOf(forward));
  return {Median(seconds), planning.flops()};
}

struct StepFacts {
  const train::TrainOptions& options;
  const model::Config& config;
  const model::Adapter& adapter;
  const train::MemoryPlan& plan;
  const StepTimes& times;
  const ForwardTimes& forward;
  const PeakRates& peaks;
  uint64_t resident = 0;

  double seconds() const { return Median(times.seconds); }
  double total() const {
    double sum = 0.0;
    for (const double s : times.seconds) sum += s;
    return sum;
  }
  double tokens_per_second() const { return static_cast<double>(options.tokens) / seconds(); }
  // 0: not timed.
  double forward_tokens_per_second() const {
    return forward.seconds > 0 ? static_cast<double>(options.tokens) / forward.seconds : 0.0;
  }
  double peak() const { return peaks.Of(options.compute.compute); }
  double peak_share() const { return plan.step.flops / seconds() / peak(); }
  double forward_peak_share() const {
    return forward.seconds > 0 ? forward.flops / forward.seconds / peak() : 0.0;
  }
};

nlohmann::ordered_json ToJson(const StepFacts& f, const StepCommand& command) {
  nlohmann::ordered_json json = {{"model", f.options.model.string()},
                                 {"method", command.flags.method},
                                 {"isa", cpu::NameOf(f.options.compute.context.isa)},
                                 {"compute", NameOfArithmetic(f.options.compute)},
                                 {"threads", f.options.compute.context.threads},
                                 {"tokens", f.options.tokens},
                                 {"sequence", f.options.max_length},
                                 {"parameters", f.adapter.parameter_count()},
                                 {"iterations", f.times.seconds.size()},
                                 {"step_seconds", f.times.seconds},
                                 {"tokens_per_second", f.tokens_per_second()},
                                 {"peak_share", f.peak_share()},
                                 {"forward_tokens_per_second", f.forward_tokens_per_second()},
                                 {"forward_peak_share", f.forward_peak_share()},
                                 {"peak_gflops", f.peak() / 1e9},
                                 {"step_flops", f.plan.step.flops},
                                 {"vm_hwm_bytes", f.resident},
                                 {"planned_bytes", f.plan.total()},
                                 {"seconds_to_first_step", f.times.first},
                                 {"loss", f.times.loss}};
  if (const model::Ladder* ladder = f.adapter.ladder()) {
    const model::LadderSpec& spec = ladder->spec();
    json["taps"] = spec.taps;
    json["rungs"] = spec.rungs;
    json["width"] = spec.S;
    json["inner"] = spec.F;
    json["head_dim"] = spec.head_dim;
    json["rejoin"] = spec.rejoin;
  }
  if (command.trace) json["trace"] = TraceJson(f.times.trace, f.total(), f.peaks, f.options.compute.compute);
  return json;
}

void Print(const StepFacts& f, const StepCommand& command) {
  fmt::print("{}: {} tokens in sequences of {}\n{}\n", f.config.name, f.options.tokens, f.options.max_length,
             Describe(f.adapter.spec(), f.config, f.adapter.parameter_count()));
  fmt::print("{}, {}, {} threads, peak {:.1f} GFLOP/s\n", cpu::NameOf(f.options.compute.context.isa),
             NameOfArithmetic(f.options.compute), f.options.compute.context.threads, f.peak() / 1e9);
  fmt::print("  {:<24}{:>10.1f} tokens/s  {:>5.1f}% of peak\n", "training step", f.tokens_per_second(),
             100 * f.peak_share());
  if (f.forward.seconds > 0) {
    fmt::print("  {:<24}{:>10.1f} tokens/s  {:>5.1f}% of peak\n", "frozen forward",
               f.forward_tokens_per_second(), 100 * f.forward_peak_share());
  }
  fmt::print("  {:<24}{:>10}, planned {}\n", "memory (VmHWM)", FormatBytes(f.resident),
             FormatBytes(f.plan.total()));
  fmt::print("  {:<24}{:>10.2f} s after the start\n", "first step done", f.times.first);
  if (command.trace) {
    fmt::print("\n{} steps\n{}", f.times.seconds.size(),
               TraceTable(f.times.trace, f.total(), f.peaks, f.options.compute.compute));
  }
}

// `given`: --sequence was, and stays as it is.
void RunStep(StepCommand command, bool given) {
  const model::Config config = model::ReadConfig(command.flags.model.model).OrThrow();
  if (!given) command.sequence = std::min(command.sequence, config.context);
  TrainFlags flags = command.flags;
  flags.options.max_length = std::min(command.sequence, flags.options.tokens);
  const train::TrainOptions options = Resolve(flags);
  const model::AdapterSpec spec = train::ResolveAdapter(options, config).OrThrow();
  model::BackboneOptions backbone_options = options.backbone;
  backbone_options.positions = options.max_length;
  const model::Backbone backbone = model::Backbone::Load(options.model, backbone_options).OrThrow();

  data::Batch batch = train::UniformBatch(options.tokens, options.max_length);
  batch.ids = RandomIds(options.tokens, config.V, options.seed);
  batch.target = RandomIds(options.tokens, config.V, options.seed + 1);
  model::Adapter planned = model::Adapter::Planned(config, spec, options.max_length);
  planned.policy = options.policy;
  const train::MemoryPlan plan = train::MakePlan(options.compute.context, options.compute.compute, backbone,
                                                 planned, batch, {0, 0, true, options.optimizer});
  if (options.memory_limit > 0 && plan.total() > options.memory_limit) {
    throw Error(ExitCode::kNoMemory, plan.Refusal(options.memory_limit, "--memory-limit"));
  }
  model::Adapter adapter = model::Adapter::Make(config, spec, options.seed, true, options.max_length);
  adapter.policy = options.policy;
  const double rate = train::ResolveLearningRate(options, spec, config);
  const StepTimes times = RunSteps(options, backbone, adapter, rate, batch, plan.step, command.iterations);
  // Before anything that is not the step takes memory.
  const uint64_t resident = ResidentPeak();
  const ForwardTimes forward =
      command.step_only ? ForwardTimes{} : RunForward(options.compute, backbone, batch, command.iterations);
  const PeakRates peaks = MeasurePeaks(options.compute.context);
  const StepFacts facts{options, config, adapter, plan, times, forward, peaks, resident};
  if (command.json) {
    PrintJson(ToJson(facts, command));
  } else {
    Print(facts, command);
  }
}

}  // namespace

Action AddBenchStep(CLI::App& app) {
  auto command = std::make_shared<StepCommand>();
  train::TrainOptions& o = command->flags.options;
  o.tokens = 2048;
  AddModelFlags(app, &command->flags.model);
  AddMethodFlags(app, &command->flags);
  app.add_option("--memory-limit", command->flags.memory_limit, "refuse a plan above this, e.g. 8GiB");
  app.add_option("--tokens", o.tokens, "tokens of a step, each with a loss")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 22));
  CLI::Option* sequence = app.add_option("--sequence", command->sequence,
                                         "tokens of one sequence (default 512, or the model's context)")
                              ->check(CLI::Range(2, 1 << 22));
  app.add_option("--iterations", command->iterations,
                 "timed steps, after one that is not; 0: that one is timed")
      ->capture_default_str()
      ->check(CLI::Range(0, 1 << 20));
  app.add_flag("--step-only", command->step_only, "no timing of the frozen forward pass");
  app.add_flag("--trace", command->trace, "time, rate and share of peak of every op");
  app.add_flag("--json", command->json, "print one JSON object");
  AddComputeFlags(app, &command->flags.compute);
  return [command, sequence] { RunStep(*command, sequence->count() > 0); };
}

}  // namespace rung::cli
