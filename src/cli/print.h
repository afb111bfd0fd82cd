// Results for programs, on standard output.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <nlohmann/json.hpp>

namespace rung::cli {

// One value and a newline. Bytes that are not UTF-8, as of a file's name, become U+FFFD. `ascii`: what comes
// from a foreign file does not steer a terminal either.
inline void PrintJson(const nlohmann::ordered_json& json, bool ascii = false) {
  fmt::print("{}\n", json.dump(2, ' ', ascii, nlohmann::ordered_json::error_handler_t::replace));
}

}  // namespace rung::cli
