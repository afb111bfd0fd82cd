// Values and their names: the table beside an enum is the one place that knows both.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace rung {

template <class E>
struct Named {
  const char* name;
  E value;
};

// "" for a value that is not in the table.
template <class E, size_t n>
constexpr const char* NameIn(const Named<E> (&table)[n], E value) {
  for (const Named<E>& row : table) {
    if (row.value == value) return row.name;
  }
  return "";
}

template <class E, size_t n>
constexpr std::optional<E> ValueIn(const Named<E> (&table)[n], std::string_view name) {
  for (const Named<E>& row : table) {
    if (row.name == name) return row.value;
  }
  return std::nullopt;
}

// For static_assert: each value from 0 to `last` has a name of its own.
template <class E, size_t n>
constexpr bool NamesAll(const Named<E> (&table)[n], E last) {
  if (n != static_cast<size_t>(last) + 1) return false;
  for (size_t i = 0; i < n; ++i) {
    const std::string_view name = NameIn(table, static_cast<E>(i));
    if (name.empty() || ValueIn(table, name) != static_cast<E>(i)) return false;
  }
  return true;
}

template <class E, size_t n>
std::vector<std::string> NamesIn(const Named<E> (&table)[n]) {
  std::vector<std::string> names;
  for (const Named<E>& row : table) names.emplace_back(row.name);
  return names;
}

}  // namespace rung
