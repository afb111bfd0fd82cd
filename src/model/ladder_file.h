// The texts of an adapter folder that are ours alone: adapter_config.json of a ladder, with or without
// low-rank pairs, and what stands beside PEFT's (docs/formats/adapter.md).
#pragma once

#include <string>
#include <string_view>

#include "model/adapter_file.h"

namespace rung::model {

std::string LadderConfigText(const AdapterInfo& info);
// Every field is checked for its range. `where` stands in messages.
Result<AdapterInfo> ParseLadderConfig(std::string_view text, const std::string& where);

// rung_adapter.json: all of `info` but the spec.
std::string BesideText(const AdapterInfo& info);
Result<AdapterInfo> ParseBesideText(std::string_view text, const std::string& where);

// What only the model can tell of a spec whose fields are in range.
Status CheckLadderFits(const LadderSpec& spec, const Config& config, const std::string& where);

}  // namespace rung::model
