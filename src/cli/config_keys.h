// What the key of a configuration file, or a flag, stands for: a key of ours, or another program's name of
// it.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/config_aliases.h"

namespace rung::cli {

// "rung bench step": the words that lead to a verb.
std::string PathOf(const CLI::App& app);

struct Meaning {
  const CLI::Option* option = nullptr;  // what it sets
  const Alias* alias = nullptr;         // the name is another program's
  bool known() const { return option || alias; }
};
// Of `name` to a verb. An alias for an option that the verb does not have is not known.
Meaning MeaningOf(const CLI::App& verb, const std::string& name);

struct Setting {
  std::string key, value;  // ours; an empty key: nothing need be set
};
// A name that is known and a value, as ours. A failure says what is wrong with them, and what to write
// instead, without saying where.
Result<Setting> Translate(const Meaning& meaning, const std::string& name, std::string value);

// Every name that a file for this verb may hold or that is understood well enough to say what to write
// instead.
std::vector<std::string> KnownNames(const CLI::App& verb);
// "; did you mean "lora_rank" (lora_r)?", or what is to be written instead; empty where nothing is near.
std::string Suggestion(const CLI::App& verb, const std::string& name);

// Flags as CLI11 knows them: underscores become dashes, other programs' names and values ours, and "--raw
// true" becomes one word. Names that nobody knows stay. Of verbs that read --config alone: the others share
// no names with other programs.
Status TranslateFlags(const CLI::App& verb, std::vector<std::string>* arguments);

}  // namespace rung::cli
