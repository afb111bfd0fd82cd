#include "cli/resolved_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "base/text.h"

namespace rung::cli {
namespace {

// What the model's shape decides where nothing is said.
constexpr std::string_view kOfTheModel[] = {"learning_rate", "taps",   "delta",  "rungs", "width",
                                            "side_heads",    "rejoin", "lora_r", "layers"};

nlohmann::ordered_json GivenValue(const OptionInfo& info) {
  const std::vector<std::string>& results = info.option->results();
  if (!info.repeats) return results.empty() ? TypedValue(info, "true") : TypedValue(info, results.back());
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const std::string& text : results) list.push_back(text);
  return results.size() == 1 ? list[0] : list;
}

ResolvedOption ResolveOne(const OptionInfo& info, const ConfigOrigins* origins) {
  ResolvedOption one;
  one.info = info;
  one.value = info.default_value;
  if (info.option->count() > 0) {
    one.value = GivenValue(info);
    one.origin = Origin::kFlag;
  }
  if (origins) {
    if (const auto found = origins->find(info.key); found != origins->end()) {
      one.origin = Origin::kFile;
      one.place = found->second;
    }
  }
  return one;
}

// An option that cannot stand beside this one is given.
std::string UnusedBeside(const OptionInfo& info) {
  for (const CLI::Option* other : info.option->get_excludes()) {
    if (other->count() > 0) return fmt::format("{} is given", InfoOf(*other).flag);
  }
  return "";
}

void SetFromModel(std::vector<ResolvedOption>* all, std::string_view key, nlohmann::ordered_json value) {
  for (ResolvedOption& one : *all) {
    if (one.info.key != key || one.origin != Origin::kDefault) continue;
    one.value = std::move(value);
    one.origin = Origin::kModel;
    return;
  }
}

void FillFromModel(const train::TrainOptions& options, const model::Config& config,
                   std::vector<ResolvedOption>* all) {
  const auto set = [&](std::string_view key, nlohmann::ordered_json value) {
    SetFromModel(all, key, std::move(value));
  };
  const model::AdapterSpec spec = train::ResolveAdapter(options, config).OrThrow();
  set("learning_rate", train::ResolveLearningRate(options, spec, config));
  if (options.max_length == config.context) set("max_length", options.max_length);
  if (spec.ladder) {
    const model::LadderSpec& ladder = *spec.ladder;
    if (options.method == train::Method::kXladder) {
      set("delta", ladder.taps.size());
    } else {
      set("taps", fmt::format("{}", fmt::join(ladder.taps, ",")));
    }
    set("rungs", ladder.rungs);
    set("width", ladder.S);
    set("rejoin", ladder.rejoin);
    const bool heads_follow =
        ladder.kind == model::RungKind::kPlain || options.ladder.init != train::LadderInit::kRandom;
    if (!heads_follow) set("side_heads", ladder.S / ladder.head_dim);
  }
  if (spec.lora) {
    set("lora_r", spec.lora->R);
    set("layers", fmt::format("{}", fmt::join(spec.lora->layers, ",")));
  }
}

// Text that YAML reads as that text, without quotes.
bool IsPlain(const std::string& text) {
  constexpr std::string_view kFirst = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/";
  constexpr std::string_view kLater = "0123456789_-./:=+";
  constexpr std::string_view kWords[] = {"true", "false", "yes", "no", "on", "off", "null", "y", "n"};
  const std::string lowered = Lowered(text);
  return !text.empty() && kFirst.find(text[0]) != kFirst.npos && !text.ends_with(':') &&
         std::all_of(
             text.begin(), text.end(),
             [&](char c) { return kFirst.find(c) != kFirst.npos || kLater.find(c) != kLater.npos; }) &&
         std::find(std::begin(kWords), std::end(kWords), lowered) == std::end(kWords);
}

std::string Dump(const nlohmann::ordered_json& value) {
  return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::string YamlOf(const nlohmann::ordered_json& value) {
  if (value.is_null()) return "";
  if (value.is_string() && IsPlain(value.get<std::string>())) return value.get<std::string>();
  return Dump(value);  // JSON is YAML
}

std::string OriginOf(const ResolvedOption& one) {
  switch (one.origin) {
    case Origin::kFile:
      return fmt::format("{}:{}", one.place.file, one.place.line);
    case Origin::kFlag:
      return "flag";
    case Origin::kModel:
      return one.value.is_null() ? "the model decides" : "model";
    case Origin::kDefault:
      break;
  }
  return one.value.is_null() ? "not set" : "default";
}

}  // namespace

std::vector<ResolvedOption> ResolveOptions(CLI::App& app, const train::TrainOptions& options,
                                           const model::Config* config) {
  const auto* configured = dynamic_cast<const ConfiguredApp*>(&app);
  std::vector<ResolvedOption> all;
  for (const OptionInfo& info : OptionsOf(app)) {
    all.push_back(ResolveOne(info, configured ? &configured->origins : nullptr));
  }
  for (ResolvedOption& one : all) {
    if (one.info.key == "max_length" && one.origin == Origin::kDefault) one.value = options.max_length;
  }
  if (config) {
    FillFromModel(options, *config, &all);
  } else {
    for (const std::string_view key : kOfTheModel) SetFromModel(&all, key, nullptr);
  }
  for (ResolvedOption& one : all) one.unused = UnusedBeside(one.info);
  for (const UnusedOption& unused : UnusedOptions(options)) {
    for (ResolvedOption& one : all) {
      if (one.info.flag == unused.flag) one.unused = unused.why;
    }
  }
  return all;
}

std::string OptionsYaml(const std::vector<ResolvedOption>& all) {
  std::string text;
  for (const ResolvedOption& one : all) {
    const bool given = one.origin == Origin::kFile || one.origin == Origin::kFlag;
    const std::string line = fmt::format("{}{}: {}", given ? "" : "# ", one.info.key, YamlOf(one.value));
    text +=
        fmt::format("{:<40}  # {}{}{}\n", line, OriginOf(one), one.unused.empty() ? "" : "; ", one.unused);
  }
  return text;
}

nlohmann::ordered_json OptionsJson(const std::vector<ResolvedOption>& all) {
  constexpr const char* kNames[] = {"default", "file", "flag", "model"};
  nlohmann::ordered_json options;
  for (const ResolvedOption& one : all) {
    nlohmann::ordered_json& json = options[one.info.key];
    json = {{"value", one.value}, {"origin", kNames[static_cast<size_t>(one.origin)]}};
    if (one.origin == Origin::kFile) {
      json["file"] = one.place.file;
      json["line"] = one.place.line;
    }
    if (!one.unused.empty()) json["unused"] = one.unused;
  }
  return options;
}

}  // namespace rung::cli
