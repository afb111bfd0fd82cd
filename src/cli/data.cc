#include "cli/data.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace rung::cli {
namespace {

constexpr Verb kDataVerbs[] = {
    {"inspect", "a record as the model sees it: its text, its tokens, and which of them are learned",
     "rung data inspect --model smollm2.gguf --data examples/banking/train.jsonl --row 3", AddDataInspect},
    {"stats", "counts, lengths, the share that is learned, how full batches are",
     "rung data stats --model smollm2.gguf --data examples/banking/train.jsonl", AddDataStats},
    {"check", "every bad record, duplicates, empty answers, test records that stand in the training data",
     "rung data check --data examples/banking/train.jsonl --test-data examples/banking/test.jsonl",
     AddDataCheck},
};

}  // namespace

int DataCommand::thread_count() const {
  return Resolve(ComputeFlags{threads, "auto", "auto"}).context.threads;
}

void AddDataFlags(CLI::App& app, DataCommand* command, bool needs_model) {
  command->app = &app;
  CLI::Option* model = app.add_option("--model", command->model,
                                      "a .gguf file or a folder, for its tokenizer and chat template");
  if (needs_model) model->required();
  app.add_option("--adapter", command->adapter,
                 "folder of a trained adapter, for the template it was trained with")
      ->needs(model);
  app.add_option("--data", command->data,
                 "a file, or a folder with train, valid and test; several times for several")
      ->required()
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option(
      "--config", command->config,
      "a YAML file with the options of a training run; flags win, what is not of data is passed over");
  AddReadFlags(app, &command->flags);
  AddExampleFlags(app, &command->flags);
  app.add_option("--tokens", command->tokens, "tokens of a micro-batch; no example is longer than one more")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 22));
  app.add_option("--max-length", command->max_length,
                 "tokens of one example (default 512, or the model's context)")
      ->check(CLI::Range(2, 1 << 22));
  app.add_flag("--train-on-prompt", command->train_on_prompt, "learn the prompt's tokens too");
  AddTemplateFlags(app, &command->templates);
  AddThreadsFlag(app, &command->threads);
  app.add_flag("--json", command->json, "print one JSON object");
}

LoadedModel LoadTextOf(const DataCommand& command) {
  return LoadedModel::ReadText(command.model, command.adapter, command.templates);
}

data::Encoder EncoderOf(const DataCommand& command, const LoadedModel& model) {
  const train::DataOptions options = Resolve(command.flags);
  std::optional<int64_t> given;
  if (command.app->count("--max-length") > 0) given = command.max_length;
  const int64_t length =
      WithinContext(std::min(command.max_length, command.tokens + 1), given, model.context());
  return data::Encoder(model.text().vocabulary(), {length, !command.train_on_prompt, options.mask_history,
                                                   options.truncation, options.special_tokens});
}

Action AddData(CLI::App& app) { return AddVerbs(app, kDataVerbs); }

}  // namespace rung::cli
