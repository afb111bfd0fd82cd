// Runs a template.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_turns.h"

namespace rung::text::jinja {

// Where a Problem or SyntaxError is: "line 3, column 12", columns in characters.
std::string Place(std::string_view source, size_t at);

// A failure with its place.
struct PlacedProblem {
  Problem problem;
  uint32_t at;
};

struct Given {
  std::vector<std::pair<std::string, Value>> variables;
  Speakers speakers;
  std::optional<int64_t> now;                    // RenderOptions::now
  std::optional<std::string>* header = nullptr;  // set to what the last turn writes before its first own byte
  // Of each execution of a generation block the message that its loop was at, -1: none. May be null.
  std::vector<int32_t>* generations = nullptr;
};

// Throws PlacedProblem. The output's runs are the learned spans, by the rule in chat_template.h.
Text Run(const Syntax& syntax, const Given& given, Budget& budget);

}  // namespace rung::text::jinja
