// Runs a template.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"

namespace rung::text::jinja {

// Where a Problem or SyntaxError is: "line 3, column 12", columns in characters.
std::string Place(std::string_view source, size_t at);

// A failure with its place.
struct PlacedProblem {
  Problem problem;
  uint32_t at;
};

// Throws PlacedProblem. The output's runs are the learned spans, by the rule in chat_template.h.
Text Run(const Syntax& syntax, std::vector<std::pair<std::string, Value>> variables, Budget& budget);

}  // namespace rung::text::jinja
