#include "cli/option_info.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <system_error>

namespace rung::cli {
namespace {

constexpr std::string_view kNoKeys[] = {"config", "help", "dry_run", "json"};

// The whole of `text` as a number.
template <class T>
std::optional<T> Parsed(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  T value{};
  const auto [end, code] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (code != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

// CLI11's checks are functions; what they allow is in their descriptions: "{a,b}", "INT in [1 - 8]",
// "NONNEGATIVE", "POSITIVE".
void ReadCheck(const std::string& text, OptionInfo* info) {
  if (text.starts_with("{") && text.ends_with("}")) {
    for (size_t begin = 1; begin < text.size();) {
      const size_t end = std::min(text.find(',', begin), text.size() - 1);
      info->choices.push_back(text.substr(begin, end - begin));
      begin = end + 1;
    }
  } else if (const size_t open = text.find(" in ["); open != text.npos && text.ends_with("]")) {
    const std::string_view range = std::string_view(text).substr(open + 5, text.size() - open - 6);
    const size_t dash = range.find(" - ");
    if (dash == range.npos) return;
    info->minimum = Parsed<double>(range.substr(0, dash));
    info->maximum = Parsed<double>(range.substr(dash + 3));
  } else if (text == "NONNEGATIVE" || text == "POSITIVE") {
    info->minimum = 0.0;
    info->above_minimum = text == "POSITIVE";
  }
}

ValueKind KindOf(const CLI::Option& option, const std::string& type) {
  if (option.get_expected_max() == 0) return ValueKind::kSwitch;
  if (type == "INT" || type == "UINT") return ValueKind::kInteger;
  if (type == "FLOAT") return ValueKind::kNumber;
  if (type == kListType) return ValueKind::kList;
  return type == kSizeType ? ValueKind::kSize : ValueKind::kText;
}

nlohmann::ordered_json DefaultOf(CLI::Option& option, const OptionInfo& info) {
  if (info.kind == ValueKind::kSwitch) return false;
  if (info.repeats || info.value_optional) return nullptr;
  const std::string text = option.capture_default_str()->get_default_str();
  return text.empty() ? nlohmann::ordered_json() : TypedValue(info, text);
}

// "INT:INT in [1 - 8]": the type, then a description of each check.
std::vector<std::string> PartsOf(const std::string& types) {
  std::vector<std::string> parts(1);
  int depth = 0;
  for (const char c : types) {
    depth += c == '{' ? 1 : c == '}' ? -1 : 0;
    if (c == ':' && depth == 0) {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

}  // namespace

std::string KeyOf(std::string flag_name) {
  std::replace(flag_name.begin(), flag_name.end(), '-', '_');
  return flag_name;
}

std::string FlagOf(std::string key) {
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

const CLI::Option* FindKey(const CLI::App& verb, const std::string& key) {
  const bool none = std::find(std::begin(kNoKeys), std::end(kNoKeys), key) != std::end(kNoKeys);
  return none ? nullptr : verb.get_option_no_throw(FlagOf(key));
}

OptionInfo InfoOf(const CLI::Option& option) {
  OptionInfo info;
  info.option = &option;
  info.key = KeyOf(option.get_lnames().front());
  info.flag = FlagOf(info.key);
  info.help = option.get_description();
  const std::vector<std::string> parts = PartsOf(option.get_type_name());
  info.kind = KindOf(option, parts.front());
  if (parts.front() == "UINT") info.minimum = 0.0;
  for (size_t i = 1; i < parts.size(); ++i) ReadCheck(parts[i], &info);
  info.value_optional = info.kind != ValueKind::kSwitch && option.get_expected_min() == 0;
  info.repeats =
      option.get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll || option.get_expected_max() > 1;
  info.repeats = info.repeats && info.kind != ValueKind::kSwitch;
  return info;
}

std::vector<OptionInfo> OptionsOf(CLI::App& verb) {
  std::vector<OptionInfo> all;
  for (CLI::Option* option : verb.get_options()) {
    if (option->get_lnames().empty() || !FindKey(verb, KeyOf(option->get_lnames().front()))) continue;
    all.push_back(InfoOf(*option));
    all.back().default_value = DefaultOf(*option, all.back());
  }
  return all;
}

nlohmann::ordered_json TypedValue(const OptionInfo& info, const std::string& text) {
  const bool may_be_switch = info.kind == ValueKind::kSwitch || info.value_optional;
  if (may_be_switch && (text == "true" || text == "false")) return text == "true";
  if (info.kind == ValueKind::kInteger) {
    if (const auto number = Parsed<int64_t>(text)) return *number;
    if (const auto number = Parsed<uint64_t>(text)) return *number;
  }
  if (info.kind == ValueKind::kNumber) {
    if (const auto number = Parsed<double>(text); number && std::isfinite(*number)) return *number;
  }
  return text;
}

std::string Complaint(const OptionInfo& info, const std::string& text) {
  const nlohmann::ordered_json value = TypedValue(info, text);
  if (info.kind == ValueKind::kSwitch && !value.is_boolean()) return "must be true or false";
  if (info.kind == ValueKind::kInteger && !value.is_number_integer()) return "must be a whole number";
  if (info.kind == ValueKind::kNumber && !value.is_number()) return "must be a number";
  if (!info.choices.empty() &&
      std::find(info.choices.begin(), info.choices.end(), text) == info.choices.end()) {
    return fmt::format("must be one of {}", fmt::join(info.choices, ", "));
  }
  if (value.is_number()) {
    const double number = value.get<double>();
    const bool below =
        info.minimum && (number < *info.minimum || (info.above_minimum && number <= *info.minimum));
    if (below) return fmt::format("must be {} {}", info.above_minimum ? "above" : "at least", *info.minimum);
    if (info.maximum && number > *info.maximum) return fmt::format("must be at most {:.15g}", *info.maximum);
  }
  return "";
}

}  // namespace rung::cli
