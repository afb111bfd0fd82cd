#include "cli/train_flags.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "cli/choice.h"
#include "cli/option_info.h"

namespace rung::cli {

namespace {

constexpr const char* kAuto = "auto";

std::vector<std::string> WithAuto(std::vector<std::string> names) {
  names.insert(names.begin(), kAuto);
  return names;
}

std::string Replaced(std::string text, char from, char to) {
  std::replace(text.begin(), text.end(), from, to);
  return text;
}

// Flags have hyphens where files have underscores.
std::vector<std::string> GateFlagNames() {
  std::vector<std::string> names = NamesIn(model::kGateNames);
  for (std::string& name : names) name = Replaced(name, '_', '-');
  return names;
}

void AddLadderFlags(CLI::App& app, TrainFlags* flags) {
  train::LadderOptions& o = flags->options.ladder;
  const auto choice = [&](const char* name, std::string* value, const char* help,
                          const std::vector<std::string>& known) {
    app.add_option(name, *value, help)->check(CLI::IsMember(known));
  };
  app.add_option("--taps", o.taps,
                 "tapped layers: all, every:k, top:k or a list; default about five, evenly spaced")
      ->type_name(kListType);
  app.add_option("--delta", o.delta, "xladder: tapped top layers; default 5")->check(CLI::Range(0, 4096));
  app.add_option("--rungs", o.rungs, "blocks of the ladder; default one a tap (xladder: two), more are free")
      ->check(CLI::Range(0, 4096));
  app.add_option("--width", o.width,
                 "width of the ladder, or up to 1 a fraction of the model's; default hidden size / 4.5")
      ->check(CLI::Range(0.0, 65536.0));
  app.add_option("--side-heads", o.heads, "attention heads of a rung; default one for 32 channels")
      ->check(CLI::Range(0, 1024));
  choice("--rung-block", &flags->rung_block,
         "decoder (norms, positions, SwiGLU), or plain (one head, no norms or positions, ReLU)",
         NamesIn(model::kRungKindNames));
  choice("--rung-norm", &flags->rung_norm, "norms of rungs: auto (the model's own), rms, layer",
         WithAuto(NamesIn(model::kRungNormNames)));
  choice("--rung-positions", &flags->rung_positions,
         "positions in rungs: auto (rope where the model has it), rope, none",
         WithAuto(NamesIn(model::kRungPositionNames)));
  choice("--gate", &flags->gate, "how a tap joins the ladder: sum, interpolate, interpolate-vector",
         GateFlagNames());
  choice("--tap-norm", &flags->tap_norm, "normalisation of taps: standardize, rms, none",
         NamesIn(model::kTapNormNames));
  choice("--tap-map", &flags->tap_map,
         "full, or pooled: channels of a tap averaged down to the ladder's width",
         NamesIn(model::kTapMapNames));
  app.add_option("--rejoin", o.rejoin,
                 "layers below the top where the ladder's output joins the model; those above run with a "
                 "backward pass; default 4/15 of the layers; xladder and plain rungs 0")
      ->check(CLI::Range(0, 4096));
  app.add_option("--output-scale", o.output_scale, "factor of the scale that is measured from the model")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  choice("--ladder-init", &flags->ladder_init,
         "random, or the model's own most important weights: pruned (by magnitude), fisher",
         NamesIn(train::kLadderInitNames));
  app.add_option("--fisher-samples", o.fisher_samples, "examples that measure importance")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 20));
}

void AddLoraFlags(CLI::App& app, TrainFlags* flags) {
  train::LoraOptions& o = flags->options.lora;
  app.add_option("--lora-r", o.r,
                 "rank; default 64. Beside a ladder that rejoins: low-rank pairs above its joining point")
      ->check(CLI::Range(0, 65536));
  app.add_option("--lora-alpha", o.alpha, "the pairs are scaled by alpha / r")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--lora-dropout", o.dropout, "of the pairs' inputs")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 0.99));
  app.add_flag("--rslora", o.rank_stabilized, "scale by alpha / sqrt(r)");
  app.add_option("--lora-targets", o.targets, "all, or linear layers such as q_proj,v_proj")
      ->type_name(kListType)
      ->capture_default_str();
  app.add_option(
         "--layers", o.layers,
         "layers with low-rank pairs: all, top:k, every:k or a list; the backward pass ends at the lowest")
      ->type_name(kListType);
}

}  // namespace

void AddMethodFlags(CLI::App& app, TrainFlags* flags) {
  flags->app = &app;
  app.add_option("--method", flags->method, "what is trained: ladder, xladder, lora")
      ->capture_default_str()
      ->check(CLI::IsMember(NamesIn(train::kMethodNames)));
  AddLadderFlags(app, flags);
  AddLoraFlags(app, flags);
  app.add_flag("--recompute", flags->recompute,
               "keep only the inputs of layers that the backward pass crosses, and run them again");
  app.add_flag("--recompute-rungs", flags->recompute_rungs, "the same for the rungs of a ladder");
  app.add_option("--tap-storage", flags->tap_storage,
                 "taps until the backward pass: compute (the compute type), int8")
      ->check(CLI::IsMember(NamesIn(model::kTapStorageNames)));
  app.add_option("--optimizer", flags->optimizer, "adamw, or adamw8bit: moments in 8 bits")
      ->capture_default_str()
      ->check(CLI::IsMember(NamesIn(train::kOptimizerNames)));
}

void AddBatchFlags(CLI::App& app, TrainFlags* flags) {
  train::TrainOptions& o = flags->options;
  app.add_option("--tokens", o.tokens, "tokens of a micro-batch")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 22));
  app.add_option("--max-length", o.max_length,
                 "tokens of one example; longer ones are truncated (default 512, or the model's context)")
      ->check(CLI::Range(2, 1 << 22));
  app.add_option("--memory-limit", flags->memory_limit,
                 "refuse a plan above this, e.g. 8GiB; default: free memory")
      ->type_name(kSizeType);
}

namespace {

void ResolveMethod(const TrainFlags& flags, train::TrainOptions* options) {
  options->method = Chosen(train::kMethodNames, "--method", flags.method);
  train::LadderOptions& ladder = options->ladder;
  ladder.kind = Chosen(model::kRungKindNames, "--rung-block", flags.rung_block);
  if (flags.rung_norm != kAuto) ladder.norm = Chosen(model::kRungNormNames, "--rung-norm", flags.rung_norm);
  if (flags.rung_positions != kAuto) {
    ladder.rotary = Chosen(model::kRungPositionNames, "--rung-positions", flags.rung_positions);
  }
  ladder.gate = Chosen(model::kGateNames, "--gate", Replaced(flags.gate, '-', '_'));
  ladder.tap_norm = Chosen(model::kTapNormNames, "--tap-norm", flags.tap_norm);
  ladder.tap_map = Chosen(model::kTapMapNames, "--tap-map", flags.tap_map);
  ladder.init = Chosen(train::kLadderInitNames, "--ladder-init", flags.ladder_init);
  options->policy.rungs = flags.recompute_rungs ? model::RungMemory::kRecompute : model::RungMemory::kKeep;
  options->policy.blocks = flags.recompute ? model::BlockMemory::kRecompute : model::BlockMemory::kKeep;
  options->policy.taps = Chosen(model::kTapStorageNames, "--tap-storage", flags.tap_storage);
  options->optimizer.moments = Chosen(train::kOptimizerNames, "--optimizer", flags.optimizer);
  options->tap_cache = flags.tap_cache;
  options->tap_cache_limit = SizeOf(flags.tap_cache_limit, "--tap-cache-limit");
}

bool Given(const TrainFlags& flags, const char* name) {
  const CLI::Option* option = flags.app ? flags.app->get_option_no_throw(name) : nullptr;
  return option && option->count() > 0;
}

}  // namespace

std::vector<UnusedOption> UnusedOptions(const train::TrainOptions& o) {
  const bool ladder = o.method != train::Method::kLora, pairs = !ladder || o.lora.r > 0;
  const bool crosses = pairs || (o.ladder.rejoin ? *o.ladder.rejoin > 0 : train::RejoinsByDefault(o));
  const struct {
    std::vector<const char*> names;
    bool used;
    const char* why;
  } groups[] = {
      {{"--taps", "--delta", "--rungs", "--width", "--side-heads", "--rung-block", "--gate", "--tap-norm",
        "--tap-map", "--rung-norm", "--rung-positions", "--rejoin", "--output-scale", "--ladder-init",
        "--fisher-samples", "--tap-storage", "--recompute-rungs", "--tap-cache", "--tap-cache-limit"},
       ladder,
       "is of a ladder; --method lora has none"},
      {{"--lora-alpha", "--lora-dropout", "--rslora", "--lora-targets", "--layers"},
       pairs,
       "is of low-rank pairs: give --method lora, or --lora-r beside a ladder that rejoins"},
      {{"--recompute"},
       crosses,
       "is of layers that the backward pass crosses: give --method lora, or a ladder a --rejoin above 0"},
      {{"--fisher-samples"}, o.ladder.init == train::LadderInit::kFisher, "is of --ladder-init fisher"},
      {{"--tap-storage"},
       o.ladder.tap_map != model::TapMap::kPooled || o.policy.taps == model::TapStorage::kCompute,
       "has no use with --tap-map pooled, which keeps so little already"},
      {{"--tap-norm"},
       o.ladder.kind != model::RungKind::kPlain,
       "has no use with --rung-block plain, which takes its taps as they are"},
      {{"--tap-cache-limit"}, !o.tap_cache.empty(), "is of --tap-cache"},
      {{"--eval-steps", "--eval-metric", "--eval-limit", "--samples"},
       !o.eval_data.empty() || o.data_options.valid_fraction > 0.0,
       "is of held-out records: give --eval-data or --valid-fraction"},
      {{"--eval-slots"}, o.eval.metric == train::EvalMetric::kExactMatch, "is of --eval-metric exact_match"}};
  std::vector<UnusedOption> unused;
  for (const auto& group : groups) {
    for (const char* name : group.names) {
      if (!group.used) unused.push_back({name, group.why});
    }
  }
  return unused;
}

namespace {

// An option that changes nothing is a mistake of its user, or of ours: a comparison must not hang on it.
void RefuseUnused(const TrainFlags& flags, const train::TrainOptions& o) {
  for (const UnusedOption& unused : UnusedOptions(o)) {
    if (!Given(flags, unused.flag.c_str())) continue;
    throw Error(ExitCode::kUsage, fmt::format("{} {}", unused.flag, unused.why));
  }
  const bool ladder = o.method != train::Method::kLora;
  if (!ladder && Given(flags, "--lora-r") && o.lora.r == 0) {
    throw Error(ExitCode::kUsage, "--lora-r 0: a rank is 1 or more");
  }
  for (const char* name : {"--taps", "--lora-targets", "--layers", "--tap-cache"}) {
    if (Given(flags, name) && flags.app->get_option(name)->as<std::string>().empty()) {
      throw Error(ExitCode::kUsage, fmt::format("{} is empty: leave it out for its default", name));
    }
  }
}

void RequireNumbers(const train::TrainOptions& o) {
  const std::pair<const char*, double> numbers[] = {{"--width", o.ladder.width},
                                                    {"--output-scale", o.ladder.output_scale},
                                                    {"--lora-alpha", o.lora.alpha},
                                                    {"--lora-dropout", o.lora.dropout},
                                                    {"--learning-rate", o.learning_rate},
                                                    {"--epochs", o.epochs},
                                                    {"--warmup-ratio", o.warmup_ratio},
                                                    {"--weight-decay", o.optimizer.weight_decay},
                                                    {"--max-grad-norm", o.optimizer.max_grad_norm}};
  for (const auto& [name, value] : numbers) {
    if (!std::isfinite(value))
      throw Error(ExitCode::kUsage, fmt::format("{}: must be a finite number", name));
  }
}

// The files of --data and --eval-data. A folder of one data set brings its own held-out records.
void ResolveData(const TrainFlags& flags, train::TrainOptions* options) {
  options->data_options = Resolve(flags.data_flags);
  options->data = data::FindDataFiles(flags.data, data::Split::kTrain).OrThrow();
  options->eval_data = data::FindDataFiles(flags.eval_data, data::Split::kValid).OrThrow();
  if (options->data_options.valid_fraction > 0.0) {
    if (!options->eval_data.empty()) {
      throw Error(ExitCode::kUsage,
                  "--valid-fraction and --eval-data: held-out records come from one of them");
    }
    return;
  }
  const Path folder = flags.data.size() == 1 ? data::FolderOf(flags.data[0]) : Path();
  if (options->eval_data.empty() && !folder.empty()) {
    Path valid = data::FindInFolder(folder, data::Split::kValid).OrThrow();
    if (!valid.empty()) options->eval_data.push_back({std::move(valid)});
  }
}

}  // namespace

train::TrainOptions Resolve(const TrainFlags& flags) {
  train::TrainOptions options = flags.options;
  options.compute = Resolve(flags.compute);
  options.backbone = Resolve(flags.model, options.compute);
  options.model = flags.model.model;
  options.raw = flags.templates.raw;
  options.chat_template = ReadTemplate(flags.templates);
  ResolveData(flags, &options);
  options.out = flags.out;
  options.schedule = Chosen(train::kScheduleNames, "--lr-scheduler", flags.schedule);
  ResolveMethod(flags, &options);
  ResolveEvaluation(flags, &options);
  RequireNumbers(options);
  if (!flags.every_method) RefuseUnused(flags, options);
  options.max_length = std::min(options.max_length, options.tokens + 1);
  if (!flags.memory_limit.empty()) options.memory_limit = SizeOf(flags.memory_limit, "--memory-limit");
  return options;
}

void LimitToContext(const TrainFlags& flags, const model::Config& config, train::TrainOptions* options) {
  std::optional<int64_t> given;
  if (Given(flags, "--max-length")) given = flags.options.max_length;
  options->max_length = WithinContext(options->max_length, given, config.context);
}

std::string Describe(const model::AdapterSpec& spec, const model::Config& config, int64_t parameters) {
  std::string text = fmt::format("{} parameters", parameters);
  if (spec.ladder) {
    const model::LadderSpec& l = *spec.ladder;
    text += fmt::format("; ladder of {} rungs of width {}, taps after layers {}", l.rungs, l.S,
                        fmt::join(l.taps, ", "));
    if (l.rejoin > 0) text += fmt::format(", rejoins {} layers below the top", l.rejoin);
    const int64_t free = l.rungs - static_cast<int64_t>(l.taps.size());
    if (free > 0 && l.kind == model::RungKind::kDecoder) {
      const int64_t projection = l.S * (l.tap_map == model::TapMap::kPooled ? l.S : config.C);
      const int64_t gate = l.gate == model::Gate::kSum ? 0 : l.gate == model::Gate::kInterpolate ? 1 : l.S;
      text += fmt::format(", {} rungs free (with a tap for each: {} parameters)", free,
                          parameters + free * (projection + gate));
    }
    text += fmt::format("; longest path {} blocks (the model alone {})", l.longest_path(config.L), config.L);
  }
  if (spec.lora) {
    const model::LoraSpec& l = *spec.lora;
    text += fmt::format("; low-rank pairs of rank {} on {} of layers {} to {}", l.R,
                        fmt::join(l.targets, ","), l.layers.front(), l.layers.back());
  }
  return text;
}

std::string PlanTable(const train::MemoryPlan& plan, uint64_t available, uint64_t limit) {
  std::string table = "memory plan\n";
  for (const train::PlanItem& item : plan.items) {
    table += fmt::format("  {:<20} {:>11}   {}\n", item.name, FormatBytes(item.bytes), item.note);
  }
  table += fmt::format("  {:<20} {:>11}   ", "total", FormatBytes(plan.total()));
  table += limit > 0       ? fmt::format("of the limit of {}\n", FormatBytes(limit))
           : available > 0 ? fmt::format("of {} free\n", FormatBytes(available))
                           : "\n";
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
