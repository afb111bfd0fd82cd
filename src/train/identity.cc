#include "train/identity.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <string_view>

#include "io/gguf.h"
#include "io/sha256.h"
#include "text/tokenizer.h"

namespace rung::train {
namespace {

// The largest that a file of a tokenizer may be.
constexpr uint64_t kTokenizerLimit = uint64_t{128} << 20;
void AddModel(const ModelHash& model, Settings* settings) {
  for (const ModelFile& file : model.files) {
    settings->emplace(file.name.empty() ? kModelFile : fmt::format("{} {}", kModelFile, file.name),
                      file.sha256);
  }
}

void AddLadder(const TrainOptions& options, const model::LadderSpec& l, Settings* settings) {
  const Settings more = {{"taps", fmt::format("{}", fmt::join(l.taps, ","))},
                         {"rungs", fmt::format("{}", l.rungs)},
                         {"rung_block", NameIn(model::kRungKindNames, l.kind)},
                         {"rung_norm", NameIn(model::kRungNormNames, l.norm)},
                         {"rung_positions", NameIn(model::kRungPositionNames, l.rotary)},
                         {"width", fmt::format("{}", l.S)},
                         {"side_heads", fmt::format("{}x{}", l.block().Hq, l.head_dim)},
                         {"gate", NameIn(model::kGateNames, l.gate)},
                         {"tap_norm", NameIn(model::kTapNormNames, l.tap_norm)},
                         {"tap_map", NameIn(model::kTapMapNames, l.tap_map)},
                         {"tap_storage", NameIn(model::kTapStorageNames, options.policy.taps)},
                         {"rejoin", fmt::format("{}", l.rejoin)},
                         {"output_scale", fmt::format("{}", options.ladder.output_scale)},
                         {"ladder_init", NameIn(kLadderInitNames, options.ladder.init)}};
  settings->insert(more.begin(), more.end());
  if (options.ladder.init == LadderInit::kFisher)
    settings->emplace("fisher_samples", fmt::format("{}", options.ladder.fisher_samples));
}

void AddLora(const model::LoraSpec& l, Settings* settings) {
  const Settings more = {{"lora_r", fmt::format("{}", l.R)},
                         {"lora_alpha", fmt::format("{}", l.alpha)},
                         {"lora_dropout", fmt::format("{}", l.dropout)},
                         {"rslora", fmt::format("{}", l.rank_stabilized)},
                         {"lora_targets", fmt::format("{}", fmt::join(l.targets, ","))},
                         {"layers", fmt::format("{}", fmt::join(l.layers, ","))}};
  settings->insert(more.begin(), more.end());
}

}  // namespace

std::string RunIdentity::text(const model::Config& config) const {
  return fmt::format("model={}:{}x{}x{} weights={} data={}", config.family, config.L, config.C, config.V,
                     model.sha256, data);
}

std::string DataIdentity(const EncodedData& data) { return data.examples.digest().substr(0, 16); }

std::string TextIdentity(const Path& model, const std::string& chat_template) {
  io::Sha256 sum;
  const auto add = [&](std::string_view part) { sum.Add(fmt::format("{}:", part.size())), sum.Add(part); };
  add(chat_template);
  std::error_code error;
  if (std::filesystem::is_directory(model, error)) {
    for (const char* name : text::Tokenizer::FolderFiles()) {
      if (!std::filesystem::exists(model / name, error)) continue;
      add(name);
      add(ReadTextFile(model / name, kTokenizerLimit).OrThrow());
    }
    return sum.Hex();
  }
  const io::Gguf file = io::Gguf::Open(model).OrThrow();
  const auto numbers = [&](const auto& list) {
    add({reinterpret_cast<const char*>(list.data()), list.size() * sizeof(list[0])});
  };
  for (const auto& [key, value] : file.metadata()) {
    if (!key.starts_with("tokenizer.")) continue;
    add(key);
    if (const std::string* text = file.GetString(key)) add(*text);
    if (const auto number = file.GetInt(key)) add(fmt::format("{}", *number));
    if (const auto* texts = file.GetStrings(key)) {
      for (const std::string& text : *texts) add(text);
    }
    if (const auto* list = file.GetInts(key)) numbers(*list);
    if (const auto* list = file.GetFloats(key)) numbers(*list);
  }
  return sum.Hex();
}

Settings RunSettings(const TrainOptions& options, const model::AdapterSpec& spec, const model::Config& config,
                     const RunIdentity& identity, const RunSchedule& schedule) {
  const auto text = [](const auto& value) { return fmt::format("{}", value); };
  const OptimizerOptions& optimizer = options.optimizer;
  Settings settings = {{"model", fmt::format("{}:{}x{}x{}", config.family, config.L, config.C, config.V)},
                       {"rope", config.rope.half ? "half" : "pairs"},
                       {"data", identity.data},
                       {"seed", text(options.seed)},
                       {"tokens", text(options.tokens)},
                       {"max_length", text(options.max_length)},
                       {"gradient_accumulation", text(options.gradient_accumulation)},
                       {"steps", text(schedule.steps)},
                       {"warmup_steps", text(schedule.warmup)},
                       {"lr_scheduler", NameOf(options.schedule)},
                       {"learning_rate", text(schedule.base_rate)},
                       {"betas", fmt::format("{},{}", optimizer.beta1, optimizer.beta2)},
                       {"weight_decay", text(optimizer.weight_decay)},
                       {"max_grad_norm", text(optimizer.max_grad_norm)},
                       {"optimizer", NameIn(kOptimizerNames, optimizer.moments)},
                       {"quantize", options.backbone.recipe.Key()},
                       {"compute", fmt::format("{}{}", NameOf(options.compute.compute),
                                               options.compute.context.int8 ? "+int8" : "")},
                       {"isa", cpu::NameOf(options.compute.context.isa)},
                       {"threads", text(options.compute.context.threads)},
                       {"method", NameOf(options.method)}};
  AddModel(identity.model, &settings);
  if (spec.ladder) AddLadder(options, *spec.ladder, &settings);
  if (spec.lora) AddLora(*spec.lora, &settings);
  return settings;
}

bool NeedsData(const std::string& setting, const TrainOptions& options) {
  if (setting == "steps" || setting == "warmup_steps") return options.max_steps == 0;
  return setting == "data" || setting == "load_best" || setting.starts_with("eval_");
}

std::vector<std::string> Differences(const Settings& then, const Settings& now) {
  std::set<std::string> keys;
  for (const auto& [key, value] : then) keys.insert(key);
  for (const auto& [key, value] : now) keys.insert(key);
  const auto in = [](const Settings& settings, const std::string& key) {
    const auto found = settings.find(key);
    return found == settings.end() ? std::string("none") : found->second;
  };
  std::vector<std::string> lines;
  for (const std::string& key : keys) {
    const std::string before = in(then, key), after = in(now, key);
    if (before != after) lines.push_back(fmt::format("{}: then {}, now {}", key, before, after));
  }
  return lines;
}

}  // namespace rung::train
