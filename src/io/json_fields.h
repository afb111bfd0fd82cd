// Typed fields of a JSON object. The first thing wrong with it is kept, so that the reading code stays
// straight and asks once at the end.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace rung::io {

class JsonFields {
 public:
  using Json = nlohmann::json;
  // `where` stands before messages: the file, and the object in it. `object` may be of any type, and outlives
  // this.
  JsonFields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  bool Has(const char* key) const { return object_.is_object() && object_.contains(key); }
  // T: bool, a whole number, double or float, std::string, Json, or a vector of, or a map to, one of these.
  // No type stands for another: 2.0 and true are no whole numbers, and one that T cannot hold is none. T{}
  // where it is wrong.
  template <class T>
  T Get(const char* key) {
    if (Has(key)) return As<T>(object_.at(key), key);
    Fail(fmt::format("\"{}\" is missing", key));
    return T{};
  }
  template <class T>
  T GetOr(const char* key, T otherwise) {
    return Has(key) ? As<T>(object_.at(key), key) : std::move(otherwise);
  }
  int64_t Count(const char* key) {  // 0 or more
    const auto value = Get<int64_t>(key);
    if (value < 0) Fail(fmt::format("\"{}\" is {}: negative", key, value));
    return value;
  }

  void Fail(const std::string& message) {
    if (failure_.empty()) failure_ = fmt::format("{}: {}", where_, message);
  }
  bool ok() const { return failure_.empty(); }
  Failure failure() const { return Failure{failure_}; }

 private:
  template <class T>
  T As(const Json& value, const char* key) {
    if (Is(value, static_cast<const T*>(nullptr))) return value.get<T>();
    constexpr size_t kShown = 60;
    std::string text = value.dump(-1, ' ', true, Json::error_handler_t::replace);
    if (text.size() > kShown) text = text.substr(0, kShown) + "...";
    Fail(fmt::format("\"{}\" is {}: of the wrong type", key, text));
    return T{};
  }

  static bool Is(const Json&, const Json*) { return true; }
  static bool Is(const Json& v, const bool*) { return v.is_boolean(); }
  static bool Is(const Json& v, const double*) { return v.is_number(); }
  static bool Is(const Json& v, const float*) { return v.is_number(); }
  static bool Is(const Json& v, const std::string*) { return v.is_string(); }
  static bool Is(const Json& v, const int64_t*) {
    return v.is_number_integer() &&
           (!v.is_number_unsigned() ||
            v.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  }
  template <class T>
  static bool Is(const Json& v, const std::vector<T>*) {
    if (!v.is_array()) return false;
    for (const Json& item : v) {
      if (!Is(item, static_cast<const T*>(nullptr))) return false;
    }
    return true;
  }
  template <class T>
  static bool Is(const Json& v, const std::map<std::string, T>*) {
    if (!v.is_object()) return false;
    for (const Json& item : v) {
      if (!Is(item, static_cast<const T*>(nullptr))) return false;
    }
    return true;
  }

  const Json& object_;
  std::string where_, failure_;
};

}  // namespace rung::io
