// Options whose value is one of a table's names.
#pragma once

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <optional>
#include <string>

#include "base/error.h"
#include "base/names.h"

namespace rung::cli {

// Throws Error (kUsage) for a name that the table does not have.
template <class E, size_t n>
E Chosen(const Named<E> (&table)[n], const char* flag, const std::string& name) {
  if (const std::optional<E> value = ValueIn(table, name)) return *value;
  throw Error(ExitCode::kUsage,
              fmt::format("{} {}: known are {}", flag, name, fmt::join(NamesIn(table), ", ")));
}

}  // namespace rung::cli
