#include "cli/config.h"

#include <fmt/format.h>

#include <memory>

#include "cli/print.h"
#include "cli/resolved_options.h"
#include "cli/train_flags.h"
#include "cli/version.h"

namespace rung::cli {
namespace {

constexpr Verb kConfigVerbs[] = {
    {"schema", "a JSON Schema of configuration files, for editors and checkers",
     "rung config schema > rung.schema.json", AddConfigSchema},
    {"show", "the options of a run: each value, and where it comes from",
     "rung config show --config run.yaml --epochs 2", AddConfigShow},
};

struct ShowCommand {
  TrainFlags flags;
  bool json = false;
};

void RunShow(CLI::App& app, const ShowCommand& command) {
  train::TrainOptions options = Resolve(command.flags);
  std::optional<model::Config> config;
  if (!options.model.empty()) {
    config = model::ReadConfig(options.model).OrThrow();
    LimitToContext(command.flags, *config, &options);
  }
  const std::vector<ResolvedOption> all = ResolveOptions(app, options, config ? &*config : nullptr);
  if (command.json) {
    PrintJson(OptionsJson(all));
  } else {
    fmt::print("{}", OptionsYaml(all));
  }
}

}  // namespace

Action AddConfigSchema(CLI::App& app) {
  (void)app;  // no options
  return [] {
    CLI::App train;
    TrainFlags flags;
    AddTrainFlags(train, &flags);
    PrintJson(ConfigSchema(train));
  };
}

Action AddConfigShow(CLI::App& app) {
  auto command = std::make_shared<ShowCommand>();
  AddTrainFlags(app, &command->flags);
  // What is asked may be an unfinished file.
  for (CLI::Option* option : app.get_options()) option->required(false);
  app.add_flag("--json", command->json, "print one JSON object");
  return [command, &app] { RunShow(app, *command); };
}

Action AddConfig(CLI::App& app) { return AddVerbs(app, kConfigVerbs); }

}  // namespace rung::cli
