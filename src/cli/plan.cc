#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/memory.h"
#include "base/text.h"
#include "cli/data_flags.h"
#include "cli/plan_compare.h"
#include "cli/plan_fit.h"
#include "cli/print.h"
#include "cli/train_flags.h"
#include "model/shapes.h"

namespace rung::cli {
namespace {

struct PlanCommand {
  TrainFlags flags;
  std::string shape, fit, svg;
  int64_t sequence = 0;
  bool compare = false, json = false;
  const CLI::Option *tokens = nullptr, *max_length = nullptr;  // whether they were given
};

// What is printed, as it comes together.
struct Answer {
  nlohmann::ordered_json json;
  std::string text;
  std::vector<train::PlanColumn> columns;  // of the chart
  uint64_t chart_limit = 0;
  std::string refusal;  // what ends the run after all is printed; empty: nothing
};

train::PlanModel ModelOf(const PlanCommand& command) {
  const bool model = !command.flags.model.model.empty(), shape = !command.shape.empty();
  if (model == shape) {
    throw Error(ExitCode::kUsage,
                fmt::format("rung plan: {}: give one of them, a model at hand or one of {}",
                            model ? "both --model and --shape" : "neither --model nor --shape",
                            fmt::join(model::ShapeNames(), ", ")));
  }
  if (model) return train::PlanModel::Open(command.flags.model.model).OrThrow();
  Result<model::Config> config = model::ShapeOf(command.shape);
  if (!config.ok()) throw Error(config.failure().code, "--shape " + config.failure().message);
  return train::PlanModel(config.value());
}

std::string NameOf(const PlanCommand& command, const train::PlanModel& model) {
  return command.shape.empty() ? Path(command.flags.model.model).filename().string() : model.config().name;
}

// What --tap-cache would take of the disk.
void AddTapCache(const train::PlannedRun& run, Answer* answer) {
  if (!run.spec.ladder) return;
  answer->json["tap_cache"] = {{"bytes_per_token", run.cache_row_bytes},
                               {"bytes_per_learned_token", run.cache_target_bytes}};
  answer->text += fmt::format("tap cache: {} bytes a token of data", run.cache_row_bytes);
  answer->text +=
      run.cache_target_bytes > 0 ? fmt::format(", {} more if it is learned\n", run.cache_target_bytes) : "\n";
}

void AddThePlan(const train::PlannedRun& run, const train::TrainOptions& options, int64_t sequence,
                const model::Config& config, Answer* answer) {
  const uint64_t limit = options.memory_limit, available = AvailableMemory();
  const uint64_t bound = limit > 0 ? limit : available;
  const auto or_null = [](uint64_t bytes) { return bytes > 0 ? nlohmann::ordered_json(bytes) : nullptr; };
  answer->json.update(PlanJson(run.memory));
  answer->json["tokens"] = options.tokens;
  answer->json["sequence"] = sequence;
  answer->json["parameters"] = run.parameters;
  answer->json["available_bytes"] = or_null(available);
  answer->json["limit_bytes"] = or_null(limit);
  answer->json["fits"] = bound > 0 ? nlohmann::ordered_json(run.memory.total() <= bound) : nullptr;
  answer->text += fmt::format("{}{}\n", PlanTable(run.memory, available, limit),
                              Describe(run.spec, config, run.parameters));
  AddTapCache(run, answer);
  answer->columns = {train::ColumnOf(train::NameOf(options.method), run.memory)};
  answer->chart_limit = options.memory_limit;
  if (options.memory_limit > 0 && run.memory.total() > limit) {
    answer->refusal = run.memory.Refusal(limit, "--memory-limit");
  }
}

train::FitRequest RequestOf(const PlanCommand& command, const train::TrainOptions& options,
                            const model::Config& config) {
  train::FitRequest request;
  request.limit = SizeOf(command.fit, "--fit");
  const int64_t length = command.flags.options.max_length;
  request.longest =
      command.max_length->count() > 0 ? WithinContext(length, length, config.context) : config.context;
  request.tokens = options.tokens;
  request.max_length = std::min(command.flags.options.max_length, request.longest);
  request.tokens_given = command.tokens->count() > 0;
  request.max_length_given = command.max_length->count() > 0;
  const model::MemoryPolicy& policy = options.policy;
  request.fixed =
      policy.rungs == model::RungMemory::kRecompute || policy.blocks == model::BlockMemory::kRecompute ||
      policy.taps == model::TapStorage::kInt8 || options.optimizer.moments == train::Moments::k8Bit ||
      options.backbone.recipe.embeddings != model::Quantize::kNone;
  return request;
}

// The fit of the method, and its plan there.
void AddFit(const train::PlanModel& model, const train::TrainOptions& options,
            const train::FitRequest& request, Answer* answer) {
  const train::MethodFit method = train::FitPolicies(model, options, request);
  train::TrainOptions at = options;
  const train::Fit& fit = method.best().Proposed(request);
  at.tokens = fit.tokens > 0 ? fit.tokens : train::kFitStep;
  at.memory_limit = request.limit;
  AddThePlan(fit.run, at, fit.sequence, model.config(), answer);
  answer->json["fit"] = FitJson({method}, request);
  answer->text = FitTable({method}, request) + FitAdvice(method, request) + "\n" + answer->text;
  answer->refusal = method.fits() ? "" : fit.run.memory.Refusal(request.limit, "--fit");
}

// Of the least that any method needs; empty where one fits.
std::string RefusalOf(const std::vector<train::MethodFit>& methods, const train::FitRequest& request) {
  const train::MemoryPlan* least = nullptr;
  for (const train::MethodFit& method : methods) {
    if (method.fits()) return "";
    const train::MemoryPlan& plan = method.best().Proposed(request).run.memory;
    if (!least || plan.total() < least->total()) least = &plan;
  }
  return least->Refusal(request.limit, "--fit");
}

// All methods; the plan of the one that was asked for is theirs too.
void AddComparison(const train::PlanModel& model, const train::TrainOptions& options, int64_t sequence,
                   Answer* answer) {
  const train::Comparison comparison = train::Compare(model, options, sequence);
  AddThePlan(comparison.Of(options).run, options, sequence, model.config(), answer);
  answer->json["compare"] = CompareJson(comparison);
  answer->text = CompareTable(comparison);
  answer->columns = comparison.columns;
}

Answer Ask(const PlanCommand& command, const train::PlanModel& model, const train::TrainOptions& options,
           int64_t sequence) {
  std::optional<train::FitRequest> request;
  if (!command.fit.empty()) request = RequestOf(command, options, model.config());
  Answer answer;
  answer.json = {{"model", NameOf(command, model)}, {"method", train::NameOf(options.method)}};
  if (request && !command.compare) {
    AddFit(model, options, *request, &answer);
    return answer;
  }
  if (command.compare) {
    train::TrainOptions limited = options;
    if (request) limited.memory_limit = request->limit;
    AddComparison(model, limited, sequence, &answer);
  } else {
    AddThePlan(train::PlanRun(model, options, sequence).OrThrow(), options, sequence, model.config(),
               &answer);
  }
  if (request) {
    const std::vector<train::MethodFit> methods = train::FitMethods(model, options, *request);
    answer.json["fit"] = FitJson(methods, *request);
    answer.text += "\n" + FitTable(methods, *request);
    answer.refusal = RefusalOf(methods, *request);
  }
  return answer;
}

void RunPlan(const PlanCommand& command) {
  train::TrainOptions options = Resolve(command.flags);
  const train::PlanModel model = ModelOf(command);
  LimitToContext(command.flags, model.config(), &options);
  const int64_t sequence = command.sequence > 0 ? command.sequence : options.max_length;
  if (sequence > options.max_length) {
    throw Error(ExitCode::kUsage,
                fmt::format("--sequence {}: longer than --max-length {}", sequence, options.max_length));
  }
  const Answer answer = Ask(command, model, options, sequence);
  // Before anything is printed: whoever reads an object may rely on the drawing.
  if (!command.svg.empty()) {
    const std::string title =
        fmt::format("{}: {} tokens in sequences of {}, compute {}", NameOf(command, model),
                    answer.json["tokens"].get<int64_t>(), answer.json["sequence"].get<int64_t>(),
                    NameOfArithmetic(options.compute));
    WriteTextFile(command.svg, PlanChart(answer.columns, title, answer.chart_limit)).OrThrow();
  }
  if (command.json) {
    PrintJson(answer.json);
  } else {
    fmt::print("{}", answer.text);
  }
  if (!answer.refusal.empty()) throw Error(ExitCode::kNoMemory, answer.refusal);
}

}  // namespace

Action AddPlan(CLI::App& app) {
  auto command = std::make_shared<PlanCommand>();
  AddModelFlags(app, &command->flags.model);
  app.get_option("--model")->description("a .gguf file, a folder, or a config.json alone")->required(false);
  app.add_option("--shape", command->shape,
                 fmt::format("a known model, without its weights: {}", fmt::join(model::ShapeNames(), ", ")));
  app.add_option("--config", command->flags.config, "a YAML file with these options; flags win");
  AddMethodFlags(app, &command->flags);
  AddBatchFlags(app, &command->flags);
  AddComputeFlags(app, &command->flags.compute);
  command->tokens = app.get_option("--tokens");
  command->max_length = app.get_option("--max-length");
  CLI::Option* sequence =
      app.add_option("--sequence", command->sequence, "tokens of one sequence; default --max-length")
          ->check(CLI::NonNegativeNumber);
  app.add_flag("--compare", command->compare, "ladder, xladder and lora side by side, and closed formulas");
  app.add_option(
         "--fit", command->fit,
         "a size such as 12GiB: the largest --tokens in it, and the cheapest policies that take --tokens")
      ->excludes(sequence)
      ->excludes(app.get_option("--memory-limit"));
  app.add_option("--svg", command->svg, "draw the plan into this file");
  app.add_flag("--json", command->json, "print one JSON object");
  return [command] {
    command->flags.every_method = command->compare;
    RunPlan(*command);
  };
}

}  // namespace rung::cli
