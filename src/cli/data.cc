#include "cli/data.h"

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

void AddDataFlags(CLI::App& app, DataCommand* command, bool needs_model) {
  CLI::Option* model = app.add_option("--model", command->model,
                                      "a .gguf file or a folder, for its tokenizer and chat template");
  if (needs_model) model->required();
  app.add_option("--data", command->data,
                 "a file, or a folder with train, valid and test; several times for several")
      ->required()
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  AddReadFlags(app, &command->flags);
  app.add_option("--truncate", command->flags.truncate, "an example that is too long: left, drop, split")
      ->capture_default_str()
      ->check(CLI::IsMember({"left", "drop", "split"}));
  app.add_flag("--mask-history", command->flags.mask_history, "of several answers learn only the last");
  app.add_option("--max-length", command->max_length, "tokens of one example")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 22));
  app.add_flag("--train-on-prompt", command->train_on_prompt, "learn the prompt's tokens too");
  app.add_flag("--raw", command->raw, "no chat template");
  app.add_flag("--json", command->json, "print one JSON object");
}

model::ModelText LoadTextOf(const DataCommand& command) {
  const model::Config config = model::ReadConfig(command.model).OrThrow();
  return model::LoadText(command.model, command.raw, "", config.V).OrThrow();
}

data::Encoder EncoderOf(const DataCommand& command, const model::ModelText& text) {
  const train::DataOptions options = Resolve(command.flags);
  return data::Encoder(text.vocabulary(), {command.max_length, !command.train_on_prompt, options.mask_history,
                                           options.truncation});
}

Action AddData(CLI::App& app) { return AddVerbs(app, kDataVerbs); }

}  // namespace rung::cli
