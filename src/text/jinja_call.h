// Filters, tests and methods: the functions a template finds ready. All throw Problem.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace rung::text::jinja {

struct Arguments {
  std::vector<Value> positional;
  std::vector<std::pair<std::string, Value>> named;
};

// Arguments matched with the names of a function's parameters; too many or an unknown name is a failure.
class Bound {
 public:
  Bound(const Arguments& arguments, std::string function, std::initializer_list<const char*> parameters);
  const Value* Get(size_t parameter) const { return values_[parameter]; }  // null: not given
  const Value& Need(size_t parameter) const;
  int64_t Int(size_t parameter, int64_t otherwise) const;
  bool Flag(size_t parameter, bool otherwise) const;
  // The bytes of a string argument; null when it is not given or none.
  const std::string* String(size_t parameter) const;
  const std::string& NeedString(size_t parameter) const;

 private:
  std::string function_;
  std::vector<const char*> parameters_;
  std::vector<const Value*> values_;
};

Value ApplyFilter(const std::string& name, const Value& input, const Arguments& arguments, Budget& budget);
bool ApplyTest(const std::string& name, const Value& input, const Arguments& arguments, Budget& budget);
bool HasMethod(const Value& object, const std::string& name);
bool IsChanging(const Value& object,
                const std::string& name);  // a method of Python's that templates may not call
Value CallMethod(const Value& object, const std::string& name, const Arguments& arguments, Budget& budget);
// range, dict and raise_exception.
Value CallFunction(Function function, const Arguments& arguments, Budget& budget);
// now: RenderOptions::now.
Value CallStrftime(const Arguments& arguments, std::optional<int64_t> now, Budget& budget);

// pattern % values; named: of "%(name)s", may be null.
Value FormatPercent(const Text& pattern, const std::vector<Value>& values, const Dict* named, Budget& budget);
Value FormatBraces(const Text& pattern, const Arguments& arguments, Budget& budget);  // str.format

// What filters and methods share.
Value MakeTexts(Budget& budget, std::vector<Text> parts);
Value Join(const std::vector<Value>& items, const Text& separator, Budget& budget);

}  // namespace rung::text::jinja
