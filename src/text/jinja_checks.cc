// The tests of the language: `x is defined`.
#include <map>
#include <string_view>

#include "text/jinja_call.h"
#include "text/jinja_ops.h"
#include "text/jinja_text.h"

namespace rung::text::jinja {
namespace {

bool IsNumber(const Value& value) { return AsNumber(value).has_value(); }
bool IsIterable(const Value& v) { return v.text() || v.list() || v.dict() || v.Is<Undefined>(); }
bool IsCallable(const Value& v) {
  return v.Is<MacroPtr>() || v.Is<MethodPtr>() || v.Is<Function>() || v.Is<Undefined>();
}
bool IsFlag(const Value& v, bool flag) { return v.As<bool>() && *v.As<bool>() == flag; }
bool IsCased(const Value& value, Case to, Budget& budget) {
  const Text text = ToText(value, budget);
  // Python's islower and isupper: at least one letter, and none of the other case.
  const std::string other = ChangeCase(text, to == Case::kUpper ? Case::kLower : Case::kUpper).bytes;
  return ChangeCase(text, to).bytes == text.bytes && other != text.bytes;
}

using Plain = bool (*)(const Value&);
const std::map<std::string_view, Plain>& PlainTests() {
  static const std::map<std::string_view, Plain> kTests = {
      {"defined", [](const Value& v) { return !v.Is<Undefined>(); }},
      {"undefined", [](const Value& v) { return v.Is<Undefined>(); }},
      {"none", [](const Value& v) { return v.Is<None>(); }},
      {"string", [](const Value& v) { return v.text() != nullptr; }},
      {"mapping", [](const Value& v) { return v.dict() != nullptr; }},
      {"iterable", IsIterable},
      {"sequence", IsIterable},
      {"number", IsNumber},
      {"integer", [](const Value& v) { return v.Is<int64_t>(); }},
      {"float", [](const Value& v) { return v.Is<double>(); }},
      {"boolean", [](const Value& v) { return v.Is<bool>(); }},
      {"true", [](const Value& v) { return IsFlag(v, true); }},
      {"false", [](const Value& v) { return IsFlag(v, false); }},
      {"callable", IsCallable},
      {"escaped", [](const Value&) { return false; }},
  };
  return kTests;
}

const std::map<std::string_view, Relation>& RelationTests() {
  static const std::map<std::string_view, Relation> kTests = {
      {"equalto", Relation::kEqual},   {"eq", Relation::kEqual},
      {"==", Relation::kEqual},        {"ne", Relation::kNotEqual},
      {"!=", Relation::kNotEqual},     {"in", Relation::kIn},
      {"lt", Relation::kLess},         {"<", Relation::kLess},
      {"lessthan", Relation::kLess},   {"le", Relation::kLessEqual},
      {"<=", Relation::kLessEqual},    {"gt", Relation::kGreater},
      {">", Relation::kGreater},       {"greaterthan", Relation::kGreater},
      {"ge", Relation::kGreaterEqual}, {">=", Relation::kGreaterEqual},
  };
  return kTests;
}

bool IsSame(const Value& a, const Value& b, Budget& budget) {
  if (a.list() || b.list()) return a.list() == b.list();
  if (a.dict() || b.dict()) return a.dict() == b.dict();
  return a.Is<bool>() == b.Is<bool>() && a.Is<double>() == b.Is<double>() && Equal(a, b, budget);
}

bool IsMultiple(const Value& number, const Value& divisor, int64_t rest, Budget& budget) {
  return Equal(Arithmetic(Op::kModulo, number, divisor, budget), MakeInt(rest), budget);
}

}  // namespace

bool ApplyTest(const std::string& name, const Value& input, const Arguments& arguments, Budget& budget) {
  if (const auto plain = PlainTests().find(name); plain != PlainTests().end()) {
    const Bound bound(arguments, "the test '" + name + "'", {});
    return plain->second(input);
  }
  if (const auto relation = RelationTests().find(name); relation != RelationTests().end()) {
    const Bound bound(arguments, "the test '" + name + "'", {"other"});
    return Holds(relation->second, input, bound.Need(0), budget);
  }
  if (name == "odd" || name == "even") {
    const Bound bound(arguments, "the test '" + name + "'", {});
    return IsMultiple(input, MakeInt(2), name == "odd" ? 1 : 0, budget);
  }
  if (name == "divisibleby") {
    const Bound bound(arguments, "the test 'divisibleby'", {"num"});
    return IsMultiple(input, bound.Need(0), 0, budget);
  }
  if (name == "sameas") {
    const Bound bound(arguments, "the test 'sameas'", {"other"});
    return IsSame(input, bound.Need(0), budget);
  }
  if (name == "lower" || name == "upper") {
    const Bound bound(arguments, "the test '" + name + "'", {});
    return IsCased(input, name == "lower" ? Case::kLower : Case::kUpper, budget);
  }
  Fail("unknown test '" + name + "'");
}

}  // namespace rung::text::jinja
