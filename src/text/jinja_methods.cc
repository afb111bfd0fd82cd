// The methods of strings, dictionaries and lists that templates call.
#include <algorithm>
#include <map>
#include <string_view>

#include "text/jinja_call.h"
#include "text/jinja_ops.h"
#include "text/jinja_text.h"

namespace rung::text::jinja {
namespace {

using Method = Value (*)(const Value& object, const Arguments& arguments, Budget& budget);
using Methods = std::map<std::string_view, Method>;

Value StripMethod(const Value& object, const Arguments& arguments, Budget& budget, Side side) {
  const Bound bound(arguments, "strip", {"chars"});
  const std::string* chars = bound.String(0);
  budget.Work(object.text()->bytes.size() * (chars ? chars->size() + 1 : 1));
  return MakeText(budget, Strip(*object.text(), side, chars));
}

Value SplitMethod(const Value& object, const Arguments& arguments, Budget& budget, bool from_right) {
  const Bound bound(arguments, "split", {"sep", "maxsplit"});
  const std::string* separator = bound.String(0);
  // From the right the search is the plain one, quadratic at worst.
  budget.Work(object.text()->bytes.size() * (from_right && separator ? separator->size() + 1 : 1));
  return MakeTexts(budget, Split(*object.text(), separator, bound.Int(1, -1), from_right));
}

Value CaseMethod(const Value& object, const Arguments& arguments, Budget& budget, Case to) {
  const Bound bound(arguments, "a change of case", {});
  budget.Work(object.text()->bytes.size());
  return MakeText(budget, ChangeCase(*object.text(), to));
}

Value AffixMethod(const Value& object, const Arguments& arguments, Budget& budget, bool start) {
  const Bound bound(arguments, start ? "startswith" : "endswith", {"text"});
  const std::string_view bytes = object.text()->bytes;
  const Value& affix = bound.Need(0);
  std::vector<Value> choices{affix};
  if (affix.list() && affix.list()->tuple) choices = Items(affix, budget);
  for (const Value& choice : choices) {
    if (!choice.text()) Fail("startswith and endswith take a string, not " + TypeName(choice));
    budget.Work(choice.text()->bytes.size());
    if (start ? bytes.starts_with(choice.text()->bytes) : bytes.ends_with(choice.text()->bytes))
      return MakeBool(true);
  }
  return MakeBool(false);
}

Value RemoveAffix(const Value& object, const Arguments& arguments, Budget& budget, bool start) {
  const Bound bound(arguments, start ? "removeprefix" : "removesuffix", {"text"});
  const Text& text = *object.text();
  const std::string& affix = bound.NeedString(0);
  const std::string_view bytes = text.bytes;
  if (start && bytes.starts_with(affix)) return MakeText(budget, Slice(text, affix.size(), bytes.size()));
  if (!start && bytes.ends_with(affix)) return MakeText(budget, Slice(text, 0, bytes.size() - affix.size()));
  return object;
}

// required: index and rindex, which fail where find and rfind say -1.
Value FindMethod(const Value& object, const Arguments& arguments, Budget& budget, bool from_right,
                 bool required) {
  const Bound bound(arguments, "a search", {"text", "start"});
  const std::string_view bytes = object.text()->bytes, needle = bound.NeedString(0);
  budget.Work(bytes.size() * (from_right ? needle.size() + 1 : 1));
  size_t start = 0;
  if (bound.Get(1) && !bound.Get(1)->Is<None>()) {
    const std::vector<size_t> starts = CharStarts(bytes);
    const int64_t size = static_cast<int64_t>(starts.size()) - 1, given = bound.Int(1, 0);
    if (given > size && required) Fail("index: the text is not there");
    if (given > size) return MakeInt(-1);
    start = starts[static_cast<size_t>(std::max<int64_t>(given < 0 ? given + size : given, 0))];
  }
  size_t at = from_right ? bytes.rfind(needle) : FindText(bytes, needle, start);
  if (at < start) at = std::string_view::npos;
  if (required && at == std::string_view::npos) Fail("index: the text is not there");
  return MakeInt(at == std::string_view::npos ? -1 : CountChars(bytes.substr(0, at)));
}

Value PartitionMethod(const Value& object, const Arguments& arguments, Budget& budget, bool from_right) {
  const Bound bound(arguments, "partition", {"sep"});
  const Text& text = *object.text();
  const std::string& separator = bound.NeedString(0);
  if (separator.empty()) Fail("partition: the separator is empty");
  budget.Work(text.bytes.size() * (from_right ? separator.size() + 1 : 1));
  const size_t at = from_right ? text.bytes.rfind(separator) : FindText(text.bytes, separator, 0);
  std::vector<Value> parts;
  if (at == std::string::npos) {
    parts = {object, MakeString(budget, ""), MakeString(budget, "")};
    if (from_right) std::swap(parts[0], parts[2]);
  } else {
    const size_t end = at + separator.size();
    parts = {MakeText(budget, Slice(text, 0, at)), MakeText(budget, Slice(text, at, end)),
             MakeText(budget, Slice(text, end, text.bytes.size()))};
  }
  return MakeList(budget, std::move(parts), true);
}

Value PadMethod(const Value& object, const Arguments& arguments, Budget& budget, Side side) {
  const Bound bound(arguments, "ljust and rjust", {"width", "fillchar"});
  bound.Need(0);
  const std::string fill = bound.Get(1) ? bound.NeedString(1) : " ";
  if (CountChars(fill) != 1) Fail("ljust and rjust: one character is needed to fill with");
  const int64_t missing = bound.Int(0, 0) - Length(object, budget);
  if (missing > kMaxRange) Fail("ljust and rjust: a width of more than 100000");
  std::string padding;
  for (int64_t i = 0; i < missing; ++i) padding += fill;
  Text out;
  if (side == Side::kRight) out.Append(padding);
  out.Append(*object.text());
  if (side == Side::kLeft) out.Append(padding);
  return MakeText(budget, std::move(out));
}

Value CountMethod(const Value& object, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "count", {"text"});
  const std::string_view bytes = object.text()->bytes, needle = bound.NeedString(0);
  budget.Work(bytes.size());
  if (needle.empty()) return MakeInt(CountChars(bytes) + 1);
  int64_t count = 0;
  for (size_t at = FindText(bytes, needle, 0); at != std::string_view::npos;
       at = FindText(bytes, needle, at + needle.size()))
    ++count;
  return MakeInt(count);
}

Value ReplaceMethod(const Value& object, const Arguments& arguments, Budget& budget) {
  const Bound bound(arguments, "replace", {"old", "new", "count"});
  budget.Work(object.text()->bytes.size());
  bound.NeedString(1);
  return MakeText(budget,
                  Replace(*object.text(), bound.NeedString(0), *bound.Get(1)->text(), bound.Int(2, -1)));
}

// Every character, and at least one, is in the set.
Value AllChars(const Value& object, const Arguments& arguments, Budget& budget, bool (*is)(int32_t)) {
  const Bound bound(arguments, "a question about a string", {});
  const std::string_view bytes = object.text()->bytes;
  budget.Work(bytes.size());
  for (size_t at = 0; at < bytes.size(); at += CharLength(bytes, at))
    if (!is(CodePoint(bytes, at))) return MakeBool(false);
  return MakeBool(!bytes.empty());
}

// A method with the last arguments of its function given.
template <auto kFunction, auto... kLast>
Value With(const Value& object, const Arguments& arguments, Budget& budget) {
  return kFunction(object, arguments, budget, kLast...);
}

const Methods& StringMethods() {
  static const Methods kMethods = {
      {"strip", With<StripMethod, Side::kBoth>},
      {"lstrip", With<StripMethod, Side::kLeft>},
      {"rstrip", With<StripMethod, Side::kRight>},
      {"split", With<SplitMethod, false>},
      {"rsplit", With<SplitMethod, true>},
      {"splitlines",
       [](const Value& o, const Arguments& a, Budget& b) {
         const Bound bound(a, "splitlines", {"keepends"});
         b.Work(o.text()->bytes.size());
         return MakeTexts(b, SplitLines(*o.text(), bound.Flag(0, false)));
       }},
      {"startswith", With<AffixMethod, true>},
      {"endswith", With<AffixMethod, false>},
      {"removeprefix", With<RemoveAffix, true>},
      {"removesuffix", With<RemoveAffix, false>},
      {"upper", With<CaseMethod, Case::kUpper>},
      {"lower", With<CaseMethod, Case::kLower>},
      {"title", With<CaseMethod, Case::kTitle>},
      {"capitalize", With<CaseMethod, Case::kCapitalize>},
      {"replace", ReplaceMethod},
      {"count", CountMethod},
      {"find", With<FindMethod, false, false>},
      {"rfind", With<FindMethod, true, false>},
      {"index", With<FindMethod, false, true>},
      {"rindex", With<FindMethod, true, true>},
      {"partition", With<PartitionMethod, false>},
      {"rpartition", With<PartitionMethod, true>},
      {"ljust", With<PadMethod, Side::kLeft>},
      {"rjust", With<PadMethod, Side::kRight>},
      {"format", [](const Value& o, const Arguments& a, Budget& b) { return FormatBraces(*o.text(), a, b); }},
      {"islower",
       [](const Value& o, const Arguments& a, Budget& b) { return MakeBool(ApplyTest("lower", o, a, b)); }},
      {"isupper",
       [](const Value& o, const Arguments& a, Budget& b) { return MakeBool(ApplyTest("upper", o, a, b)); }},
      {"join",
       [](const Value& o, const Arguments& a, Budget& b) {
         const Bound bound(a, "join", {"items"});
         return Join(Items(bound.Need(0), b), *o.text(), b);
       }},
      {"isspace", With<AllChars, IsSpace>},
      {"isdigit",
       [](const Value& o, const Arguments& a, Budget& b) {
         return AllChars(o, a, b, [](int32_t c) { return c >= '0' && c <= '9'; });
       }},
  };
  return kMethods;
}

Value ItemsMethod(const Value& object, const Arguments& arguments, Budget& budget, bool keys, bool values) {
  const Bound bound(arguments, keys && values ? "items" : keys ? "keys" : "values", {});
  std::vector<Value> out;
  for (const auto& [key, value] : object.dict()->items)
    out.push_back(keys && values ? MakeList(budget, {key, value}, true) : keys ? key : value);
  return MakeList(budget, std::move(out));
}

const Methods& DictMethods() {
  static const Methods kMethods = {
      {"items",
       [](const Value& o, const Arguments& a, Budget& b) { return ItemsMethod(o, a, b, true, true); }},
      {"keys",
       [](const Value& o, const Arguments& a, Budget& b) { return ItemsMethod(o, a, b, true, false); }},
      {"values",
       [](const Value& o, const Arguments& a, Budget& b) { return ItemsMethod(o, a, b, false, true); }},
      {"copy",
       [](const Value& o, const Arguments& a, Budget&) {
         const Bound bound(a, "copy", {});
         return o;
       }},
      {"get",
       [](const Value& o, const Arguments& a, Budget& b) {
         const Bound bound(a, "get", {"key", "default"});
         if (const Value* found = Find(*o.dict(), bound.Need(0), b)) return *found;
         return bound.Get(1) ? *bound.Get(1) : Value(None{});
       }},
  };
  return kMethods;
}

const Methods& ListMethods() {
  static const Methods kMethods = {
      {"count",
       [](const Value& o, const Arguments& a, Budget& b) {
         const Bound bound(a, "count", {"item"});
         int64_t count = 0;
         for (const Value& item : o.list()->items) count += Equal(item, bound.Need(0), b) ? 1 : 0;
         return MakeInt(count);
       }},
      {"index",
       [](const Value& o, const Arguments& a, Budget& b) {
         const Bound bound(a, "index", {"item"});
         for (size_t i = 0; i < o.list()->items.size(); ++i)
           if (Equal(o.list()->items[i], bound.Need(0), b)) return MakeInt(static_cast<int64_t>(i));
         Fail("index: the item is not in the list");
       }},
  };
  return kMethods;
}

const Methods* MethodsOf(const Value& object) {
  if (object.text()) return &StringMethods();
  if (object.dict()) return &DictMethods();
  if (object.list()) return &ListMethods();
  return nullptr;
}

Value CallCycle(const Loop& loop, const Arguments& arguments) {
  if (arguments.positional.empty()) Fail("cycle needs something to choose from");
  return arguments.positional[static_cast<size_t>(loop.index0) % arguments.positional.size()];
}

// Whether the arguments differ from those of the last call in this loop.
Value CallChanged(const Loop& loop, const Arguments& arguments, Budget& budget) {
  std::vector<Value>& seen = *loop.seen;
  bool same = seen.size() == arguments.positional.size() + 1;
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    // A loop that held itself would never be freed.
    if (IsStateful(arguments.positional[i])) Fail("changed does not take a namespace or a loop");
    same = same && Equal(seen[i + 1], arguments.positional[i], budget);
  }
  if (same) return MakeBool(false);
  budget.Work(arguments.positional.size() * sizeof(Value));
  seen.assign(1, Value(true));  // told apart from no call at all
  seen.insert(seen.end(), arguments.positional.begin(), arguments.positional.end());
  return MakeBool(true);
}

}  // namespace

bool HasMethod(const Value& object, const std::string& name) {
  const Methods* methods = MethodsOf(object);
  return methods && methods->contains(name);
}

bool IsChanging(const Value& object, const std::string& name) {
  static constexpr std::string_view kOfLists = " append extend insert remove sort reverse pop clear ";
  static constexpr std::string_view kOfDicts = " pop popitem clear update setdefault ";
  if (!object.dict() && (!object.list() || object.list()->tuple)) return false;
  return (object.dict() ? kOfDicts : kOfLists).find(" " + name + " ") != std::string_view::npos;
}

Value CallMethod(const Value& object, const std::string& name, const Arguments& arguments, Budget& budget) {
  if (HasMethod(object, name)) return MethodsOf(object)->at(name)(object, arguments, budget);
  if (const LoopPtr* loop = object.As<LoopPtr>()) {
    if (name == "cycle") return CallCycle(**loop, arguments);
    if (name == "changed") return CallChanged(**loop, arguments, budget);
  }
  if (IsChanging(object, name))
    Fail("'" + name + "' would change " + TypeName(object) + ", which templates may not: build a new one");
  Fail(TypeName(object) + " has no method '" + name + "'");
}

}  // namespace rung::text::jinja
