// JSON from foreign hands: one message with file, line and column instead of an exception.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "base/files.h"
#include "base/result.h"

namespace rung::io {

// Refuses what JSON allows and a configuration never has: duplicate keys, nesting beyond 64 levels, more than
// 2^24 values (a file of "[[],[],..." would need twenty times its size in memory). `name` stands in messages.
Result<nlohmann::json> ParseJson(std::string_view text, const std::string& name);

// The largest tokenizer.json known is 33 MB.
inline constexpr uint64_t kJsonFileLimit = uint64_t{128} << 20;
Result<nlohmann::json> ReadJson(const Path& path, uint64_t limit = kJsonFileLimit);

// "3:14: unexpected end of input": the place of byte `position` (1-based, as nlohmann counts) and the reason
// in `what`, the text of a nlohmann parse error. For SAX handlers of other files.
std::string DescribeJsonError(std::string_view text, size_t position, std::string_view what);

}  // namespace rung::io
