// What the operators of the language do with values. All throw Problem.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_value.h"

namespace rung::text::jinja {

std::string TypeName(const Value& value);  // Python's: "str", "int", "NoneType", ...
bool IsTrue(const Value& value);
// A bool counts as 0 or 1, as in Python.
std::optional<int64_t> AsInt(const Value& value);
std::optional<double> AsNumber(const Value& value);
int64_t NeedInt(const Value& value, const char* what);

// str(value): a string as it is, with its provenance; undefined is empty.
void AppendStr(Text& out, const Value& value, Budget& budget);
Text ToText(const Value& value, Budget& budget);
Text Repr(const Value& value, Budget& budget);  // repr(value): a string in quotes
std::string FloatRepr(double value);

// json.dumps(value, ensure_ascii=False, ...).
struct JsonStyle {
  std::optional<std::string> indent;  // of one level; nullopt: all on one line
  std::string item = ", ", key = ": ";
  bool ascii = false, sort = false;
};
void AppendJson(Text& out, const Value& value, const JsonStyle& style, int64_t level, Budget& budget);

bool Equal(const Value& a, const Value& b, Budget& budget);
int Compare(const Value& a, const Value& b, Budget& budget);  // < 0, 0, > 0
bool Contains(const Value& container, const Value& item, Budget& budget);
bool Holds(Relation relation, const Value& a, const Value& b, Budget& budget);

Value Arithmetic(Op op, const Value& a, const Value& b, Budget& budget);
Value Negate(const Value& value);

// The items of a list, the keys of a dictionary, the characters of a string; nothing of undefined.
std::vector<Value> Items(const Value& value, Budget& budget);
int64_t Length(const Value& value, Budget& budget);
const Value* Find(const Dict& dict, const Value& key, Budget& budget);
// x.name and x[key]: undefined when there is no such thing; a failure on undefined itself.
Value GetAttr(const Value& value, const std::string& name, Budget& budget);
Value GetItem(const Value& value, const Value& key, Budget& budget);
Value GetSlice(const Value& value, const Value& begin, const Value& end, const Value& step, Budget& budget);

}  // namespace rung::text::jinja
