// Arguments, and the global functions.
#include "text/jinja_call.h"

#include <array>
#include <ctime>

#include "text/jinja_ops.h"

namespace rung::text::jinja {
namespace {

Value CallRange(const Arguments& arguments, Budget& budget) {
  if (!arguments.named.empty()) Fail("range takes no named arguments");
  const std::vector<Value>& given = arguments.positional;
  if (given.empty() || given.size() > 3) Fail("range takes 1 to 3 arguments");
  std::array<int64_t, 3> numbers = {0, 0, 1};
  for (size_t i = 0; i < given.size(); ++i)
    numbers[given.size() == 1 ? 1 : i] = NeedInt(given[i], "range: an argument");
  const auto [begin, end, step] = numbers;
  if (step == 0) Fail("range: the step is 0");
  // Distances as doubles: exact enough to tell 100000 from more, and free of overflow.
  const double count = (static_cast<double>(end) - static_cast<double>(begin)) / static_cast<double>(step);
  if (count > static_cast<double>(kMaxRange)) Fail("range: more than 100000 numbers");
  std::vector<Value> items;
  if (count > 0) {
    int64_t value = begin;
    while (step > 0 ? value < end : value > end) {
      items.push_back(MakeInt(value));
      if (__builtin_add_overflow(value, step, &value)) break;
    }
  }
  budget.Step(static_cast<int64_t>(items.size()));
  return MakeList(budget, std::move(items));
}

Value CallDict(const Arguments& arguments, Budget& budget) {
  if (arguments.positional.size() > 1) Fail("dict takes at most one dictionary");
  std::vector<std::pair<Value, Value>> items;
  if (!arguments.positional.empty()) {
    const Dict* dict = arguments.positional[0].dict();
    if (!dict) Fail("dict takes a dictionary, not " + TypeName(arguments.positional[0]));
    budget.Work(dict->items.size() * 2 * sizeof(Value));
    items = dict->items;
  }
  for (const auto& [name, value] : arguments.named) {
    bool known = false;
    for (auto& item : items) {
      if (!item.first.text() || item.first.text()->bytes != name) continue;
      item.second = value;
      known = true;
    }
    if (!known) items.emplace_back(MakeString(budget, name), value);
  }
  return MakeDict(budget, std::move(items));
}

}  // namespace

Bound::Bound(const Arguments& arguments, std::string function, std::initializer_list<const char*> parameters)
    : function_(std::move(function)), parameters_(parameters), values_(parameters.size(), nullptr) {
  if (arguments.positional.size() > parameters.size())
    Fail(function_ + " takes at most " + std::to_string(parameters.size()) + " arguments");
  for (size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    size_t i = 0;
    while (i < parameters_.size() && name != parameters_[i]) ++i;
    if (i == parameters_.size()) Fail(function_ + " has no parameter '" + name + "'");
    if (values_[i]) Fail(function_ + ": '" + name + "' is given twice");
    values_[i] = &value;
  }
}

const Value& Bound::Need(size_t parameter) const {
  if (!values_[parameter]) Fail(function_ + " needs the argument '" + parameters_[parameter] + "'");
  return *values_[parameter];
}

int64_t Bound::Int(size_t parameter, int64_t otherwise) const {
  if (!values_[parameter]) return otherwise;
  return NeedInt(*values_[parameter], (function_ + ": '" + parameters_[parameter] + "'").c_str());
}

bool Bound::Flag(size_t parameter, bool otherwise) const {
  return values_[parameter] ? IsTrue(*values_[parameter]) : otherwise;
}

const std::string* Bound::String(size_t parameter) const {
  const Value* value = values_[parameter];
  if (!value || value->Is<None>()) return nullptr;
  if (!value->text())
    Fail(function_ + ": '" + parameters_[parameter] + "' must be a string, not " + TypeName(*value));
  return &value->text()->bytes;
}

const std::string& Bound::NeedString(size_t parameter) const {
  Need(parameter);
  const std::string* text = String(parameter);
  if (!text) Fail(function_ + ": '" + parameters_[parameter] + "' must be a string, not none");
  return *text;
}

Value CallFunction(Function function, const Arguments& arguments, Budget& budget) {
  switch (function) {
    case Function::kRange:
      return CallRange(arguments, budget);
    case Function::kDict:
      return CallDict(arguments, budget);
    default:
      break;
  }
  const Bound bound(arguments, "raise_exception", {"message"});
  throw Problem{ToText(bound.Need(0), budget).bytes.substr(0, 2000), true};
}

Value CallStrftime(const Arguments& arguments, std::optional<int64_t> now, Budget& budget) {
  const Bound bound(arguments, "strftime_now", {"format"});
  const std::string& format = bound.NeedString(0);
  if (format.empty()) return MakeString(budget, "");
  const std::time_t time = now ? static_cast<std::time_t>(*now) : std::time(nullptr);
  std::tm parts{};
  if (!(now ? gmtime_r(&time, &parts) : localtime_r(&time, &parts)))
    Fail("strftime_now: a time beyond all years");
  std::array<char, 1024> buffer;
  const size_t size = std::strftime(buffer.data(), buffer.size(), format.c_str(), &parts);
  if (size == 0) Fail("strftime_now: a format that gives no text, or more than 1000 bytes of it");
  return MakeString(budget, std::string_view(buffer.data(), size));
}

Value MakeTexts(Budget& budget, std::vector<Text> parts) {
  budget.Step(static_cast<int64_t>(parts.size()));
  std::vector<Value> items;
  items.reserve(parts.size());
  for (Text& part : parts) items.push_back(MakeText(budget, std::move(part)));
  return MakeList(budget, std::move(items));
}

Value Join(const std::vector<Value>& items, const Text& separator, Budget& budget) {
  Text out;
  budget.Step(static_cast<int64_t>(items.size()));
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.Append(separator);
    AppendStr(out, items[i], budget);
  }
  return MakeText(budget, std::move(out));
}

}  // namespace rung::text::jinja
