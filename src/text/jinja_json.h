// JSON given to a template: its values, as Python's json.loads makes them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace rung::text::jinja {

// Keys keep their order; of a key given twice the last value counts. Strings carry `source` as their origin
// (-1: none). Throws Problem: no JSON, nesting beyond kMaxNesting, an integer of more than 64 bits.
Value ParseJson(std::string_view json, int32_t source, Budget& budget);

using Members = std::vector<std::pair<Value, Value>>;
// The value of a string key; null when there is none.
Value* FindMember(Members& members, std::string_view key);

}  // namespace rung::text::jinja
