// What an option of a verb is, read from CLI11: the one list that --help, configuration files, their schema
// and the record of a run share.
#pragma once

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rung::cli {

// Names of types in --help that say more than CLI11's: several values with commas between them, and bytes.
inline constexpr const char* kListType = "LIST";
inline constexpr const char* kSizeType = "SIZE";

enum class ValueKind : uint8_t { kSwitch, kInteger, kNumber, kText, kList, kSize };

struct OptionInfo {
  const CLI::Option* option = nullptr;
  std::string key, flag, help;  // "max_length", "--max-length"
  ValueKind kind = ValueKind::kText;
  bool repeats = false;         // may be given several times
  bool value_optional = false;  // may stand without a value, as a switch
  std::vector<std::string> choices;
  std::optional<double> minimum, maximum;
  bool above_minimum = false;                      // the minimum itself is none of its values
  nlohmann::ordered_json default_value = nullptr;  // null: none
};

std::string KeyOf(std::string flag_name);  // "max-length" or "max_length" as a key
std::string FlagOf(std::string key);
// The option of a key; nullptr where the verb has none, or one that no file can have (--config, --help,
// --dry-run, --json).
const CLI::Option* FindKey(const CLI::App& verb, const std::string& key);
// Without the default.
OptionInfo InfoOf(const CLI::Option& option);
// Of every key, in the order of --help. Defaults are what the options' variables hold: before parsing, or of
// options that were not given.
std::vector<OptionInfo> OptionsOf(CLI::App& verb);

// A value as the command line has it, typed; as text where it is not of its type.
nlohmann::ordered_json TypedValue(const OptionInfo& info, const std::string& text);
// What is wrong with such a value, by its type and by CLI11's checks; empty: nothing.
std::string Complaint(const OptionInfo& info, const std::string& text);

}  // namespace rung::cli
