// Typed access to a JSON document that keeps the first thing wrong with it: the reading code stays straight,
// and asks once at the end.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace rung::text {

class JsonReader {
 public:
  using Json = nlohmann::json;
  explicit JsonReader(std::string name) : name_(std::move(name)) {}

  bool ok() const { return failure_.empty(); }
  const std::string& failure() const { return failure_; }
  // Keeps the first message, behind the file's name.
  void Fail(std::string_view message);

  // Absent or null gives the default; another type fails. `where` names the object in messages.
  bool Bool(const Json& object, const char* key, bool otherwise, std::string_view where);
  std::string String(const Json& object, const char* key, const std::string& otherwise,
                     std::string_view where);
  const Json* Array(const Json& object, const char* key, std::string_view where);  // nullptr: absent or wrong
  const Json* Object(const Json& object, const char* key,
                     std::string_view where);              // nullptr: absent or wrong
  int64_t Int(const Json& value, std::string_view where);  // -1: wrong; never negative

 private:
  const Json* Member(const Json& object, const char* key);
  void WrongType(std::string_view where, const char* key, const char* expected, const Json& found);

  std::string name_, failure_;
};

}  // namespace rung::text
