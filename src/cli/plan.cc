#include <fmt/format.h>

#include <memory>
#include <nlohmann/json.hpp>

#include "cli/train_flags.h"

namespace rung::cli {
namespace {

struct PlanCommand {
  TrainFlags flags;
  int64_t sequence = 0;
  bool json = false;
};

void RunPlan(const PlanCommand& command) {
  const train::TrainOptions options = Resolve(command.flags);
  const model::Config config = model::ReadConfig(options.model).OrThrow();
  const model::LadderSpec spec = train::ResolveLadder(options, config).OrThrow();
  model::BackboneOptions backbone_options = options.backbone;
  backbone_options.positions = options.max_length;
  const model::Backbone backbone = model::Backbone::PlannedFrom(options.model, backbone_options).OrThrow();
  const model::Ladder ladder = model::Ladder::Planned(config, spec, options.max_length);
  const int64_t sequence = command.sequence > 0 ? command.sequence : options.max_length;
  const data::Batch batch = train::UniformBatch(options.tokens, sequence);
  const train::PlanInputs inputs{static_cast<uint64_t>(config.V) * 320, 0, true};
  const train::MemoryPlan plan =
      train::MakePlan(options.compute.context, options.compute.compute, backbone, ladder, batch, inputs);
  const uint64_t limit = options.memory_limit > 0 ? options.memory_limit : train::AvailableMemory();
  if (command.json) {
    nlohmann::ordered_json json = PlanJson(plan);
    json["tokens"] = options.tokens;
    json["sequence"] = sequence;
    json["parameters"] = ladder.parameter_count();
    json["available_bytes"] = limit;
    json["fits"] = plan.total() <= limit;
    fmt::print("{}\n", json.dump(2));
  } else {
    fmt::print("{}", PlanTable(plan, limit));
  }
  if (options.memory_limit > 0 && plan.total() > limit) {
    throw Error(ExitCode::kNoMemory, plan.Refusal(limit, "--memory-limit"));
  }
}

}  // namespace

Action AddPlan(CLI::App& app) {
  auto command = std::make_shared<PlanCommand>();
  AddModelFlags(app, &command->flags.model);
  app.get_option("--model")->description("a .gguf file, a folder, or a config.json alone");
  app.add_option("--config", command->flags.config, "a YAML file with these options; flags win");
  AddLadderFlags(app, &command->flags);
  AddBatchFlags(app, &command->flags);
  AddComputeFlags(app, &command->flags.compute);
  app.add_option("--sequence", command->sequence, "tokens of one sequence; default --max-length")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--json", command->json, "print one JSON object");
  return [command] { RunPlan(*command); };
}

}  // namespace rung::cli
