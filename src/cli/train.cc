#include <fmt/format.h>

#include <memory>

#include "base/memory.h"
#include "base/text.h"
#include "cli/load_model.h"
#include "cli/option_info.h"
#include "cli/progress.h"
#include "cli/resolved_options.h"
#include "cli/run_record.h"
#include "cli/samples_text.h"
#include "cli/say.h"
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
      ->check(CLI::IsMember(NamesIn(train::kScheduleNames)));
  CLI::Option* ratio = app.add_option("--warmup-ratio", o.warmup_ratio, "share of the steps")
                           ->capture_default_str()
                           ->check(CLI::Range(0.0, 1.0));
  app.add_option("--warmup-steps", o.warmup_steps, "steps of warm-up, instead of a share")
      ->check(CLI::Range(0, 1 << 30))
      ->excludes(ratio);
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
  AddEvaluationFlags(app, flags);
  app.add_option("--save-steps", o.save_steps, "checkpoint every so many steps; 0: by --save-minutes alone")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--save-minutes", o.save_minutes,
                 "checkpoint when the last one is so many minutes old; 0: by --save-steps alone")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--save-limit", o.save_limit, "newest checkpoints kept")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
  app.add_flag("--resume", o.resume,
               "go on from the newest checkpoint in --out; one that is damaged is passed over");
  app.add_flag("--resume-force", o.resume_force,
               "--resume though settings, model or data are others than the checkpoint's");
  app.add_option(
      "--tap-cache", flags->tap_cache,
      "folder for the taps of every example: from the second epoch on the frozen model is not run");
  app.add_option("--tap-cache-limit", flags->tap_cache_limit,
                 "disk for the caches in that folder: others than this run's go, the oldest first")
      ->type_name(kSizeType)
      ->capture_default_str();
  AddTemplateFlags(app, &flags->templates);
  app.add_flag("--train-on-prompt", o.train_on_prompt, "learn the prompt's tokens too");
}

// What there is to do about a run that is finished.
std::string DescribeFinished(const train::FinishedRun& run, const train::TrainOptions& options) {
  const std::string out = options.out.string();
  const std::string steps = run.total_steps == 0 ? "its record is lost"
                            : run.steps < run.total_steps
                                ? fmt::format("ended early, after {} of {} steps", run.steps, run.total_steps)
                                : fmt::format("{} steps", run.steps);
  const std::string more =
      run.total_steps == 0 || !train::HasCheckpoint(options.out) ? "choose another --out"
      : run.EndedEarly()
          ? "give more --early-stopping-patience, or 0, with --resume-force, which goes on from the newest "
            "checkpoint; with more steps alone it ends early again"
          : "give more --epochs or --max-steps with --resume-force, which goes on from the newest checkpoint";
  return fmt::format(
      "finished: {} holds the adapter of a whole run ({}); nothing is left to do\nto train longer, {}\n", out,
      steps, more);
}

void Report(const train::RunResult& result, const TrainFlags& flags, const train::TrainOptions& options) {
  if (result.interrupted) {
    throw Error(ExitCode::kInterrupted,
                fmt::format("interrupted {}. Go on with:\n  {}{}",
                            result.steps > 0 ? fmt::format("at step {}: saved", result.steps)
                                             : "before the first step was whole: nothing to save",
                            CommandLine(), options.resume ? "" : " --resume"));
  }
  if (result.finished_before) {
    return Say("{}", DescribeFinished(*result.finished_before, options));
  }
  Say("done: {} steps in {:.1f} s, memory {} (planned {}), adapter in {}\n", result.steps, result.seconds,
      FormatBytes(result.resident_peak), FormatBytes(result.planned_bytes), options.out.string());
  if (result.skipped_steps > 0) Say("{} steps were skipped: not finite\n", result.skipped_steps);
  Say("next:\n  rung eval --model {0} --adapter {1} --data test.jsonl\n  rung generate --model {0} "
      "--adapter {1} --prompt \"...\"\n",
      flags.model.model, options.out.string());
}

// Standard output: what the run would do.
void Preview(const train::RunPreview& run, const train::TrainOptions& options) {
  const std::string out = options.out.string();
  if (run.finished_before) {
    fmt::print("{}", DescribeFinished(*run.finished_before, options));
    return;
  }
  fmt::print(
      "{} examples, {} held out; {} steps, {} passes over the data\n", run.examples, run.eval_examples,
      run.begin.steps,
      options.max_steps > 0 ? fmt::format("at most {}", run.epochs) : fmt::format("{}", options.epochs));
  fmt::print("learning rate {:.6g}, {}, after {} steps of warm-up\n", run.begin.learning_rate,
             train::NameOf(options.schedule), run.begin.warmup_steps);
  fmt::print("memory {} planned\n", FormatBytes(run.planned_bytes));
  if (run.begin.resume.step > 0) {
    fmt::print("would go on after step {} of {}, in {}\n", run.begin.resume.step, run.begin.steps, out);
  } else {
    fmt::print("would begin in {}\n", out);
  }
}

void RunTrain(const TrainFlags& flags, CLI::App& app) {
  train::TrainOptions options = Resolve(flags);
  options.resume = options.resume || options.resume_force;
  const model::Config config = model::ReadConfig(options.model).OrThrow();
  LimitToContext(flags, config, &options);
  WarnOfConfig(flags.model.model);
  Progress progress(ParseProgress(flags.progress));
  train::RunEvents events;
  events.on_plan = [&](const train::MemoryPlan& plan, const model::AdapterSpec& spec, const model::Config&) {
    const int64_t parameters = model::Adapter::Planned(config, spec, options.max_length).parameter_count();
    progress.Note(
        fmt::format("{}{}; {} tokens a step", PlanTable(plan, AvailableMemory(), options.memory_limit),
                    Describe(spec, config, parameters), options.tokens * options.gradient_accumulation));
  };
  events.on_step = [&](const train::StepReport& step) { progress.Step(step); };
  events.on_eval = [&](const train::EvalReport& eval) { progress.Eval(eval); };
  events.on_samples = [&](const std::vector<train::Sample>& samples) { progress.Note(SamplesText(samples)); };
  events.on_note = [&](const std::string& line) { progress.Note(line); };
  events.on_encoding = [&](uint64_t done, uint64_t total) { progress.Encoding(done, total); };
  events.on_begin = [&](const train::RunBegin& begin) {
    Status written = WriteRunRecord(ResolveOptions(app, options, &config), options, config, begin);
    if (!written.ok()) progress.Note(fmt::format("run.json not written: {}", written.failure().message));
  };
  if (flags.dry_run) return Preview(train::PreviewTraining(options, events), options);
  CatchSignals();
  OutliveReaders();
  const train::RunResult result = train::RunTraining(options, events, InterruptFlag());
  progress.Note("");
  Report(result, flags, options);
}

}  // namespace

void AddTrainFlags(CLI::App& app, TrainFlags* flags) {
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
  AddProgressFlag(app, &flags->progress);
  app.add_flag("--dry-run", flags->dry_run,
               "read the data, plan, look for disk and checkpoints, say what would happen, and write nothing "
               "to --out");
}

Action AddTrain(CLI::App& app) {
  auto flags = std::make_shared<TrainFlags>();
  AddTrainFlags(app, flags.get());
  return [flags, &app] { RunTrain(*flags, app); };
}

}  // namespace rung::cli
