#include "cli/config_keys.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string_view>

#include "base/text.h"
#include "cli/option_info.h"

namespace rung::cli {
namespace {

// As YAML and Python write them.
std::string Lowered(std::string value) {
  if (value == "True" || value == "TRUE") return "true";
  if (value == "False" || value == "FALSE") return "false";
  return value;
}

bool IsSwitch(const CLI::Option& option) { return option.get_expected_max() == 0; }

std::string WithHint(std::string message, const Alias* alias) {
  return alias && !alias->hint.empty() ? fmt::format("{}; {}", message, alias->hint) : message;
}

// A flag and its value among the words of a command line.
class Flag {
 public:
  Flag(const CLI::App& verb, std::vector<std::string>* arguments, size_t at)
      : verb_(verb), arguments_(arguments), at_(at) {
    const std::string& word = (*arguments)[at];
    const size_t equals = word.find('=');
    name_ = word.substr(2, equals == word.npos ? word.npos : equals - 2);
    if (equals != word.npos) value_ = word.substr(equals + 1);
  }

  // How many words stand in its place: 1, or 0 where nothing need be set.
  Result<size_t> Translate() {
    const std::string key = KeyOf(name_);
    if (const CLI::Option* own = verb_.get_option_no_throw(FlagOf(key))) {
      Rename(FlagOf(key));
      TakeValue(own);
      const ValueAlias* alias = value_ ? FindValueAlias(key, *value_) : nullptr;
      if (!alias && !attached_) return size_t{1};
      if (alias && !alias->hint.empty()) return Refused(fmt::format("\"{}\": {}", *value_, alias->hint));
      return Replace({key, alias ? std::string(alias->ours) : *value_});
    }
    const Meaning meaning = MeaningOf(verb_, key);
    if (!meaning.known()) return size_t{1};
    TakeValue(meaning.option);
    if (!value_ && meaning.option && !IsSwitch(*meaning.option)) return Refused("it needs a value");
    Result<Setting> setting = cli::Translate(meaning, name_, value_.value_or("true"));
    if (!setting.ok()) return Refused(setting.failure().message);
    return Replace(setting.value());
  }

 private:
  Failure Refused(const std::string& why) const {
    return UsageFailure(fmt::format("{}: --{}: {}", PathOf(verb_), name_, why));
  }
  void Rename(const std::string& flag) {
    (*arguments_)[at_] = value_ ? fmt::format("{}={}", flag, *value_) : flag;
  }
  // The next word, where the option takes one: a switch takes true and false alone.
  void TakeValue(const CLI::Option* option) {
    if (value_ || at_ + 1 >= arguments_->size()) return;
    const std::string& next = (*arguments_)[at_ + 1];
    const std::string lowered = Lowered(next);
    const bool truth = lowered == "true" || lowered == "false";
    const bool takes = option && IsSwitch(*option) ? truth : !next.starts_with("--");
    if (!takes) return;
    attached_ = truth && option && IsSwitch(*option);
    value_ = attached_ ? lowered : next;
    taken_ = 1;
  }
  size_t Replace(const Setting& setting) {
    const auto begin = arguments_->begin() + static_cast<std::ptrdiff_t>(at_);
    const auto place = arguments_->erase(begin, begin + 1 + taken_);
    if (setting.key.empty()) return 0;
    const CLI::Option* option = verb_.get_option_no_throw(FlagOf(setting.key));
    const bool plain = option && IsSwitch(*option) && setting.value == "true";
    const std::string flag = FlagOf(setting.key);
    arguments_->insert(place, plain ? flag : fmt::format("{}={}", flag, setting.value));
    return 1;
  }

  const CLI::App& verb_;
  std::vector<std::string>* arguments_;
  size_t at_;
  std::string name_;
  std::optional<std::string> value_;
  bool attached_ = false;  // a switch's value, which CLI11 wants in the same word
  int taken_ = 0;          // words behind the flag that are its value
};

}  // namespace

std::string PathOf(const CLI::App& app) {
  if (app.get_parent()) return fmt::format("{} {}", PathOf(*app.get_parent()), app.get_name());
  const bool top = app.get_name().empty() || app.get_name() == "rung";
  return top ? "rung" : "rung " + app.get_name();
}

Meaning MeaningOf(const CLI::App& verb, const std::string& name) {
  const std::string key = KeyOf(name);
  if (const CLI::Option* own = FindKey(verb, key)) return {own, nullptr};
  const Alias* alias = FindAlias(key);
  if (!alias || alias->key.empty()) return {nullptr, alias};
  const CLI::Option* option = FindKey(verb, std::string(alias->key));
  return {option, option ? alias : nullptr};
}

Result<Setting> Translate(const Meaning& meaning, const std::string& name, std::string value) {
  const Alias* alias = meaning.alias;
  if (alias || IsSwitch(*meaning.option)) value = Lowered(std::move(value));
  const ValueAlias* found = FindValueAlias(KeyOf(name), value);
  if (!found && alias && meaning.option) found = FindValueAlias(alias->key, value);
  if (found && !found->hint.empty()) return UsageFailure(fmt::format("{} {}: {}", name, value, found->hint));
  if (found && found->ours.empty()) return Setting{};
  if (!meaning.option) return UsageFailure(std::string(alias->hint));
  if (!found && alias && IsClosed(*alias)) {
    return UsageFailure(WithHint(fmt::format("{} {} is not known", name, value), alias));
  }
  if (found) value = found->ours;
  const OptionInfo info = InfoOf(*meaning.option);
  if (const std::string complaint = Complaint(info, value); !complaint.empty()) {
    return UsageFailure(WithHint(fmt::format("{} {}", name, complaint), alias));
  }
  if (alias && alias->inverted) value = value == "true" ? "false" : "true";
  return Setting{info.key, std::move(value)};
}

std::vector<std::string> KnownNames(const CLI::App& verb) {
  std::vector<std::string> names;
  for (const CLI::Option* option : verb.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      if (FindKey(verb, KeyOf(name))) names.push_back(KeyOf(name));
    }
  }
  for (const Alias& alias : Aliases()) {
    if (MeaningOf(verb, std::string(alias.name)).alias) names.emplace_back(alias.name);
  }
  return names;
}

std::string Suggestion(const CLI::App& verb, const std::string& name) {
  const std::vector<std::string> keys = KnownNames(verb);
  const std::vector<std::string_view> views(keys.begin(), keys.end());
  const std::string nearest(Nearest(KeyOf(name), views));
  if (nearest.empty()) return "";
  const Alias* alias = MeaningOf(verb, nearest).alias;
  if (!alias) return fmt::format("; did you mean \"{}\"?", nearest);
  if (alias->key.empty()) return fmt::format("; did you mean \"{}\"? Then: {}", nearest, alias->hint);
  return fmt::format("; did you mean \"{}\" ({})?", nearest, alias->key);
}

Status TranslateFlags(const CLI::App& verb, std::vector<std::string>* arguments) {
  if (!verb.get_option_no_throw("--config")) return Ok{};
  for (size_t i = 0; i < arguments->size() && (*arguments)[i] != "--";) {
    if (!(*arguments)[i].starts_with("--")) {
      ++i;
      continue;
    }
    Result<size_t> words = Flag(verb, arguments, i).Translate();
    if (!words.ok()) return words.failure();
    i += words.value();
  }
  return Ok{};
}

}  // namespace rung::cli
