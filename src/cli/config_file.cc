#include "cli/config_file.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>

#include "base/files.h"
#include "base/text.h"

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

bool Given(const std::vector<std::string>& arguments, const std::string& flag) {
  return std::any_of(arguments.begin(), arguments.end(), [&](const std::string& argument) {
    return argument == flag || argument.starts_with(flag + "=");
  });
}

std::string KeyOf(std::string name) {
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

Failure UnknownKey(const CLI::App& verb, const std::string& where, const std::string& key) {
  std::vector<std::string> keys;
  for (const CLI::Option* option : verb.get_options()) {
    for (const std::string& name : option->get_lnames()) keys.push_back(KeyOf(name));
  }
  const std::vector<std::string_view> views(keys.begin(), keys.end());
  const std::string_view nearest = Nearest(key, views);
  return Failure{fmt::format("{}: key \"{}\" is not known to rung {}{}", where, key, verb.get_name(),
                             nearest.empty() ? "" : fmt::format("; did you mean \"{}\"?", nearest)),
                 ExitCode::kUsage};
}

Status MergeKey(const CLI::App& verb, const std::string& where, const std::string& key,
                const YAML::Node& value, std::vector<std::string>* arguments) {
  std::string name = key;
  std::replace(name.begin(), name.end(), '_', '-');
  const std::string flag = "--" + name;
  const CLI::Option* option = verb.get_option_no_throw(flag);
  if (!option || name == "config" || name == "help") return UnknownKey(verb, where, key);
  if (!value.IsScalar())
    return Failure{fmt::format("{}: {} must be one value", where, key), ExitCode::kUsage};
  if (Given(*arguments, flag)) return Ok{};
  const auto text = value.as<std::string>();
  if (option->get_expected_max() == 0) {  // a switch
    if (text != "true" && text != "false") {
      return Failure{fmt::format("{}: {} must be true or false", where, key), ExitCode::kUsage};
    }
    if (text == "true") arguments->push_back(flag);
    return Ok{};
  }
  arguments->push_back(fmt::format("{}={}", flag, text));
  return Ok{};
}

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
    for (const auto& entry : root) {
      const std::string where = fmt::format("{}:{}", path, entry.first.Mark().line + 1);
      const auto key = entry.first.as<std::string>();
      if (Status merged = MergeKey(verb, where, key, entry.second, arguments); !merged.ok()) return merged;
    }
  } catch (const YAML::Exception& error) {
    return Failure{fmt::format("{}:{}: {}", path, error.mark.line + 1, error.msg), ExitCode::kUsage};
  }
  return Ok{};
}

}  // namespace rung::cli
