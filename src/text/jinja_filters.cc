// The filters.
#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <map>
#include <string_view>
#include <utility>

#include "text/jinja_call.h"
#include "text/jinja_ops.h"
#include "text/jinja_text.h"

namespace rung::text::jinja {
namespace {

using Filter = Value (*)(const Value& input, const Arguments& arguments, Budget& budget);
using Filters = std::map<std::string_view, Filter>;

Value CaseFilter(const Value& input, const Arguments& arguments, Budget& budget, Case to) {
  const Bound bound(arguments, "a change of case", {});
  const Text text = ToText(input, budget);
  return MakeText(budget, ChangeCase(text, to));
}

Value Trim(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "trim", {"chars"});
  const Text text = ToText(input, budget);
  const std::string* chars = bound.String(0);
  if (chars) budget.Work(text.bytes.size() * chars->size());
  return MakeText(budget, Strip(text, Side::kBoth, chars));
}

Value LengthFilter(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "length", {});
  return MakeInt(Length(input, budget));
}

// "a.b.0" of an item, as map(attribute=...) and its kin look it up.
Value Dig(const Value& item, const Value& path, Budget& budget) {
  if (!path.text()) return GetItem(item, path, budget);
  const std::string& names = path.text()->bytes;
  if (names.size() > 1000) Fail("an attribute of more than 1000 bytes");
  Value value = item;
  for (size_t begin = 0; begin <= names.size();) {
    const size_t dot = std::min(names.find('.', begin), names.size());
    const std::string name = names.substr(begin, dot - begin);
    int64_t index = 0;
    const auto parsed = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool number = parsed.ec == std::errc() && parsed.ptr == name.data() + name.size() && name[0] != '-';
    value = GetItem(value, number ? MakeInt(index) : MakeString(budget, name), budget);
    begin = dot + 1;
  }
  return value;
}

Value JoinFilter(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "join", {"d", "attribute"});
  std::vector<Value> items = Items(input, budget);
  if (bound.Get(1))
    for (Value& item : items) item = Dig(item, *bound.Get(1), budget);
  return Join(items, bound.Get(0) ? ToText(*bound.Get(0), budget) : Text{}, budget);
}

Value ReplaceFilter(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "replace", {"old", "new", "count"});
  const Text text = ToText(input, budget), from = ToText(bound.Need(0), budget),
             to = ToText(bound.Need(1), budget);
  const bool all = !bound.Get(2) || bound.Get(2)->Is<None>();
  return MakeText(budget, Replace(text, from.bytes, to, all ? -1 : bound.Int(2, -1)));
}

Value Default(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "default", {"default_value", "boolean"});
  if (!input.Is<Undefined>() && !(bound.Flag(1, false) && !IsTrue(input))) return input;
  return bound.Get(0) ? *bound.Get(0) : MakeString(budget, "");
}

Value ToJson(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "tojson", {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = bound.Flag(0, false);
  style.sort = bound.Flag(3, false);
  if (bound.Get(1) && !bound.Get(1)->Is<None>()) {
    const Text* indent = bound.Get(1)->text();
    style.indent = indent
                       ? indent->bytes
                       : std::string(static_cast<size_t>(std::clamp<int64_t>(bound.Int(1, 0), 0, 64)), ' ');
    if (style.indent->size() > 64) Fail("tojson: 'indent' of more than 64 bytes");
    style.item = ",";
  }
  if (bound.Get(2) && !bound.Get(2)->Is<None>()) {
    const List* pair = bound.Get(2)->list();
    if (!pair || pair->items.size() != 2 || !pair->items[0].text() || !pair->items[1].text())
      Fail("tojson: 'separators' must be two strings");
    style.item = pair->items[0].text()->bytes;
    style.key = pair->items[1].text()->bytes;
    if (style.item.size() + style.key.size() > 64) Fail("tojson: 'separators' of more than 64 bytes");
  }
  Text out;
  AppendJson(out, input, style, 0, budget);
  return MakeText(budget, std::move(out));
}

std::string_view StripSpace(std::string_view text) {
  while (!text.empty() && IsSpace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
  while (!text.empty() && IsSpace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
  if (text.starts_with("+") && !text.starts_with("+-")) text.remove_prefix(1);
  return text;
}

bool ParseFloat(std::string_view text, double* value) {
  text = StripSpace(text);
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), *value);
  return !text.empty() && parsed.ec == std::errc() && parsed.ptr == text.data() + text.size();
}

// The digits of Python's int(): a prefix that fits the base, and underscores between digits.
std::string Digits(std::string_view text, int64_t base) {
  std::string digits;
  if (text.starts_with("-")) digits += '-', text.remove_prefix(1);
  const char prefix = base == 16 ? 'x' : base == 8 ? 'o' : base == 2 ? 'b' : '\0';
  if (prefix && text.size() > 2 && text[0] == '0' && (text[1] | 0x20) == prefix) text.remove_prefix(2);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '_' && i > 0 && i + 1 < text.size() && text[i - 1] != '_') continue;
    digits += text[i];
  }
  return digits;
}

Value IntFilter(const Value& input, const Arguments& arguments, Budget&) {
  const Bound bound(arguments, "int", {"default", "base"});
  if (input.Is<Undefined>()) Fail(*input.As<Undefined>()->why);
  const Value otherwise = bound.Get(0) ? *bound.Get(0) : MakeInt(0);
  if (const std::optional<int64_t> number = AsInt(input)) return MakeInt(*number);
  double real = 0;
  if (const Text* text = input.text()) {
    const int64_t base = bound.Int(1, 10);
    if (base < 2 || base > 36) Fail("int: a base from 2 to 36 is needed");
    const std::string digits = Digits(StripSpace(text->bytes), base);
    int64_t value = 0;
    const auto parsed =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, static_cast<int>(base));
    if (!digits.empty() && parsed.ec == std::errc() && parsed.ptr == digits.data() + digits.size())
      return MakeInt(value);
    if (!ParseFloat(text->bytes, &real)) return otherwise;
  } else if (input.Is<double>()) {
    real = *input.As<double>();
  } else {
    return otherwise;
  }
  if (!(std::fabs(real) < 9.2e18)) return otherwise;
  return MakeInt(static_cast<int64_t>(real));
}

Value FloatFilter(const Value& input, const Arguments& arguments, Budget&) {
  const Bound bound(arguments, "float", {"default"});
  if (input.Is<Undefined>()) Fail(*input.As<Undefined>()->why);
  double real = 0;
  if (const std::optional<double> number = AsNumber(input)) return Value(*number);
  if (input.text() && ParseFloat(input.text()->bytes, &real)) return Value(real);
  return bound.Get(0) ? *bound.Get(0) : Value(0.0);
}

Value EdgeFilter(const Value& input, const Arguments& arguments, Budget& budget, bool first) {
  const Bound bound(arguments, first ? "first" : "last", {});
  const std::vector<Value> items = Items(input, budget);
  if (items.empty())
    return MakeUndefined(first ? "no first item: the list is empty" : "no last item: the list is empty");
  return first ? items.front() : items.back();
}

Arguments Rest(const Arguments& arguments, size_t skip) {
  Arguments rest;
  rest.named = arguments.named;
  for (size_t i = skip; i < arguments.positional.size(); ++i)
    rest.positional.push_back(arguments.positional[i]);
  return rest;
}

// Jinja's map, select and their like take what is not true, none too, for a list without items.
std::vector<Value> ItemsIfTrue(const Value& input, Budget& budget) {
  return IsTrue(input) ? Items(input, budget) : std::vector<Value>();
}

Value Map(const Value& input, const Arguments& arguments, Budget& budget) {
  std::vector<Value> items = ItemsIfTrue(input, budget);
  budget.Step(static_cast<int64_t>(items.size()));
  if (arguments.positional.empty()) {
    const Bound bound(arguments, "map", {"attribute", "default"});
    for (Value& item : items) {
      item = Dig(item, bound.Need(0), budget);
      if (item.Is<Undefined>() && bound.Get(1)) item = *bound.Get(1);
    }
  } else {
    if (!arguments.positional[0].text()) Fail("map needs the name of a filter");
    const Arguments rest = Rest(arguments, 1);
    for (Value& item : items) item = ApplyFilter(arguments.positional[0].text()->bytes, item, rest, budget);
  }
  return MakeList(budget, std::move(items));
}

// select, reject, selectattr and rejectattr: keep the items that a test (or plain truth) holds or does not
// hold for.
Value Select(const Value& input, const Arguments& arguments, Budget& budget, bool by_attribute, bool keep) {
  const size_t first = by_attribute ? 1 : 0;
  if (arguments.positional.size() < first) Fail("selectattr and rejectattr need the name of an attribute");
  const Arguments rest = Rest(arguments, first + 1);
  const Value* test = arguments.positional.size() > first ? &arguments.positional[first] : nullptr;
  if (test && !test->text()) Fail("select and reject need the name of a test");
  std::vector<Value> kept;
  for (const Value& item : ItemsIfTrue(input, budget)) {
    budget.Step();
    const Value subject = by_attribute ? Dig(item, arguments.positional[0], budget) : item;
    if ((test ? ApplyTest(test->text()->bytes, subject, rest, budget) : IsTrue(subject)) == keep)
      kept.push_back(item);
  }
  return MakeList(budget, std::move(kept));
}

Value ItemsFilter(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "items", {});
  if (input.Is<Undefined>()) return MakeList(budget, {});
  if (!input.dict()) Fail("items needs a dictionary, not " + TypeName(input));
  return CallMethod(input, "items", {}, budget);
}

// What sorting compares: text without its case unless it counts.
Value SortKey(const Value& value, bool case_sensitive, Budget& budget) {
  if (!value.text() || case_sensitive) return value;
  return MakeText(budget, ChangeCase(*value.text(), Case::kLower));
}

Value SortBy(std::vector<std::pair<Value, Value>> keyed, bool reverse, Budget& budget) {
  std::stable_sort(keyed.begin(), keyed.end(), [&](const auto& a, const auto& b) {
    return reverse ? Compare(b.first, a.first, budget) < 0 : Compare(a.first, b.first, budget) < 0;
  });
  std::vector<Value> items;
  for (auto& item : keyed) items.push_back(std::move(item.second));
  return MakeList(budget, std::move(items));
}

Value DictSort(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "dictsort", {"case_sensitive", "by", "reverse"});
  if (!input.dict()) Fail("dictsort needs a dictionary, not " + TypeName(input));
  const std::string by = bound.Get(1) ? bound.NeedString(1) : "key";
  if (by != "key" && by != "value") Fail("dictsort: 'by' must be \"key\" or \"value\"");
  std::vector<std::pair<Value, Value>> keyed;
  for (const auto& [key, value] : input.dict()->items)
    keyed.emplace_back(SortKey(by == "key" ? key : value, bound.Flag(0, false), budget),
                       MakeList(budget, {key, value}, true));
  return SortBy(std::move(keyed), bound.Flag(2, false), budget);
}

Value Sort(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "sort", {"reverse", "case_sensitive", "attribute"});
  std::vector<std::pair<Value, Value>> keyed;
  for (const Value& item : Items(input, budget)) {
    const Value subject = bound.Get(2) ? Dig(item, *bound.Get(2), budget) : item;
    keyed.emplace_back(SortKey(subject, bound.Flag(1, false), budget), item);
  }
  return SortBy(std::move(keyed), bound.Flag(0, false), budget);
}

Value Extreme(const Value& input, const Arguments& arguments, Budget& budget, bool smallest) {
  const Bound bound(arguments, smallest ? "min" : "max", {"case_sensitive", "attribute"});
  Value best, best_key;
  for (const Value& item : Items(input, budget)) {
    const Value subject = bound.Get(1) ? Dig(item, *bound.Get(1), budget) : item;
    const Value key = SortKey(subject, bound.Flag(0, false), budget);
    const bool better = best.Is<Undefined>() ||
                        (smallest ? Compare(key, best_key, budget) < 0 : Compare(key, best_key, budget) > 0);
    if (better) best_key = key, best = item;
  }
  return best.Is<Undefined>() ? MakeUndefined("no item: the list is empty") : best;
}

Value Unique(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "unique", {"case_sensitive", "attribute"});
  std::vector<Value> kept, keys;
  for (const Value& item : Items(input, budget)) {
    const Value subject = bound.Get(1) ? Dig(item, *bound.Get(1), budget) : item;
    const Value key = SortKey(subject, bound.Flag(0, false), budget);
    if (std::any_of(keys.begin(), keys.end(), [&](const Value& seen) { return Equal(seen, key, budget); }))
      continue;
    keys.push_back(key);
    kept.push_back(item);
  }
  return MakeList(budget, std::move(kept));
}

Value Sum(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "sum", {"attribute", "start"});
  Value total = bound.Get(1) ? *bound.Get(1) : MakeInt(0);
  for (const Value& item : Items(input, budget)) {
    budget.Step();
    const bool dig = bound.Get(0) && !bound.Get(0)->Is<None>();
    total = Arithmetic(Op::kAdd, total, dig ? Dig(item, *bound.Get(0), budget) : item, budget);
  }
  return total;
}

Value Reverse(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "reverse", {});
  std::vector<Value> items = Items(input, budget);
  std::reverse(items.begin(), items.end());
  return input.text() ? Join(items, Text{}, budget) : MakeList(budget, std::move(items));
}

Value Indent(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "indent", {"width", "first", "blank"});
  if (!input.text()) Fail("indent needs a string, not " + TypeName(input));
  std::string margin;
  if (bound.Get(0) && bound.Get(0)->text()) {
    margin = bound.Get(0)->text()->bytes;
  } else {
    margin.assign(static_cast<size_t>(std::clamp<int64_t>(bound.Int(0, 4), 0, 1000)), ' ');
  }
  Text text = ToText(input, budget);
  text.Append("\n");  // as Jinja does, so that splitting keeps a last empty line
  const std::vector<Text> lines = SplitLines(text, false);
  Text out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.Append("\n");
    if (i == 0 ? bound.Flag(1, false) : !lines[i].bytes.empty() || bound.Flag(2, false)) out.Append(margin);
    out.Append(lines[i]);
    if (out.bytes.size() > kMaxOutput) Fail("a string of more than 16 MiB");
  }
  return MakeText(budget, std::move(out));
}

Value Abs(const Value& input, const Arguments& arguments, Budget&) {
  const Bound bound(arguments, "abs", {});
  const std::optional<double> number = AsNumber(input);
  if (!number) Fail("abs needs a number, not " + TypeName(input));
  if (input.Is<double>()) return Value(std::fabs(*number));
  return *number < 0 ? Negate(input) : MakeInt(*AsInt(input));
}

Value ListFilter(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "list", {});
  return MakeList(budget, Items(input, budget));
}

Value StringFilter(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "string", {});
  return input.text() ? input : MakeText(budget, ToText(input, budget));
}

// Python's round: to even at a tie, in decimal digits that the number really has.
double RoundHalfEven(double number, int64_t digits) {
  std::array<char, 512> buffer;  // at most 309 digits before the point, 100 behind it
  const int size = std::snprintf(buffer.data(), buffer.size(), "%.*f", static_cast<int>(digits), number);
  double rounded = number;
  std::from_chars(buffer.data(), buffer.data() + size, rounded);
  return rounded;
}

Value Round(const Value& input, const Arguments& arguments, Budget&) {
  const Bound bound(arguments, "round", {"precision", "method"});
  if (input.Is<Undefined>()) Fail(*input.As<Undefined>()->why);
  const std::optional<double> number = AsNumber(input);
  if (!number) Fail("round needs a number, not " + TypeName(input));
  const int64_t digits = bound.Int(0, 0);
  if (digits < 0 || digits > 100) Fail("round: a precision from 0 to 100 is needed");
  const std::string method = bound.Get(1) ? bound.NeedString(1) : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    Fail("round: 'method' must be \"common\", \"ceil\" or \"floor\"");
  if (method == "common")
    return AsInt(input) ? MakeInt(*AsInt(input)) : Value(RoundHalfEven(*number, digits));
  const double scale = std::pow(10.0, static_cast<double>(digits));
  return Value((method == "ceil" ? std::ceil(*number * scale) : std::floor(*number * scale)) / scale);
}

// Lists of `size` items each; the last is filled up when there is something to fill it with.
Value Batch(const Value& input, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "batch", {"linecount", "fill_with"});
  bound.Need(0);
  const int64_t size = bound.Int(0, 0);
  if (size < 1 || size > kMaxRange) Fail("batch: a size from 1 to 100000 is needed");
  std::vector<Value> batches, batch;
  const auto close = [&] { batches.push_back(MakeList(budget, std::exchange(batch, {}))); };
  for (const Value& item : Items(input, budget)) {
    budget.Step();
    if (static_cast<int64_t>(batch.size()) == size) close();
    batch.push_back(item);
  }
  if (batch.empty()) return MakeList(budget, std::move(batches));
  if (bound.Get(1) && !bound.Get(1)->Is<None>()) {
    budget.Step(size);
    batch.resize(static_cast<size_t>(size), *bound.Get(1));
  }
  close();
  return MakeList(budget, std::move(batches));
}

Value FormatFilter(const Value& input, const Arguments& arguments, Budget& budget) {
  const Text pattern = ToText(input, budget);
  if (arguments.named.empty()) return FormatPercent(pattern, arguments.positional, nullptr, budget);
  if (!arguments.positional.empty()) Fail("format takes values or names, not both");
  const Value named = CallFunction(Function::kDict, arguments, budget);
  return FormatPercent(pattern, {}, named.dict(), budget);
}

const Filters& Table() {
  static const Filters kFilters = {
      {"trim", Trim},
      {"upper",
       [](const Value& v, const Arguments& a, Budget& b) { return CaseFilter(v, a, b, Case::kUpper); }},
      {"lower",
       [](const Value& v, const Arguments& a, Budget& b) { return CaseFilter(v, a, b, Case::kLower); }},
      {"capitalize",
       [](const Value& v, const Arguments& a, Budget& b) { return CaseFilter(v, a, b, Case::kCapitalize); }},
      {"title",
       [](const Value& v, const Arguments& a, Budget& b) { return CaseFilter(v, a, b, Case::kJinjaTitle); }},
      {"length", LengthFilter},
      {"count", LengthFilter},
      {"join", JoinFilter},
      {"replace", ReplaceFilter},
      {"default", Default},
      {"d", Default},
      {"tojson", ToJson},
      {"string", StringFilter},
      {"safe", StringFilter},
      {"int", IntFilter},
      {"float", FloatFilter},
      {"list", ListFilter},
      {"first", [](const Value& v, const Arguments& a, Budget& b) { return EdgeFilter(v, a, b, true); }},
      {"last", [](const Value& v, const Arguments& a, Budget& b) { return EdgeFilter(v, a, b, false); }},
      {"map", Map},
      {"select", [](const Value& v, const Arguments& a, Budget& b) { return Select(v, a, b, false, true); }},
      {"reject", [](const Value& v, const Arguments& a, Budget& b) { return Select(v, a, b, false, false); }},
      {"selectattr",
       [](const Value& v, const Arguments& a, Budget& b) { return Select(v, a, b, true, true); }},
      {"rejectattr",
       [](const Value& v, const Arguments& a, Budget& b) { return Select(v, a, b, true, false); }},
      {"items", ItemsFilter},
      {"dictsort", DictSort},
      {"sort", Sort},
      {"min", [](const Value& v, const Arguments& a, Budget& b) { return Extreme(v, a, b, true); }},
      {"max", [](const Value& v, const Arguments& a, Budget& b) { return Extreme(v, a, b, false); }},
      {"unique", Unique},
      {"sum", Sum},
      {"reverse", Reverse},
      {"indent", Indent},
      {"abs", Abs},
      {"round", Round},
      {"batch", Batch},
      {"format", FormatFilter},
  };
  return kFilters;
}

}  // namespace

Value ApplyFilter(const std::string& name, const Value& input, const Arguments& arguments, Budget& budget) {
  const auto filter = Table().find(name);
  if (filter == Table().end()) Fail("unknown filter '" + name + "'");
  // map('map', 'map', ...) calls itself once per name, so the number of arguments bounds that recursion.
  if (arguments.positional.size() > 32) Fail("more than 32 arguments of the filter '" + name + "'");
  return filter->second(input, arguments, budget);
}

}  // namespace rung::text::jinja
