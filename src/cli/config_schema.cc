#include <fmt/format.h>

#include "cli/config.h"
#include "cli/config_keys.h"
#include "cli/option_info.h"
#include "cli/version.h"

namespace rung::cli {
namespace {

using Json = nlohmann::ordered_json;

Json Number(double value) {
  const bool whole = value == static_cast<double>(static_cast<int64_t>(value));
  return whole ? Json(static_cast<int64_t>(value)) : Json(value);
}

Json ListOf(Json item) { return {{"anyOf", {item, {{"type", "array"}, {"items", item}, {"minItems", 1}}}}}; }

// A value as YAML reads it.
Json Literal(std::string_view text) {
  const Json value = Json::parse(text, nullptr, false);
  return value.is_boolean() || value.is_number() ? value : Json(text);
}

Json TypeOf(const OptionInfo& info) {
  Json choices = Json::array();
  for (const std::string& choice : info.choices) choices.push_back(Literal(choice));
  if (!choices.empty()) return {{"enum", choices}};
  if (info.value_optional) return {{"type", {"string", "boolean"}}};
  if (info.repeats) return ListOf({{"type", "string"}});
  switch (info.kind) {
    case ValueKind::kSwitch:
      return {{"type", "boolean"}};
    case ValueKind::kInteger:
      return {{"type", "integer"}};
    case ValueKind::kNumber:
      return {{"type", "number"}};
    case ValueKind::kSize:
      return {{"type", {"string", "integer"}}};
    case ValueKind::kList:
      return ListOf({{"type", {"string", "integer"}}});
    case ValueKind::kText:
      break;
  }
  return {{"type", "string"}};
}

// The values of ValueAliases that `name` may have, or those that it may not.
Json ValuesOf(std::string_view name, bool accepted) {
  Json values = Json::array();
  for (const ValueAlias& value : ValueAliases()) {
    if (value.name == name && value.hint.empty() == accepted) values.push_back(Literal(value.value));
  }
  return values;
}

Json PropertyOf(const OptionInfo& info) {
  Json property = TypeOf(info);
  if (info.minimum) property[info.above_minimum ? "exclusiveMinimum" : "minimum"] = Number(*info.minimum);
  if (info.maximum) property["maximum"] = Number(*info.maximum);
  if (const Json others = ValuesOf(info.key, true); !others.empty()) {
    property = {{"anyOf", {property, {{"enum", others}}}}};
  }
  property["description"] = info.help;
  if (!info.default_value.is_null()) property["default"] = info.default_value;
  return property;
}

Json AliasOf(const Alias& alias) {
  Json property = {{"deprecated", true}};
  const Json accepted = ValuesOf(alias.name, true), refused = ValuesOf(alias.name, false);
  if (alias.key.empty()) {
    property["description"] = alias.hint;
    property["enum"] = accepted;
    return property;
  }
  property["description"] =
      fmt::format("{} {}", alias.inverted ? "the opposite of" : "another name of", alias.key);
  if (alias.inverted) {
    property["type"] = "boolean";
  } else if (IsClosed(alias)) {
    property["enum"] = accepted;
  } else {
    property["$ref"] = fmt::format("#/properties/{}", alias.key);
    if (!refused.empty()) property["not"] = {{"enum", refused}};
  }
  return property;
}

}  // namespace

Json ConfigSchema(CLI::App& verb) {
  Json properties = Json::object();
  for (const OptionInfo& info : OptionsOf(verb)) properties[info.key] = PropertyOf(info);
  for (const Alias& alias : Aliases()) {
    const bool sets = MeaningOf(verb, std::string(alias.name)).option;
    // One without a key is known for its hint alone, unless it may say what is so anyway.
    const bool stands = alias.key.empty() && !ValuesOf(alias.name, true).empty();
    if (sets || stands) properties[std::string(alias.name)] = AliasOf(alias);
  }
  return {{"$schema", "https://json-schema.org/draft/2020-12/schema"},
          {"title", "rung train --config"},
          {"description", fmt::format("rung {}: the options of rung train and rung plan; flags win",
                                      VersionJson()["version"].get<std::string>())},
          {"type", "object"},
          {"additionalProperties", false},
          {"properties", properties}};
}

}  // namespace rung::cli
