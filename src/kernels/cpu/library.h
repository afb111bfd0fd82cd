// The library behind the dense products of the trained side.
#pragma once

#include <string>

namespace rung::cpu {

std::string OneDnnVersion();  // "2.6.3": of the library that is loaded

}  // namespace rung::cpu
