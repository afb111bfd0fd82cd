#include "text/json_reader.h"

#include <fmt/format.h>

#include <limits>

namespace rung::text {

void JsonReader::Fail(std::string_view message) {
  if (failure_.empty()) failure_ = fmt::format("{}: {}", name_, message);
}

const JsonReader::Json* JsonReader::Member(const Json& object, const char* key) {
  if (!object.is_object()) return nullptr;
  const auto member = object.find(key);
  return member == object.end() || member->is_null() ? nullptr : &*member;
}

void JsonReader::WrongType(std::string_view where, const char* key, const char* expected, const Json& found) {
  Fail(fmt::format("{}.{}: expected {}, found {}", where, key, expected, found.type_name()));
}

bool JsonReader::Bool(const Json& object, const char* key, bool otherwise, std::string_view where) {
  const Json* member = Member(object, key);
  if (member == nullptr) return otherwise;
  if (!member->is_boolean()) WrongType(where, key, "true or false", *member);
  return member->is_boolean() ? member->get<bool>() : otherwise;
}

std::string JsonReader::String(const Json& object, const char* key, const std::string& otherwise,
                               std::string_view where) {
  const Json* member = Member(object, key);
  if (member == nullptr) return otherwise;
  if (!member->is_string()) WrongType(where, key, "a string", *member);
  return member->is_string() ? member->get<std::string>() : otherwise;
}

const JsonReader::Json* JsonReader::Array(const Json& object, const char* key, std::string_view where) {
  const Json* member = Member(object, key);
  if (member == nullptr || member->is_array()) return member;
  WrongType(where, key, "an array", *member);
  return nullptr;
}

const JsonReader::Json* JsonReader::Object(const Json& object, const char* key, std::string_view where) {
  const Json* member = Member(object, key);
  if (member == nullptr || member->is_object()) return member;
  WrongType(where, key, "an object", *member);
  return nullptr;
}

int64_t JsonReader::Int(const Json& value, std::string_view where) {
  if (value.is_number_unsigned() && value.get<uint64_t>() <= uint64_t{std::numeric_limits<int32_t>::max()})
    return value.get<int64_t>();
  Fail(fmt::format("{}: expected a number from 0 to 2147483647, found {:.60}", where,
                   value.dump(-1, ' ', true, Json::error_handler_t::replace)));
  return -1;
}

}  // namespace rung::text
