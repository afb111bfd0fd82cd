// The keys of a record and what messages say of them; shared by the readers of the formats.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <string_view>

#include "data/record.h"

namespace rung::data {

using Json = nlohmann::json;
using OrderedJson = nlohmann::ordered_json;

// A record's object, and the text it was read from: templates print tools and calls in the order of their
// keys, which only the text still has.
class RecordFields {
 public:
  // Both outlive it. `object` has the keys of the record; of a key's value, `source` of the columns says
  // where in the text it stands.
  RecordFields(const Json& object, std::string_view text, const Columns& columns)
      : object_(object), text_(text), columns_(columns) {}

  const Json& object() const { return object_; }
  bool Has(const char* key) const { return object_.contains(key) && !object_.at(key).is_null(); }
  // The value of a key with its keys in order.
  OrderedJson Ordered(const std::string& key) const;

 private:
  const Json& object_;
  std::string_view text_;  // empty: lists are JSON texts in the fields of a table
  const Columns& columns_;
};

// An example of a right record.
const char* ExampleOf(Format format);
Failure WrongRecord(Format format, std::string what);
// The format that the keys say. Two in one record are ambiguous, half of one is an error. `file`: the object
// as the file has it, before columns were renamed, for messages.
Result<Format> FormatOf(const Json& object, const Json& file);
// "found keys ...", with a suggestion where one is a near miss.
std::string DescribeKeys(const Json& object, std::span<const std::string_view> known);
std::string DescribeRecordKeys(const Json& object);
// At most `bytes` of text, cut before a character rather than inside it.
std::string Excerpt(std::string_view text, size_t bytes);
Result<std::string> TextOf(const Json& object, const char* key, Format format);

// A list of messages under `key` of the record, appended; `learned` gets a mark each.
Status ReadMessageList(const RecordFields& fields, const char* key, Format format, Record* record);
Status ReadTools(const RecordFields& fields, Format format, Record* record);
// The formats that become messages.
Status ReadAlpaca(const RecordFields& fields, Record* record);
Status ReadShareGpt(const RecordFields& fields, Record* record);

}  // namespace rung::data
