#include "text/jinja_ops.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "text/jinja_call.h"
#include "text/jinja_text.h"

namespace rung::text::jinja {
namespace {

[[noreturn]] void FailUndefined(const Value& value) { Fail(*value.As<Undefined>()->why); }

void NeedDefined(const Value& value) {
  if (value.Is<Undefined>()) FailUndefined(value);
}

const char* Sign(Op op) {
  switch (op) {
    case Op::kAdd:
      return "+";
    case Op::kSubtract:
      return "-";
    case Op::kMultiply:
      return "*";
    case Op::kDivide:
      return "/";
    case Op::kFloorDivide:
      return "//";
    case Op::kModulo:
      return "%";
    default:
      return "**";
  }
}

Value MakeFloat(double value) { return Value(value); }

int64_t Power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) && __builtin_mul_overflow(result, base, &result))
      Fail("an integer of more than 64 bits");
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) Fail("an integer of more than 64 bits");
  }
  return result;
}

Value IntArithmetic(Op op, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflow = false;
  switch (op) {
    case Op::kAdd:
      overflow = __builtin_add_overflow(a, b, &result);
      break;
    case Op::kSubtract:
      overflow = __builtin_sub_overflow(a, b, &result);
      break;
    case Op::kMultiply:
      overflow = __builtin_mul_overflow(a, b, &result);
      break;
    case Op::kPower:
      if (b < 0) {
        if (a == 0) Fail("0 to a negative power");
        return MakeFloat(std::pow(static_cast<double>(a), static_cast<double>(b)));
      }
      return MakeInt(Power(a, b));
    default:
      if (b == 0) Fail("division by zero");
      if (op == Op::kDivide) return MakeFloat(static_cast<double>(a) / static_cast<double>(b));
      if (b == -1) {  // INT64_MIN / -1 traps
        if (op == Op::kModulo) return MakeInt(0);
        overflow = __builtin_sub_overflow(int64_t{0}, a, &result);
        break;
      }
      result = op == Op::kFloorDivide ? a / b : a % b;
      if (a % b != 0 && (a < 0) != (b < 0))
        result += op == Op::kFloorDivide ? -1 : b;  // towards minus infinity
  }
  if (overflow) Fail("an integer of more than 64 bits");
  return MakeInt(result);
}

Value FloatArithmetic(Op op, double a, double b) {
  switch (op) {
    case Op::kAdd:
      return MakeFloat(a + b);
    case Op::kSubtract:
      return MakeFloat(a - b);
    case Op::kMultiply:
      return MakeFloat(a * b);
    case Op::kPower: {
      const double result = std::pow(a, b);
      if (!std::isfinite(result) && std::isfinite(a) && std::isfinite(b)) Fail("a power that is no number");
      return MakeFloat(result);
    }
    default:
      break;
  }
  if (b == 0) Fail("division by zero");
  if (op == Op::kDivide) return MakeFloat(a / b);
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  if (op == Op::kModulo) return MakeFloat(rest == 0 ? std::copysign(0.0, b) : rest);
  // Python's floor division: exact in a - rest, and a zero has the sign of the quotient.
  const double quotient = std::floor((a - rest) / b + 0.5);
  return MakeFloat(quotient == 0 ? std::copysign(0.0, a / b) : quotient);
}

Value Repeat(const Value& value, int64_t count, Budget& budget) {
  const size_t times = count > 0 ? static_cast<size_t>(count) : 0;
  if (const Text* text = value.text()) {
    if (text->bytes.empty() || times == 0) return MakeText(budget, {});
    if (times > kMaxOutput / text->bytes.size()) Fail("a string of more than 16 MiB");
    Text out;
    budget.Work(times * (text->bytes.size() + text->runs.size() * sizeof(Text::Run)));
    for (size_t i = 0; i < times; ++i) out.Append(*text);
    return MakeText(budget, std::move(out));
  }
  const List& list = *value.list();
  if (!list.items.empty() && times > static_cast<size_t>(kMaxSteps) / list.items.size())
    Fail("a list of more than 1000000 items");
  budget.Step(static_cast<int64_t>(times * list.items.size()));
  std::vector<Value> items;
  for (size_t i = 0; i < times && !list.items.empty(); ++i)
    items.insert(items.end(), list.items.begin(), list.items.end());
  return MakeList(budget, std::move(items), list.tuple);
}

bool SameKind(const List& a, const List& b) { return a.tuple == b.tuple; }

// A slice as Python clips it: the positions begin, begin + step, ... `count` of them.
struct Range {
  int64_t begin, step, count;
};

Range Clip(int64_t size, const Value& begin, const Value& end, const Value& step) {
  const auto part = [](const Value& value, int64_t absent) {
    if (value.Is<None>()) return absent;
    const std::optional<int64_t> number = AsInt(value);
    if (!number) Fail("slice indices must be integers, not " + TypeName(value));
    return *number;
  };
  const int64_t stride = part(step, 1);
  if (stride == 0) Fail("a slice with step 0");
  const int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? size : size - 1;
  const auto clip = [&](int64_t at) { return std::clamp(at < 0 ? at + size : at, low, high); };
  const int64_t from = begin.Is<None>() ? (stride > 0 ? low : high) : clip(part(begin, 0));
  const int64_t to = end.Is<None>() ? (stride > 0 ? high : low) : clip(part(end, 0));
  const int64_t distance = stride > 0 ? to - from : from - to;
  if (distance <= 0) return {from, stride, 0};
  const int64_t pace = stride > 0                                      ? stride
                       : stride == std::numeric_limits<int64_t>::min() ? std::numeric_limits<int64_t>::max()
                                                                       : -stride;
  return {from, stride, (distance - 1) / pace + 1};
}

Value MakeMethod(const Value& object, const std::string& name, Budget& budget) {
  budget.Work(sizeof(Method) + name.size());
  return Value(std::make_shared<const Method>(Method{object, name}));
}

int CompareLists(const List& a, const List& b, Budget& budget) {
  const size_t common = std::min(a.items.size(), b.items.size());
  for (size_t i = 0; i < common; ++i)
    if (!Equal(a.items[i], b.items[i], budget)) return Compare(a.items[i], b.items[i], budget);
  return a.items.size() < b.items.size() ? -1 : a.items.size() > b.items.size() ? 1 : 0;
}

}  // namespace

std::string TypeName(const Value& value) {
  if (value.Is<Undefined>()) return "undefined";
  if (value.Is<None>()) return "none";
  if (value.Is<bool>()) return "a boolean";
  if (value.Is<int64_t>()) return "an integer";
  if (value.Is<double>()) return "a float";
  if (value.text()) return "a string";
  if (const List* list = value.list()) return list->tuple ? "a tuple" : "a list";
  if (value.dict()) return "a dictionary";
  if (value.Is<NamespacePtr>()) return "a namespace";
  if (value.Is<LoopPtr>()) return "a loop";
  if (value.Is<MethodPtr>()) return "a method";
  return value.Is<MacroPtr>() ? "a macro" : "a function";
}

bool IsTrue(const Value& value) {
  if (value.Is<Undefined>() || value.Is<None>()) return false;
  if (const bool* flag = value.As<bool>()) return *flag;
  if (const int64_t* number = value.As<int64_t>()) return *number != 0;
  if (const double* number = value.As<double>()) return *number != 0;
  if (const Text* text = value.text()) return !text->bytes.empty();
  if (const List* list = value.list()) return !list->items.empty();
  if (const Dict* dict = value.dict()) return !dict->items.empty();
  return true;
}

std::optional<int64_t> AsInt(const Value& value) {
  if (const bool* flag = value.As<bool>()) return *flag ? 1 : 0;
  if (const int64_t* number = value.As<int64_t>()) return *number;
  return std::nullopt;
}

std::optional<double> AsNumber(const Value& value) {
  if (const double* number = value.As<double>()) return *number;
  if (const std::optional<int64_t> number = AsInt(value)) return static_cast<double>(*number);
  return std::nullopt;
}

int64_t NeedInt(const Value& value, const char* what) {
  NeedDefined(value);
  const std::optional<int64_t> number = AsInt(value);
  if (!number) Fail(std::string(what) + " must be an integer, not " + TypeName(value));
  return *number;
}

bool Equal(const Value& a, const Value& b, Budget& budget) {
  budget.Step();
  if (a.text() && b.text()) {
    budget.Work(std::min(a.text()->bytes.size(), b.text()->bytes.size()));
    return a.text()->bytes == b.text()->bytes;
  }
  const std::optional<int64_t> i = AsInt(a), j = AsInt(b);
  if (i && j) return *i == *j;
  const std::optional<double> x = AsNumber(a), y = AsNumber(b);
  if (x || y) return x && y && *x == *y;
  if (a.list() && b.list()) {
    if (!SameKind(*a.list(), *b.list()) || a.list()->items.size() != b.list()->items.size()) return false;
    return CompareLists(*a.list(), *b.list(), budget) == 0;
  }
  if (a.dict() && b.dict()) {
    if (a.dict()->items.size() != b.dict()->items.size()) return false;
    for (const auto& [key, value] : a.dict()->items) {
      const Value* other = Find(*b.dict(), key, budget);
      if (!other || !Equal(value, *other, budget)) return false;
    }
    return true;
  }
  if (a.Is<NamespacePtr>() && b.Is<NamespacePtr>()) return *a.As<NamespacePtr>() == *b.As<NamespacePtr>();
  if (a.Is<MacroPtr>() && b.Is<MacroPtr>()) return *a.As<MacroPtr>() == *b.As<MacroPtr>();
  return (a.Is<Undefined>() && b.Is<Undefined>()) || (a.Is<None>() && b.Is<None>());
}

int Compare(const Value& a, const Value& b, Budget& budget) {
  budget.Step();
  NeedDefined(a);
  NeedDefined(b);
  if (a.text() && b.text()) {
    budget.Work(std::min(a.text()->bytes.size(), b.text()->bytes.size()));
    return a.text()->bytes.compare(b.text()->bytes);  // UTF-8 sorts as its code points do
  }
  const std::optional<int64_t> i = AsInt(a), j = AsInt(b);
  if (i && j) return *i < *j ? -1 : *i > *j ? 1 : 0;
  const std::optional<double> x = AsNumber(a), y = AsNumber(b);
  if (x && y) return *x < *y ? -1 : *x > *y ? 1 : 0;
  if (a.list() && b.list() && SameKind(*a.list(), *b.list()))
    return CompareLists(*a.list(), *b.list(), budget);
  Fail("cannot order " + TypeName(a) + " and " + TypeName(b));
}

bool Contains(const Value& container, const Value& item, Budget& budget) {
  if (const Text* text = container.text()) {
    NeedDefined(item);
    if (!item.text()) Fail("'in' a string needs a string, not " + TypeName(item));
    budget.Work(text->bytes.size());
    return FindText(text->bytes, item.text()->bytes, 0) != std::string_view::npos;
  }
  if (const Dict* dict = container.dict()) return Find(*dict, item, budget) != nullptr;
  if (container.Is<Undefined>()) return false;
  const List* list = container.list();
  if (!list) Fail("'in' needs a string, a list or a dictionary, not " + TypeName(container));
  return std::any_of(list->items.begin(), list->items.end(),
                     [&](const Value& v) { return Equal(v, item, budget); });
}

bool Holds(Relation relation, const Value& a, const Value& b, Budget& budget) {
  const bool nan =
      (a.As<double>() && std::isnan(*a.As<double>())) || (b.As<double>() && std::isnan(*b.As<double>()));
  switch (relation) {
    case Relation::kEqual:
      return Equal(a, b, budget);
    case Relation::kNotEqual:
      return !Equal(a, b, budget);
    case Relation::kIn:
      return Contains(b, a, budget);
    case Relation::kNotIn:
      return !Contains(b, a, budget);
    default:
      break;
  }
  const int order = Compare(a, b, budget);
  if (nan) return false;
  if (relation == Relation::kLess) return order < 0;
  if (relation == Relation::kLessEqual) return order <= 0;
  return relation == Relation::kGreater ? order > 0 : order >= 0;
}

Value Arithmetic(Op op, const Value& a, const Value& b, Budget& budget) {
  NeedDefined(a);
  if (op == Op::kModulo && a.text()) {
    const bool several = b.list() && b.list()->tuple;
    return FormatPercent(*a.text(), several ? b.list()->items : std::vector<Value>{b}, b.dict(), budget);
  }
  NeedDefined(b);
  const std::optional<int64_t> i = AsInt(a), j = AsInt(b);
  if (i && j) return IntArithmetic(op, *i, *j);
  const std::optional<double> x = AsNumber(a), y = AsNumber(b);
  if (x && y) return FloatArithmetic(op, *x, *y);
  if (op == Op::kAdd && a.text() && b.text()) {
    Text out;
    if (a.text()->bytes.size() + b.text()->bytes.size() > kMaxOutput) Fail("a string of more than 16 MiB");
    out.Append(*a.text());
    out.Append(*b.text());
    return MakeText(budget, std::move(out));
  }
  if (op == Op::kAdd && a.list() && b.list() && SameKind(*a.list(), *b.list())) {
    budget.Work((a.list()->items.size() + b.list()->items.size()) * sizeof(Value));
    std::vector<Value> items = a.list()->items;
    items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
    return MakeList(budget, std::move(items), a.list()->tuple);
  }
  if (op == Op::kMultiply && (a.text() || a.list()) && j) return Repeat(a, *j, budget);
  if (op == Op::kMultiply && (b.text() || b.list()) && i) return Repeat(b, *i, budget);
  Fail(std::string("'") + Sign(op) + "' does not take " + TypeName(a) + " and " + TypeName(b));
}

Value Negate(const Value& value) {
  NeedDefined(value);
  if (const std::optional<int64_t> number = AsInt(value)) return IntArithmetic(Op::kSubtract, 0, *number);
  if (const double* number = value.As<double>()) return MakeFloat(-*number);
  Fail("'-' does not take " + TypeName(value));
}

std::vector<Value> Items(const Value& value, Budget& budget) {
  std::vector<Value> items;
  if (value.Is<Undefined>()) return items;
  if (const List* list = value.list()) {
    budget.Work(list->items.size() * sizeof(Value));
    return list->items;
  }
  if (const Dict* dict = value.dict()) {
    budget.Work(dict->items.size() * sizeof(Value));
    for (const auto& item : dict->items) items.push_back(item.first);
    return items;
  }
  const Text* text = value.text();
  if (!text) Fail("cannot iterate over " + TypeName(value));
  budget.Step(CountChars(text->bytes));
  for (size_t at = 0, next = 0; at < text->bytes.size(); at = next) {
    next = at + CharLength(text->bytes, at);
    items.push_back(MakeText(budget, Slice(*text, at, next)));
  }
  return items;
}

int64_t Length(const Value& value, Budget& budget) {
  if (const Text* text = value.text()) {
    budget.Work(text->bytes.size());
    return CountChars(text->bytes);
  }
  if (const List* list = value.list()) return static_cast<int64_t>(list->items.size());
  if (const Dict* dict = value.dict()) return static_cast<int64_t>(dict->items.size());
  if (value.Is<Undefined>()) return 0;
  Fail(TypeName(value) + " has no length");
}

const Value* Find(const Dict& dict, const Value& key, Budget& budget) {
  for (const auto& item : dict.items)
    if (Equal(item.first, key, budget)) return &item.second;
  return nullptr;
}

Value GetAttr(const Value& value, const std::string& name, Budget& budget) {
  NeedDefined(value);
  // As in Python, a method hides a key of that name from x.name, not from x['name'].
  if (HasMethod(value, name)) return MakeMethod(value, name, budget);
  const Dict* dict = value.dict();
  if (dict && !IsChanging(value, name)) {
    for (const auto& [key, item] : dict->items)
      if (key.text() && key.text()->bytes == name) return item;
  } else if (const NamespacePtr* space = value.As<NamespacePtr>()) {
    for (const auto& [key, item] : (*space)->attributes)
      if (key == name) return item;
  } else if (const LoopPtr* loop = value.As<LoopPtr>()) {
    const int64_t i = (*loop)->index0, size = static_cast<int64_t>((*loop)->items->items.size());
    if (name == "index") return MakeInt(i + 1);
    if (name == "index0") return MakeInt(i);
    if (name == "revindex") return MakeInt(size - i);
    if (name == "revindex0") return MakeInt(size - i - 1);
    if (name == "first") return MakeBool(i == 0);
    if (name == "last") return MakeBool(i == size - 1);
    if (name == "length") return MakeInt(size);
    if (name == "depth") return MakeInt(1);  // deeper only in recursive loops
    if (name == "depth0") return MakeInt(0);
    if (name == "previtem" && i > 0) return (*loop)->items->items[static_cast<size_t>(i - 1)];
    if (name == "nextitem" && i + 1 < size) return (*loop)->items->items[static_cast<size_t>(i + 1)];
  }
  budget.Work(name.size());
  return MakeUndefined(TypeName(value) + " has no attribute '" + name + "'");
}

Value GetItem(const Value& value, const Value& key, Budget& budget) {
  NeedDefined(value);
  if (key.text() && !value.dict()) return GetAttr(value, key.text()->bytes, budget);
  if (const Dict* dict = value.dict()) {
    if (const Value* found = Find(*dict, key, budget)) return *found;
    if (key.text() && HasMethod(value, key.text()->bytes))
      return MakeMethod(value, key.text()->bytes, budget);
    return MakeUndefined("the dictionary has no key " + ToText(key, budget).bytes.substr(0, 100));
  }
  const std::optional<int64_t> index = AsInt(key);
  if (index && (value.text() || value.list())) {
    const int64_t size = Length(value, budget);
    const int64_t at = *index < 0 ? *index + size : *index;
    if (at < 0 || at >= size)
      return MakeUndefined(TypeName(value) + " of length " + std::to_string(size) + " has no item " +
                           std::to_string(*index));
    if (const List* list = value.list()) return list->items[static_cast<size_t>(at)];
    return GetSlice(value, MakeInt(at), MakeInt(at + 1), Value(None{}), budget);
  }
  return MakeUndefined(TypeName(value) + " has no item " + ToText(key, budget).bytes.substr(0, 100));
}

Value GetSlice(const Value& value, const Value& begin, const Value& end, const Value& step, Budget& budget) {
  NeedDefined(value);
  if (const List* list = value.list()) {
    const Range range = Clip(static_cast<int64_t>(list->items.size()), begin, end, step);
    budget.Work(static_cast<size_t>(range.count) * sizeof(Value));
    std::vector<Value> items;
    for (int64_t i = 0; i < range.count; ++i)
      items.push_back(list->items[static_cast<size_t>(range.begin + i * range.step)]);
    return MakeList(budget, std::move(items), list->tuple);
  }
  const Text* text = value.text();
  if (!text) Fail("cannot slice " + TypeName(value));
  budget.Work(text->bytes.size() * sizeof(size_t));
  const std::vector<size_t> starts = CharStarts(text->bytes);
  const Range range = Clip(static_cast<int64_t>(starts.size() - 1), begin, end, step);
  const size_t first = static_cast<size_t>(range.begin);
  if (range.count == 0) return MakeText(budget, {});
  if (range.step == 1)
    return MakeText(budget, Slice(*text, starts[first], starts[first + static_cast<size_t>(range.count)]));
  budget.Step(range.count);
  Text out;
  for (int64_t i = 0; i < range.count; ++i) {
    const size_t at = static_cast<size_t>(range.begin + i * range.step);
    out.AppendSlice(*text, starts[at], starts[at + 1]);
  }
  return MakeText(budget, std::move(out));
}

}  // namespace rung::text::jinja
