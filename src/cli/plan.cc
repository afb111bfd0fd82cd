#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "cli/plan_compare.h"
#include "cli/plan_fit.h"
#include "cli/train_flags.h"
#include "model/shapes.h"

namespace rung::cli {
namespace {

struct PlanCommand {
  TrainFlags flags;
  std::string shape, fit, svg;
  int64_t sequence = 0;
  bool compare = false, json = false;
  const CLI::Option* max_length = nullptr;  // whether it was given
};

// What is printed, as it comes together.
struct Answer {
  nlohmann::ordered_json json;
  std::string text;
  std::vector<PlanColumn> columns;  // of the chart
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

void AddThePlan(const train::PlannedRun& run, const train::TrainOptions& options, int64_t sequence,
                const model::Config& config, Answer* answer) {
  const uint64_t limit = options.memory_limit > 0 ? options.memory_limit : train::AvailableMemory();
  answer->json.update(PlanJson(run.memory));
  answer->json["tokens"] = options.tokens;
  answer->json["sequence"] = sequence;
  answer->json["parameters"] = run.parameters;
  answer->json["available_bytes"] = limit;
  answer->json["fits"] = run.memory.total() <= limit;
  answer->text +=
      fmt::format("{}{}\n", PlanTable(run.memory, limit), Describe(run.spec, config, run.parameters));
  answer->columns = {ColumnOf(train::NameOf(options.method), run.memory)};
  answer->chart_limit = options.memory_limit;
  if (options.memory_limit > 0 && run.memory.total() > limit) {
    answer->refusal = run.memory.Refusal(limit, "--memory-limit");
  }
}

FitRequest RequestOf(const PlanCommand& command, const train::TrainOptions& options,
                     const model::Config& config) {
  const int64_t limit = ParseBytes(command.fit);
  if (limit <= 0) {
    throw Error(ExitCode::kUsage, fmt::format("--fit {}: not a size; write 12GiB or 800MB", command.fit));
  }
  FitRequest request;
  request.limit = static_cast<uint64_t>(limit);
  // A model with a window is not run beyond it.
  const int64_t context = config.window > 0 ? std::min(config.window, config.context) : config.context;
  request.longest = command.max_length->count() > 0 ? command.flags.options.max_length : context;
  if (request.longest > config.context) {
    throw Error(ExitCode::kUsage, fmt::format("--max-length {}: the model was made for {} tokens",
                                              request.longest, config.context));
  }
  request.wanted = options.tokens;
  const model::MemoryPolicy& policy = options.policy;
  request.fixed = policy.rungs == model::RungMemory::kRecompute ||
                  policy.blocks == model::BlockMemory::kRecompute ||
                  policy.taps == model::TapStorage::kInt8 ||
                  options.optimizer.moments == train::Moments::k8Bit || options.backbone.quantize_embeddings;
  return request;
}

std::string Advice(const MethodFit& method, const FitRequest& request) {
  if (!method.fits()) return "";
  return fmt::format("{}; add to the command:\n  {}\n",
                     method.best().fit.tokens >= request.wanted
                         ? fmt::format("the cheapest that takes --tokens {}", request.wanted)
                         : fmt::format("nothing takes --tokens {}, this takes the most", request.wanted),
                     FitFlags(method.best()));
}

// The fit of the method, and its plan there.
void AddFit(const train::PlanModel& model, const train::TrainOptions& options, const FitRequest& request,
            Answer* answer) {
  const MethodFit method = FitPolicies(model, options, request);
  train::TrainOptions at = options;
  at.tokens = method.fits() ? method.best().fit.tokens : train::kFitStep;
  at.memory_limit = request.limit;
  AddThePlan(method.best().fit.run, at, method.best().fit.sequence, model.config(), answer);
  answer->json["fit"] = FitJson({method}, request);
  answer->text = FitTable({method}, request) + Advice(method, request) + "\n" + answer->text;
  answer->refusal = method.fits() ? "" : method.best().fit.run.memory.Refusal(request.limit, "--fit");
}

// All methods; the plan of the one that was asked for is theirs too.
void AddComparison(const train::PlanModel& model, const train::TrainOptions& options, int64_t sequence,
                   Answer* answer) {
  const Comparison comparison = Compare(model, options, sequence);
  AddThePlan(comparison.Of(options).run, options, sequence, model.config(), answer);
  answer->json["compare"] = CompareJson(comparison);
  answer->text = CompareTable(comparison);
  answer->columns = comparison.columns;
}

Answer Ask(const PlanCommand& command, const train::PlanModel& model, const train::TrainOptions& options,
           int64_t sequence) {
  std::optional<FitRequest> request;
  if (!command.fit.empty()) request = RequestOf(command, options, model.config());
  Answer answer;
  answer.json = {{"model", NameOf(command, model)}, {"method", train::NameOf(options.method)}};
  if (request && !command.compare) {
    AddFit(model, options, *request, &answer);
    return answer;
  }
  if (command.compare) {
    AddComparison(model, options, sequence, &answer);
  } else {
    AddThePlan(train::PlanRun(model, options, sequence).OrThrow(), options, sequence, model.config(),
               &answer);
  }
  if (request) {
    const std::vector<MethodFit> methods = FitMethods(model, options, *request);
    answer.json["fit"] = FitJson(methods, *request);
    answer.text += "\n" + FitTable(methods, *request);
    answer.chart_limit = request->limit;
  }
  return answer;
}

void RunPlan(const PlanCommand& command) {
  const train::TrainOptions options = Resolve(command.flags);
  const train::PlanModel model = ModelOf(command);
  const int64_t sequence = command.sequence > 0 ? command.sequence : options.max_length;
  if (sequence > options.max_length) {
    throw Error(ExitCode::kUsage,
                fmt::format("--sequence {}: longer than --max-length {}", sequence, options.max_length));
  }
  const Answer answer = Ask(command, model, options, sequence);
  if (command.json) {
    fmt::print("{}\n", answer.json.dump(2));
  } else {
    fmt::print("{}", answer.text);
  }
  if (!command.svg.empty()) {
    const std::string title =
        fmt::format("{}: {} tokens in sequences of {}, compute {}", NameOf(command, model),
                    answer.json["tokens"].get<int64_t>(), answer.json["sequence"].get<int64_t>(),
                    NameOf(options.compute.compute));
    WriteTextFile(command.svg, PlanChart(answer.columns, title, answer.chart_limit)).OrThrow();
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
  command->max_length = app.get_option("--max-length");
  CLI::Option* sequence =
      app.add_option("--sequence", command->sequence, "tokens of one sequence; default --max-length")
          ->check(CLI::NonNegativeNumber);
  app.add_flag("--compare", command->compare,
               "ladder, xladder and lora side by side, and the closed formula for QLoRA");
  app.add_option(
         "--fit", command->fit,
         "a size such as 12GiB: the largest --tokens in it, and the cheapest policies that take --tokens")
      ->excludes(sequence)
      ->excludes(app.get_option("--memory-limit"));
  app.add_option("--svg", command->svg, "draw the plan into this file");
  app.add_flag("--json", command->json, "print one JSON object");
  return [command] { RunPlan(*command); };
}

}  // namespace rung::cli
