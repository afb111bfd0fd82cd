#include "cli/config_file.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>

#include "base/files.h"
#include "base/text.h"
#include "cli/verb.h"

namespace rung::cli {
namespace {

constexpr uint64_t kConfigLimit = uint64_t{1} << 20;

// What other programs call our keys. `key` empty: there is none, `hint` says what to write.
struct Alias {
  std::string_view name, key, hint;
};
constexpr Alias kAliases[] = {
    {"target_modules", "lora_targets", ""},
    {"lora_rank", "lora_r", ""},
    {"r", "lora_r", ""},
    {"gradient_checkpointing", "recompute", ""},
    {"num_train_epochs", "epochs", ""},
    {"gradient_accumulation_steps", "gradient_accumulation", ""},
    {"micro_batch_size", "", "a micro-batch is counted in tokens, not in examples: \"tokens\""},
    {"per_device_train_batch_size", "", "a micro-batch is counted in tokens, not in examples: \"tokens\""},
};

const Alias* FindAlias(std::string_view key) {
  const auto* found = std::find_if(std::begin(kAliases), std::end(kAliases),
                                   [&](const Alias& alias) { return alias.name == key; });
  return found == std::end(kAliases) ? nullptr : found;
}

// The value of `--config FILE` or `--config=FILE`; empty when there is none.
std::string ConfigPath(const std::vector<std::string>& arguments) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (arguments[i] == "--config" && i + 1 < arguments.size()) return arguments[i + 1];
    if (arguments[i].starts_with("--config=")) return arguments[i].substr(sizeof("--config=") - 1);
  }
  return "";
}

std::string KeyOf(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}
std::string FlagOf(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

class Merge {
 public:
  Merge(const CLI::App& verb, std::vector<std::string>* arguments)
      : verb_(verb), line_(*arguments), arguments_(arguments), train_action_(AddTrain(train_)) {}

  Status Key(const std::string& where, const std::string& name, const YAML::Node& value) {
    const Alias* alias = Known(verb_, KeyOf(name)) ? nullptr : FindAlias(KeyOf(name));
    if (alias && alias->key.empty()) {
      return Usage(fmt::format("{}: key \"{}\" is not known to rung {}: {}", where, name, verb_.get_name(),
                               alias->hint));
    }
    const std::string key = alias ? std::string(alias->key) : KeyOf(name), flag = FlagOf(key);
    const CLI::Option* option = Known(verb_, key);
    if (!option) return MayIgnore(key) ? Status(Ok{}) : Unknown(where, name);
    if (!seen_.insert(key).second) return Usage(fmt::format("{}: {} is set twice", where, key));
    Result<std::string> text = Text(where, name, value);
    if (!text.ok()) return text.failure();
    const bool is_switch = option->get_expected_max() == 0;
    if (is_switch && text.value() != "true" && text.value() != "false") {
      return Usage(fmt::format("{}: {} must be true or false", where, name));
    }
    if (LineDecides(*option, flag)) return Ok{};
    if (!is_switch) {
      arguments_->push_back(fmt::format("{}={}", flag, text.value()));
    } else if (text.value() == "true") {
      arguments_->push_back(flag);
    }
    return Ok{};
  }

 private:
  static Failure Usage(std::string message) { return Failure{std::move(message), ExitCode::kUsage}; }

  static const CLI::Option* Known(const CLI::App& verb, const std::string& key) {
    return key == "config" || key == "help" ? nullptr : verb.get_option_no_throw(FlagOf(key));
  }
  // A run is planned with the run's own file.
  bool MayIgnore(const std::string& key) const { return verb_.get_name() == "plan" && Known(train_, key); }

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

  // One value, or a list of them as the command line has it: "1,3".
  static Result<std::string> Text(const std::string& where, const std::string& name,
                                  const YAML::Node& value) {
    if (value.IsScalar()) return value.as<std::string>();
    std::string text;
    bool flat = value.IsSequence() && value.size() > 0;
    for (size_t i = 0; flat && i < value.size(); ++i) {
      flat = value[i].IsScalar();
      if (flat) text += (i > 0 ? "," : "") + value[i].as<std::string>();
    }
    if (!flat) return Usage(fmt::format("{}: {} must be one value, or a list of values", where, name));
    return text;
  }

  Failure Unknown(const std::string& where, const std::string& name) const {
    std::vector<std::string> keys;
    for (const CLI::Option* option : verb_.get_options()) {
      for (const std::string& known : option->get_lnames()) keys.push_back(KeyOf(known));
    }
    const std::vector<std::string_view> views(keys.begin(), keys.end());
    const std::string_view nearest = Nearest(name, views);
    return Usage(fmt::format("{}: key \"{}\" is not known to rung {}{}", where, name, verb_.get_name(),
                             nearest.empty() ? "" : fmt::format("; did you mean \"{}\"?", nearest)));
  }

  const CLI::App& verb_;
  const std::vector<std::string> line_;  // the command line without the file
  std::vector<std::string>* arguments_;
  CLI::App train_;       // the options of `rung train`
  Action train_action_;  // holds what they are bound to
  std::set<std::string> seen_;
};

}  // namespace

Status MergeConfigFile(const CLI::App& verb, std::vector<std::string>* arguments) {
  const std::string path = ConfigPath(*arguments);
  if (path.empty()) return Ok{};
  Result<std::string> text = ReadTextFile(path, kConfigLimit);
  if (!text.ok()) return Failure{text.failure().message, ExitCode::kUsage};
  try {
    const YAML::Node root = YAML::Load(text.value());
    if (root.IsNull()) return Ok{};
    if (!root.IsMap()) return Failure{fmt::format("{}: must be a map of options", path), ExitCode::kUsage};
    Merge merge(verb, arguments);
    for (const auto& entry : root) {
      const std::string where = fmt::format("{}:{}", path, entry.first.Mark().line + 1);
      Status merged = merge.Key(where, entry.first.as<std::string>(), entry.second);
      if (!merged.ok()) return merged;
    }
  } catch (const YAML::Exception& error) {
    return Failure{fmt::format("{}:{}: {}", path, error.mark.line + 1, error.msg), ExitCode::kUsage};
  }
  return Ok{};
}

}  // namespace rung::cli
