// The values a template computes with, and the budget that bounds what it may spend.
//
// Everything but a Namespace is immutable, and a Namespace may not hold another one: so values form no
// cycles, and their nesting (hence recursion over them and their destruction) is bounded by kMaxNesting.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace rung::text::jinja {

// Thrown inside the interpreter, caught at its border (chat_template.cc) and turned into a Failure.
struct Problem {
  std::string message;
  bool raised = false;  // by the template's own raise_exception
};

[[noreturn]] void Fail(std::string message);

constexpr int64_t kMaxSteps = 1'000'000;
constexpr size_t kMaxOutput = size_t{16} << 20;  // bytes of one string, the output included
constexpr size_t kMaxWork = size_t{512} << 20;   // bytes built or scanned in all: bounds memory and time
constexpr int64_t kMaxRange = 100'000;           // as Jinja's sandbox
constexpr int kMaxNesting = 64;                  // lists in lists

// What a rendering has spent. Every loop over foreign data pays before it runs.
class Budget {
 public:
  void Step(int64_t count = 1);
  void Work(size_t bytes);

 private:
  int64_t steps_ = 0;
  size_t work_ = 0;
};

// A string and where its bytes came from.
struct Text {
  struct Run {
    size_t begin, end;  // bytes
    int32_t source;     // index of the assistant message, or of the execution of a generation block
    bool closed;        // already extended over its end-of-turn marker
    size_t tail = 0;    // of a closed one that another's bytes follow: the template's bytes at its end
  };
  std::string bytes;
  std::vector<Run> runs;  // ascending, disjoint, not empty

  void Append(std::string_view plain) { bytes += plain; }
  void Append(const Text& other) { AppendSlice(other, 0, other.bytes.size()); }
  void AppendSlice(const Text& other, size_t begin, size_t end);
  // As `plain`, with the origin of other's byte `at`.
  void AppendAs(std::string_view plain, const Text& other, size_t at);
};

class Value;
struct Namespace;
struct Macro;
struct Loop;
struct Method;

struct Undefined {
  std::shared_ptr<const std::string> why;  // "'x' is undefined": the message when it is used
};
struct None {};
struct List {
  std::vector<Value> items;
  bool tuple = false;
  int nesting = 1;
  bool stateful = false;  // a namespace or loop is somewhere inside
};
struct Dict {
  std::vector<std::pair<Value, Value>> items;  // in order of insertion
  int32_t message = -1;                        // its index, when it is one of the conversation's messages
  int nesting = 1;
  bool stateful = false;
};
enum class Function { kRaise, kNamespace, kRange, kStrftime, kDict };

using TextPtr = std::shared_ptr<const Text>;
using ListPtr = std::shared_ptr<const List>;
using DictPtr = std::shared_ptr<const Dict>;
using NamespacePtr = std::shared_ptr<Namespace>;
using MacroPtr = std::shared_ptr<const Macro>;
using LoopPtr = std::shared_ptr<const Loop>;
using MethodPtr = std::shared_ptr<const Method>;

class Value {
 public:
  using Storage = std::variant<Undefined, None, bool, int64_t, double, TextPtr, ListPtr, DictPtr,
                               NamespacePtr, MacroPtr, LoopPtr, MethodPtr, Function>;
  Value() : storage_(Undefined{}) {}
  explicit Value(Storage storage) : storage_(std::move(storage)) {}

  template <class T>
  const T* As() const {
    return std::get_if<T>(&storage_);
  }
  template <class T>
  bool Is() const {
    return std::holds_alternative<T>(storage_);
  }
  const Text* text() const { return Is<TextPtr>() ? As<TextPtr>()->get() : nullptr; }
  const List* list() const { return Is<ListPtr>() ? As<ListPtr>()->get() : nullptr; }
  const Dict* dict() const { return Is<DictPtr>() ? As<DictPtr>()->get() : nullptr; }

 private:
  Storage storage_;
};

struct Namespace {
  std::vector<std::pair<std::string, Value>> attributes;
};

// The state of one iteration of a for loop, seen as `loop`.
struct Loop {
  ListPtr items;
  int64_t index0 = 0;
  std::shared_ptr<std::vector<Value>>
      seen;  // arguments of the last `changed`, of all iterations; may be null
};

// A method that is not called at once: `x.items` of a dictionary is this, whatever its keys.
struct Method {
  Value object;  // a string, a list or a dictionary
  std::string name;
};

Value MakeUndefined(std::string why);
Value MakeText(Budget& budget, Text text);
Value MakeString(Budget& budget, std::string_view text);
Value MakeInt(int64_t value);
Value MakeBool(bool value);
// Refuse nesting beyond kMaxNesting.
Value MakeList(Budget& budget, std::vector<Value> items, bool tuple = false);
Value MakeDict(Budget& budget, std::vector<std::pair<Value, Value>> items, int32_t message = -1);
int Nesting(const Value& value);
bool IsStateful(const Value& value);

}  // namespace rung::text::jinja
