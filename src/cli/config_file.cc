#include "cli/config_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <optional>
#include <set>

#include "base/files.h"
#include "cli/config_keys.h"
#include "cli/option_info.h"
#include "cli/verb.h"

namespace rung::cli {
namespace {

constexpr uint64_t kConfigLimit = uint64_t{1} << 20;

// The value of `--config FILE` or `--config=FILE`; empty when there is none.
std::string ConfigPath(const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--config" && i + 1 < arguments.size()) return arguments[i + 1];
    if (arguments[i].starts_with("--config=")) return arguments[i].substr(sizeof("--config=") - 1);
  }
  return "";
}

// The options of `rung train`, for a file that is read by another verb.
class TrainKeys {
 public:
  TrainKeys() : action_(AddTrain(app_)) {}
  const CLI::App& app() const { return app_; }

 private:
  CLI::App app_;
  Action action_;  // holds what they are bound to
};

// One key of a file.
struct Entry {
  std::string name, where;  // as it is written; "run.yaml:3"
  int line = 0;
};

class Merge {
 public:
  Merge(const CLI::App& verb, std::string path, std::vector<std::string>* arguments)
      : verb_(verb), path_(std::move(path)), line_(*arguments), arguments_(arguments) {
    const CLI::App* group = verb.get_parent();
    if (verb.get_name() == "plan" || (group && group->get_name() == "data")) train_.emplace();
  }

  Status Key(const std::string& name, int line, const YAML::Node& value) {
    const Entry entry{name, fmt::format("{}:{}", path_, line), line};
    const Meaning meaning = MeaningOf(verb_, name);
    if (!meaning.known()) return MayIgnore(name) ? Status(Ok{}) : Unknown(entry, value);
    if (!meaning.option && !value.IsScalar()) return Untranslatable(entry, std::string(meaning.alias->hint));
    Result<std::vector<std::string>> texts = Texts(entry, meaning, value);
    if (!texts.ok()) return texts.failure();
    std::vector<std::string> values;
    std::string key;
    for (const std::string& text : texts.value()) {
      Result<Setting> setting = Translate(meaning, name, text);
      if (!setting.ok() && !meaning.option) return Untranslatable(entry, setting.failure().message);
      if (!setting.ok()) return UsageFailure(fmt::format("{}: {}", entry.where, setting.failure().message));
      if (setting.value().key.empty()) return Ok{};
      key = setting.value().key;
      values.push_back(setting.value().value);
    }
    return Set(entry, key, std::move(values), meaning.alias && meaning.alias->tacit);
  }

  // Keys of the file that exclude each other.
  Status CheckExclusions() const {
    for (const auto& [key, given] : given_) {
      for (const CLI::Option* other : FindKey(verb_, key)->get_excludes()) {
        if (other->get_lnames().empty()) continue;
        const auto beside = given_.find(KeyOf(other->get_lnames().front()));
        if (beside == given_.end() || beside->second.line < given.line) continue;
        return UsageFailure(fmt::format("{}:{}: {} cannot stand beside {} of line {}: keep one of them",
                                        path_, beside->second.line, beside->first, key, given.line));
      }
    }
    return Ok{};
  }

  ConfigOrigins TakeOrigins() { return std::move(origins_); }

 private:
  struct Given {
    std::string name;
    std::vector<std::string> values;
    int line = 0;
  };

  // Every value that the option is to be given. `tacit`: see Alias.
  Status Set(const Entry& entry, const std::string& key, std::vector<std::string> values, bool tacit) {
    const CLI::Option& option = *FindKey(verb_, key);
    const auto [before, fresh] = given_.try_emplace(key, Given{entry.name, values, entry.line});
    if (!fresh) {
      // Two programs' names with one value are no contradiction.
      if (before->second.values == values && before->second.name != entry.name) return Ok{};
      return UsageFailure(
          fmt::format("{}: {} is set twice: {}line {} sets it too", entry.where, key,
                      entry.name == key ? "" : fmt::format("\"{}\" is a name of it, and ", entry.name),
                      before->second.line));
    }
    const std::string flag = FlagOf(key);
    if (LineDecides(option, flag)) return Ok{};
    if (tacit && values.size() == 1 && option.get_default_str() == values[0]) return Ok{};
    origins_[key] = {path_, entry.line};
    const bool is_switch = option.get_expected_max() == 0;
    for (const std::string& value : values) {
      if (!is_switch) {
        arguments_->push_back(fmt::format("{}={}", flag, value));
      } else if (value == "true") {
        arguments_->push_back(flag);
      }
    }
    return Ok{};
  }

  // A run is planned, and its data looked at, with the run's own file.
  bool MayIgnore(const std::string& name) const { return train_ && MeaningOf(train_->app(), name).known(); }

  bool OnLine(const std::string& flag) const {
    return std::any_of(line_.begin(), line_.end(), [&](const std::string& argument) {
      return argument == flag || argument.starts_with(flag + "=");
    });
  }
  // The line has the option, or one that cannot stand beside it.
  bool LineDecides(const CLI::Option& option, const std::string& flag) const {
    const std::set<CLI::Option*> others = option.get_excludes();
    return OnLine(flag) || std::any_of(others.begin(), others.end(), [&](const CLI::Option* other) {
             const std::vector<std::string>& names = other->get_lnames();
             return !names.empty() && OnLine("--" + names.front());
           });
  }

  // One value, or a list of them: as the command line has it ("1,3"), or each by itself.
  static Result<std::vector<std::string>> Texts(const Entry& entry, const Meaning& meaning,
                                                const YAML::Node& value) {
    if (value.IsScalar()) return std::vector<std::string>{value.as<std::string>()};
    if (value.IsNull()) {
      return UsageFailure(
          fmt::format("{}: {} must be one value, or a list of values: leave it out for its default",
                      entry.where, entry.name));
    }
    const bool flat = value.IsSequence() && value.size() > 0 &&
                      std::all_of(value.begin(), value.end(), [](const auto& v) { return v.IsScalar(); });
    if (!flat) {
      return UsageFailure(
          fmt::format("{}: {} must be one value, or a list of values", entry.where, entry.name));
    }
    std::vector<std::string> texts;
    for (const auto& item : value) texts.push_back(item.as<std::string>());
    const OptionInfo info = InfoOf(*meaning.option);
    if (info.repeats || texts.size() == 1) return texts;
    if (info.kind != ValueKind::kList) {
      return UsageFailure(fmt::format("{}: {} must be one value: it takes no list", entry.where, entry.name));
    }
    return std::vector<std::string>{fmt::format("{}", fmt::join(texts, ","))};
  }

  Failure Untranslatable(const Entry& entry, const std::string& why) const {
    return UsageFailure(
        fmt::format("{}: key \"{}\" is not known to {}: {}", entry.where, entry.name, PathOf(verb_), why));
  }

  Failure Unknown(const Entry& entry, const YAML::Node& value) const {
    std::string message =
        fmt::format("{}: key \"{}\" is not known to {}", entry.where, entry.name, PathOf(verb_));
    if (!value.IsMap()) return UsageFailure(message + Suggestion(verb_, entry.name));
    std::string keys;
    for (const auto& inner : value) {
      const auto name = inner.first.as<std::string>("");
      const Meaning meaning = MeaningOf(verb_, name);
      if (!meaning.option) continue;
      const std::string ours = InfoOf(*meaning.option).key;
      keys += fmt::format("{}\"{}\"{}", keys.empty() ? "" : ", ", name,
                          meaning.alias ? fmt::format(" ({})", ours) : "");
    }
    return UsageFailure(fmt::format("{}: there are no sections, all keys stand at the top level{}", message,
                                    keys.empty() ? "" : fmt::format("; known of this one: {}", keys)));
  }

  const CLI::App& verb_;
  const std::string path_;
  const std::vector<std::string> line_;  // the command line without the file
  std::vector<std::string>* arguments_;
  std::optional<TrainKeys> train_;
  std::map<std::string, Given> given_;  // by our keys
  ConfigOrigins origins_;
};

}  // namespace

Result<ConfigOrigins> MergeConfigFile(const CLI::App& verb, std::vector<std::string>* arguments) {
  const std::string path = ConfigPath(*arguments);
  if (path.empty()) return ConfigOrigins{};
  Result<std::string> text = ReadTextFile(path, kConfigLimit);
  if (!text.ok()) return UsageFailure(text.failure().message);
  try {
    const YAML::Node root = YAML::Load(text.value());
    if (root.IsNull()) return ConfigOrigins{};
    if (!root.IsMap()) return UsageFailure(fmt::format("{}: must be a map of options", path));
    Merge merge(verb, path, arguments);
    for (const auto& entry : root) {
      Status merged = merge.Key(entry.first.as<std::string>(), entry.first.Mark().line + 1, entry.second);
      if (!merged.ok()) return merged.failure();
    }
    if (Status apart = merge.CheckExclusions(); !apart.ok()) return apart.failure();
    return merge.TakeOrigins();
  } catch (const YAML::Exception& error) {
    return UsageFailure(fmt::format("{}:{}: {}", path, error.mark.line + 1, error.msg));
  }
}

std::string WithOrigins(const std::string& message, const ConfigOrigins& origins) {
  constexpr std::string_view kLetters = "abcdefghijklmnopqrstuvwxyz0123456789-";
  std::string before, behind;
  std::set<std::string> seen;
  for (size_t at = message.find("--"); at != message.npos; at = message.find("--", at)) {
    const bool begins = at == 0 || kLetters.find(message[at - 1]) == kLetters.npos;
    const size_t end = std::min(message.find_first_not_of(kLetters, at), message.size());
    const std::string flag = message.substr(at, end - at);
    at = end;
    if (!begins || !seen.insert(flag).second) continue;
    const auto origin = origins.find(KeyOf(flag.substr(2)));
    if (origin == origins.end()) continue;
    const std::string place = fmt::format("{}:{}", origin->second.file, origin->second.line);
    if (seen.size() == 1) {
      before = place + ": ";
    } else {
      behind += fmt::format("{}{}: {}", behind.empty() ? " (" : ", ", flag, place);
    }
  }
  return before + message + behind + (behind.empty() ? "" : ")");
}

}  // namespace rung::cli
