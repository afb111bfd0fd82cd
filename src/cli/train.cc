#include <fmt/format.h>

#include <memory>

#include "base/text.h"
#include "cli/load_model.h"
#include "cli/progress.h"
#include "cli/train_flags.h"
#include "train/run.h"

namespace rung::cli {
namespace {

void AddLearningFlags(CLI::App& app, TrainFlags* flags) {
  train::TrainOptions& o = flags->options;
  app.add_option("--epochs", o.epochs, "passes over the data")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--max-steps", o.max_steps, "optimizer steps; 0: by epochs")->check(CLI::NonNegativeNumber);
  app.add_option("--learning-rate", o.learning_rate,
                 "peak rate; 0: ladder 3e-3 * sqrt(128 / width), lora 1e-3 * sqrt(576 / hidden size)")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--lr-scheduler", flags->schedule, "constant, linear, cosine")
      ->capture_default_str()
      ->check(CLI::IsMember({"constant", "linear", "cosine"}));
  app.add_option("--warmup-ratio", o.warmup_ratio, "share of the steps")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--weight-decay", o.optimizer.weight_decay, "AdamW's")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--max-grad-norm", o.optimizer.max_grad_norm, "clip; 0: none")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--gradient-accumulation", o.gradient_accumulation, "micro-batches of a step")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_option("--seed", o.seed, "of initialisation and data order")->capture_default_str();
  app.add_option("--eval-steps", o.eval_steps, "evaluate every so many steps; 0: at the end")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--save-steps", o.save_steps, "checkpoint every so many steps; 0: every ten minutes")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--save-limit", o.save_limit, "newest checkpoints kept")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_flag("--resume", o.resume, "go on from the newest checkpoint in --out");
  app.add_option(
      "--tap-cache", flags->tap_cache,
      "folder for the taps of every example: from the second epoch on the frozen model is not run");
  app.add_option("--tap-cache-limit", flags->tap_cache_limit, "refuse a tap cache that needs more disk")
      ->capture_default_str();
  app.add_flag("--raw", o.raw, "no chat template");
  app.add_flag("--train-on-prompt", o.train_on_prompt, "learn the prompt's tokens too");
}

struct TrainCommand {
  TrainFlags flags;
  std::string progress = "auto";
};

void Report(const train::RunResult& result, const TrainFlags& flags, const train::TrainOptions& options) {
  if (result.interrupted) {
    throw Error(
        ExitCode::kInterrupted,
        fmt::format("interrupted at step {}: saved. Go on with the same command and --resume", result.steps));
  }
  fmt::print(stderr, "done: {} steps in {:.1f} s, memory {} (planned {}), adapter in {}\n", result.steps,
             result.seconds, FormatBytes(result.resident_peak), FormatBytes(result.planned_bytes),
             options.out.string());
  if (result.skipped_steps > 0)
    fmt::print(stderr, "{} steps were skipped: not finite\n", result.skipped_steps);
  fmt::print(stderr,
             "next:\n  rung eval --model {0} --adapter {1} --data test.jsonl\n  rung generate --model {0} "
             "--adapter {1} --prompt \"...\"\n",
             flags.model.model, options.out.string());
}

void RunTrain(const TrainCommand& command) {
  train::TrainOptions options = Resolve(command.flags);
  LimitToContext(command.flags, model::ReadConfig(options.model).OrThrow(), &options);
  WarnOfConfig(command.flags.model.model);
  Progress progress(ParseProgress(command.progress));
  train::RunEvents events;
  events.on_plan = [&](const train::MemoryPlan& plan, const model::AdapterSpec& spec,
                       const model::Config& config) {
    const int64_t parameters = model::Adapter::Planned(config, spec, options.max_length).parameter_count();
    progress.Note(
        fmt::format("{}{}; {} tokens a step", PlanTable(plan, train::AvailableMemory(), options.memory_limit),
                    Describe(spec, config, parameters), options.tokens * options.gradient_accumulation));
  };
  events.on_step = [&](const train::StepReport& step) { progress.Step(step); };
  events.on_eval = [&](const train::EvalReport& eval) { progress.Eval(eval); };
  events.on_note = [&](const std::string& line) { progress.Note(line); };
  CatchSignals();
  const train::RunResult result = train::RunTraining(options, events, InterruptFlag());
  progress.Note("");
  Report(result, command.flags, options);
}

}  // namespace

Action AddTrain(CLI::App& app) {
  auto command = std::make_shared<TrainCommand>();
  TrainFlags* flags = &command->flags;
  AddModelFlags(app, &flags->model);
  app.add_option(
         "--data", flags->data,
         "training records: .jsonl, .json, .csv, .tsv, .txt (also .gz, .zst), or a folder with train and "
         "valid; several times for several files, FILE:2 to have one twice an epoch")
      ->required()
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("--eval-data", flags->eval_data, "held-out records, likewise")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  AddReadFlags(app, &flags->data_flags);
  AddExampleFlags(app, &flags->data_flags);
  app.add_option("--out", flags->out, "folder for the adapter, checkpoints and log")->required();
  app.add_option("--config", flags->config, "a YAML file with these options; flags win");
  AddMethodFlags(app, flags);
  AddBatchFlags(app, flags);
  AddLearningFlags(app, flags);
  AddComputeFlags(app, &flags->compute);
  app.add_option("--progress", command->progress, "auto, none, plain, bar")
      ->check(CLI::IsMember({"auto", "none", "plain", "bar"}));
  return [command] { RunTrain(*command); };
}

}  // namespace rung::cli
