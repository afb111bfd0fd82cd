// Tokens to a syntax tree, by recursive descent with Jinja's precedences.
#pragma once

#include <string_view>

#include "text/jinja_ast.h"

namespace rung::text::jinja {

// Throws SyntaxError (jinja_lexer.h). Nesting of the source and the height of expressions are bounded.
Syntax Parse(std::string_view source);

}  // namespace rung::text::jinja
