#include "text/jinja_value.h"

#include <algorithm>

namespace rung::text::jinja {

void Fail(std::string message) { throw Problem{std::move(message)}; }

void Budget::Step(int64_t count) {
  steps_ += count;
  if (steps_ > kMaxSteps) Fail("the template takes more than 1000000 steps");
}

void Budget::Work(size_t bytes) {
  if (bytes > kMaxWork - work_) Fail("the template builds too much text: more than 512 MiB in all");
  work_ += bytes;
}

void Text::AppendSlice(const Text& other, size_t begin, size_t end) {
  const size_t base = bytes.size();
  bytes.append(other.bytes, begin, end - begin);
  for (const Run& run : other.runs) {
    const size_t from = std::max(run.begin, begin), to = std::min(run.end, end);
    if (from >= to) continue;
    const size_t tail = run.tail - std::min(run.tail, run.end - to);
    const Run moved{base + from - begin, base + to - begin, run.source, run.closed,
                    std::min(tail, to - from)};
    if (!runs.empty() && runs.back().end == moved.begin && runs.back().source == moved.source &&
        runs.back().closed == moved.closed) {
      runs.back().end = moved.end;
      runs.back().tail = moved.tail;
    } else {
      if (runs.size() >= 1'000'000) Fail("a string pieced together from more than 1000000 parts");
      runs.push_back(moved);
    }
  }
}

void Text::AppendAs(std::string_view plain, const Text& other, size_t at) {
  if (plain.empty()) return;
  const size_t base = bytes.size();
  bytes += plain;
  const auto run = std::upper_bound(other.runs.begin(), other.runs.end(), at,
                                    [](size_t position, const Run& r) { return position < r.end; });
  if (run == other.runs.end() || run->begin > at) return;
  if (!runs.empty() && runs.back().end == base && runs.back().source == run->source &&
      runs.back().closed == run->closed) {
    runs.back().end = bytes.size();
  } else {
    runs.push_back({base, bytes.size(), run->source, run->closed});
  }
}

Value MakeUndefined(std::string why) {
  return Value(Undefined{std::make_shared<const std::string>(std::move(why))});
}

Value MakeText(Budget& budget, Text text) {
  if (text.bytes.size() > kMaxOutput) Fail("a string of more than 16 MiB");
  budget.Work(text.bytes.size() + sizeof(Text) + text.runs.size() * sizeof(Text::Run));
  return Value(std::make_shared<const Text>(std::move(text)));
}

Value MakeString(Budget& budget, std::string_view text) {
  return MakeText(budget, Text{std::string(text), {}});
}

Value MakeInt(int64_t value) { return Value(value); }
Value MakeBool(bool value) { return Value(value); }

int Nesting(const Value& value) {
  if (const List* list = value.list()) return list->nesting;
  if (const Dict* dict = value.dict()) return dict->nesting;
  if (const LoopPtr* loop = value.As<LoopPtr>()) return (*loop)->items->nesting + 1;
  if (const MethodPtr* method = value.As<MethodPtr>()) return Nesting((*method)->object) + 1;
  // A namespace holds no namespace, so what hangs below it is at most this deep.
  if (value.Is<NamespacePtr>()) return 1;
  return 0;
}

bool IsStateful(const Value& value) {
  if (const List* list = value.list()) return list->stateful;
  if (const Dict* dict = value.dict()) return dict->stateful;
  if (const MethodPtr* method = value.As<MethodPtr>()) return IsStateful((*method)->object);
  return value.Is<NamespacePtr>() || value.Is<LoopPtr>();
}

Value MakeList(Budget& budget, std::vector<Value> items, bool tuple) {
  budget.Work(sizeof(List) + items.size() * sizeof(Value));
  List list;
  list.tuple = tuple;
  for (const Value& item : items) {
    list.nesting = std::max(list.nesting, Nesting(item) + 1);
    list.stateful = list.stateful || IsStateful(item);
  }
  if (list.nesting > kMaxNesting) Fail("lists nested more than 64 deep");
  list.items = std::move(items);
  return Value(std::make_shared<const List>(std::move(list)));
}

Value MakeDict(Budget& budget, std::vector<std::pair<Value, Value>> items, int32_t message) {
  budget.Work(sizeof(Dict) + items.size() * 2 * sizeof(Value));
  Dict dict;
  dict.message = message;
  for (const auto& [key, value] : items) {
    const bool hashable =
        key.text() || key.Is<bool>() || key.Is<int64_t>() || key.Is<double>() || key.Is<None>();
    if (!hashable) Fail("a dictionary key must be a string, a number, a boolean or none");
    dict.nesting = std::max(dict.nesting, Nesting(value) + 1);
    dict.stateful = dict.stateful || IsStateful(value);
  }
  if (dict.nesting > kMaxNesting) Fail("dictionaries nested more than 64 deep");
  dict.items = std::move(items);
  return Value(std::make_shared<const Dict>(std::move(dict)));
}

}  // namespace rung::text::jinja
