#include "text/jinja_eval.h"

#include <algorithm>

#include "text/jinja_call.h"
#include "text/jinja_ops.h"
#include "text/jinja_text.h"
#include "text/jinja_turns.h"

namespace rung::text::jinja {

// Names by value would cost an allocation per assignment; the tree outlives every scope.
struct Scope {
  std::shared_ptr<const Scope> outer;
  std::vector<std::pair<std::string_view, Value>> names;

  Value* Find(std::string_view name) {
    for (auto& [known, value] : names)
      if (known == name) return &value;
    return nullptr;
  }
  void Set(std::string_view name, Value value) {
    if (Value* known = Find(name)) {
      *known = std::move(value);
    } else {
      names.emplace_back(name, std::move(value));
    }
  }
};

// Weak: a scope holds the macros defined in it, and would else never be freed.
struct Macro {
  const Node* node;
  std::weak_ptr<const Scope> scope;
};

namespace {

constexpr int kMaxCalls = 100;  // macros within macros
constexpr int kMaxDepth =
    1000;  // statements and expressions within each other, over all calls: bounds the stack

enum class Flow { kOn, kBreak, kContinue };

class Interpreter {
 public:
  Interpreter(const Syntax& syntax, const Given& given, Budget& budget)
      : syntax_(syntax), given_(given), budget_(budget) {}

  Text Run() {
    scope_ = std::make_shared<Scope>();
    for (const auto& [name, value] : given_.variables) scope_->names.emplace_back(name, value);
    Push();  // what the template sets does not touch what it was given
    Text out;
    out_ = &out;
    try {
      Exec(syntax_.body);
    } catch (Problem& problem) {
      throw PlacedProblem{std::move(problem), at_};
    }
    return out;
  }

 private:
  struct Depth {
    explicit Depth(int& depth, int limit) : depth_(depth) {
      if (++depth_ > limit) Fail("nested too deeply: macros that call each other without end?");
    }
    ~Depth() { --depth_; }
    int& depth_;
  };

  void Push() {
    auto inner = std::make_shared<Scope>();
    inner->outer = scope_;
    scope_ = std::move(inner);
  }

  Flow Exec(const Body& body) {
    for (const Node& node : body)
      if (const Flow flow = Exec(node); flow != Flow::kOn) return flow;
    return Flow::kOn;
  }

  Flow Exec(const Node& node) {
    const Depth depth(depth_, kMaxDepth);
    budget_.Step();
    at_ = node.at;
    switch (node.tag) {
      case Tag::kText:
      case Tag::kPrint:
        Emit(node.tag == Tag::kText ? node.text : Eval(*node.exprs[0]), node.at);
        return Flow::kOn;
      case Tag::kIf:
        return ExecIf(node);
      case Tag::kFor:
        return ExecFor(node);
      case Tag::kSet:
        Assign(node.target, Eval(*node.exprs[0]), node.at);
        return Flow::kOn;
      case Tag::kSetBlock:
      case Tag::kFilter:
        return ExecCaptured(node);
      case Tag::kMacro:
        scope_->Set(node.name, MakeMacro(node));
        return Flow::kOn;
      case Tag::kCallBlock:
        ExecCallBlock(node);
        return Flow::kOn;
      case Tag::kWith:
        return ExecWith(node);
      case Tag::kGeneration:
        ExecGeneration(node);
        return Flow::kOn;
      case Tag::kBreak:
        return Flow::kBreak;
      case Tag::kContinue:
        return Flow::kContinue;
    }
    return Flow::kOn;
  }

  void Emit(const Value& value, uint32_t at) {
    at_ = at;
    AppendStr(*out_, value, budget_);
  }

  Flow ExecIf(const Node& node) {
    for (size_t i = 0; i < node.exprs.size(); ++i)
      if (IsTrue(Eval(*node.exprs[i]))) return Exec(node.bodies[i]);
    return node.bodies.size() > node.exprs.size() ? Exec(node.bodies.back()) : Flow::kOn;
  }

  // Runs `body` in a scope of its own.
  template <class Action>
  auto Scoped(const Action& body) {
    const std::shared_ptr<Scope> outer = scope_;
    Push();
    auto result = body();
    scope_ = outer;
    return result;
  }

  // What `body` writes, as a text.
  template <class Action>
  Text Captured(const Action& body) {
    Text text;
    Text* const outer = out_;
    out_ = &text;
    body();
    out_ = outer;
    return text;
  }

  Flow ExecFor(const Node& node) {
    std::vector<Value> items = Items(Eval(*node.exprs[0]), budget_);
    if (node.exprs[1]) items = Filtered(node, std::move(items));
    if (items.empty()) {
      if (node.bodies.size() < 2) return Flow::kOn;
      return Scoped([&] { return Exec(node.bodies[1]); });
    }
    const Value list = MakeList(budget_, std::move(items));
    ++loops_;
    const auto seen = std::make_shared<std::vector<Value>>();
    for (size_t i = 0; i < list.list()->items.size(); ++i) {
      const Flow flow = Scoped([&] {
        return ExecIteration(node, {*list.As<ListPtr>(), static_cast<int64_t>(i), seen});
      });
      if (flow == Flow::kBreak) break;
    }
    --loops_;
    return Flow::kOn;
  }

  std::vector<Value> Filtered(const Node& node, std::vector<Value> items) {
    std::vector<Value> kept;
    for (Value& item : items) {
      const bool keep = Scoped([&] {
        Assign(node.target, item, node.at);
        return IsTrue(Eval(*node.exprs[1]));
      });
      if (keep) kept.push_back(std::move(item));
    }
    return kept;
  }

  Flow ExecIteration(const Node& node, Loop loop) {
    budget_.Step();
    budget_.Work(sizeof(Scope) + sizeof(Loop));
    const Value item = loop.items->items[static_cast<size_t>(loop.index0)];
    Assign(node.target, item, node.at);
    scope_->Set("loop", Value(std::make_shared<const Loop>(std::move(loop))));
    const size_t begin = out_->bytes.size();
    const int32_t message = item.dict() ? item.dict()->message : -1;
    const int32_t outer = message_;
    if (message >= 0) message_ = message;
    const Flow flow = Exec(node.bodies[0]);
    message_ = outer;
    if (message < 0 && loops_ > 1) return flow;
    const std::optional<size_t> own = CloseTurn(*out_, begin, message, given_.speakers);
    if (own && given_.header) *given_.header = out_->bytes.substr(begin, *own - begin);
    return flow;
  }

  void ExecGeneration(const Node& node) {
    const Text text = Captured([&] { Scoped([&] { return Exec(node.bodies[0]); }); });
    Text learned{text.bytes, {}};
    if (!text.bytes.empty()) {
      learned.runs.push_back({0, text.bytes.size(), generations_++, true});
      if (given_.generations) given_.generations->push_back(message_);
    }
    Emit(MakeText(budget_, std::move(learned)), node.at);
  }

  // {% set x %}...{% endset %} and {% filter f %}...{% endfilter %}.
  Flow ExecCaptured(const Node& node) {
    Flow flow = Flow::kOn;
    Text text = Captured([&] { flow = Scoped([&] { return Exec(node.bodies[0]); }); });
    if (flow != Flow::kOn) return flow;
    Value value = MakeText(budget_, std::move(text));
    if (node.exprs[0]) value = EvalFilter(*node.exprs[0], &value);
    if (node.tag == Tag::kFilter) {
      Emit(value, node.at);
    } else {
      Assign(node.target, std::move(value), node.at);
    }
    return Flow::kOn;
  }

  Flow ExecWith(const Node& node) {
    std::vector<Value> values;
    for (const ExprPtr& expr : node.exprs) values.push_back(Eval(*expr));
    return Scoped([&] {
      for (size_t i = 0; i < values.size(); ++i) scope_->Set(node.parameters[i], values[i]);
      return Exec(node.bodies[0]);
    });
  }

  void ExecCallBlock(const Node& node) {
    const Expr& call = *node.exprs.back();
    const Value callee = Eval(*call.operands[0]);
    const Arguments arguments = EvalArguments(call, 1);
    at_ = call.at;
    const MacroPtr* macro = callee.As<MacroPtr>();
    if (!macro) Fail("'call' needs a macro, not " + TypeName(callee));
    const Value caller = MakeMacro(node);
    Emit(CallMacro(**macro, arguments, &caller), node.at);
  }

  void Assign(const Target& target, Value value, uint32_t at) {
    at_ = at;
    if (!target.parts.empty()) {
      const std::vector<Value> values = Items(value, budget_);
      if (values.size() != target.parts.size())
        Fail(std::to_string(target.parts.size()) + " names for " + std::to_string(values.size()) + " values");
      for (size_t i = 0; i < values.size(); ++i) Assign(target.parts[i], values[i], at);
    } else if (!target.attribute.empty()) {
      const Value space = Lookup(target.name);
      const NamespacePtr* attributes = space.As<NamespacePtr>();
      if (!attributes) Fail("cannot set an attribute of " + TypeName(space) + ": only of a namespace");
      SetAttribute(**attributes, target.attribute, std::move(value));
    } else {
      scope_->Set(target.name, std::move(value));
    }
  }

  static void SetAttribute(Namespace& space, const std::string& name, Value value) {
    if (name.starts_with("_")) Fail("a namespace cannot have a name that begins with '_': '" + name + "'");
    if (IsStateful(value)) Fail("a namespace cannot hold a namespace or a loop");
    for (auto& [known, old] : space.attributes) {
      if (known != name) continue;
      old = std::move(value);
      return;
    }
    space.attributes.emplace_back(name, std::move(value));
  }

  Value Lookup(const std::string& name) const {
    static constexpr std::pair<std::string_view, Function> kFunctions[] = {
        {"raise_exception", Function::kRaise},
        {"namespace", Function::kNamespace},
        {"range", Function::kRange},
        {"strftime_now", Function::kStrftime},
        {"dict", Function::kDict}};
    for (const Scope* scope = scope_.get(); scope; scope = scope->outer.get())
      for (const auto& [known, value] : scope->names)
        if (known == name) return value;
    for (const auto& [known, function] : kFunctions)
      if (known == name) return Value(function);
    budget_.Work(name.size());
    return MakeUndefined("'" + name + "' is undefined");
  }

  Value MakeMacro(const Node& node) const {
    return Value(std::make_shared<const Macro>(Macro{&node, scope_}));
  }

  Arguments EvalArguments(const Expr& call, size_t first) {
    Arguments arguments;
    const size_t named = call.operands.size() - call.keywords.size();
    for (size_t i = first; i < call.operands.size(); ++i) {
      Value value = Eval(*call.operands[i]);
      if (i < named) {
        arguments.positional.push_back(std::move(value));
      } else if (call.keywords[i - named] == "*") {
        for (Value& item : Items(value, budget_)) arguments.positional.push_back(std::move(item));
      } else if (call.keywords[i - named] == "**") {
        SpreadNames(value, arguments);
      } else {
        arguments.named.emplace_back(call.keywords[i - named], std::move(value));
      }
    }
    return arguments;
  }

  void SpreadNames(const Value& value, Arguments& arguments) {
    if (!value.dict()) Fail("'**' needs a dictionary, not " + TypeName(value));
    budget_.Step(static_cast<int64_t>(value.dict()->items.size()));
    for (const auto& [key, item] : value.dict()->items) {
      if (!key.text()) Fail("'**' needs names as keys, not " + TypeName(key));
      const std::string& name = key.text()->bytes;
      for (const auto& known : arguments.named)
        if (known.first == name) Fail("the argument '" + name + "' is given twice");
      arguments.named.emplace_back(name, item);
    }
  }

  Value CallMacro(const Macro& macro, const Arguments& arguments, const Value* caller) {
    const Depth calls(calls_, kMaxCalls);
    const Node& node = *macro.node;
    const std::shared_ptr<const Scope> home = macro.scope.lock();
    if (!home) Fail("the macro '" + node.name + "' is called outside of the block that defines it");
    const std::shared_ptr<Scope> outer = scope_;
    scope_ = std::make_shared<Scope>();
    scope_->outer = home;
    if (caller) scope_->Set("caller", *caller);
    Text text = Captured([&] {
      BindParameters(node, arguments);
      Exec(node.bodies[0]);
    });
    scope_ = outer;
    return MakeText(budget_, std::move(text));
  }

  void BindParameters(const Node& node, const Arguments& arguments) {
    const std::vector<std::string>& names = node.parameters;
    // Of a call block, the last expression is the call itself.
    const size_t defaults = node.exprs.size() - (node.tag == Tag::kCallBlock ? 1 : 0);
    if (arguments.positional.size() > names.size())
      Fail("the macro '" + node.name + "' takes " + std::to_string(names.size()) + " arguments, not " +
           std::to_string(arguments.positional.size()));
    for (size_t i = 0; i < arguments.positional.size(); ++i) scope_->Set(names[i], arguments.positional[i]);
    for (const auto& [name, value] : arguments.named) {
      const auto known = std::find(names.begin(), names.end(), name);
      if (known == names.end()) Fail("the macro '" + node.name + "' has no parameter '" + name + "'");
      if (static_cast<size_t>(known - names.begin()) < arguments.positional.size())
        Fail("the macro '" + node.name + "' is given '" + name + "' twice");
      scope_->Set(*known, value);
    }
    for (size_t i = 0; i < names.size(); ++i) {
      if (scope_->Find(names[i])) continue;
      const bool has_default = i + defaults >= names.size();
      scope_->Set(names[i], has_default ? Eval(*node.exprs[i + defaults - names.size()])
                                        : MakeUndefined("the parameter '" + names[i] + "' was not given"));
    }
  }

  Value EvalCall(const Expr& expr) {
    const Expr& callee = *expr.operands[0];
    if (callee.op != Op::kAttr) {
      const Value function = Eval(callee);
      const Arguments arguments = EvalArguments(expr, 1);
      at_ = expr.at;
      return CallValue(function, arguments);
    }
    const Value object = Eval(*callee.operands[0]);
    at_ = callee.at;
    const Value item = HasMethod(object, callee.name) ? Value() : GetAttr(object, callee.name, budget_);
    const Arguments arguments = EvalArguments(expr, 1);
    at_ = callee.at;
    if (item.Is<Undefined>()) return CallMethod(object, callee.name, arguments, budget_);
    return CallValue(item, arguments);
  }

  Value CallValue(const Value& function, const Arguments& arguments) {
    if (const MacroPtr* macro = function.As<MacroPtr>()) return CallMacro(**macro, arguments, nullptr);
    if (const MethodPtr* method = function.As<MethodPtr>())
      return CallMethod((*method)->object, (*method)->name, arguments, budget_);
    if (function.Is<Undefined>()) Fail(*function.As<Undefined>()->why);
    if (!function.Is<Function>()) Fail(TypeName(function) + " cannot be called");
    if (*function.As<Function>() == Function::kNamespace) return MakeNamespace(arguments);
    if (*function.As<Function>() == Function::kStrftime) return CallStrftime(arguments, given_.now, budget_);
    return CallFunction(*function.As<Function>(), arguments, budget_);
  }

  Value MakeNamespace(const Arguments& arguments) {
    auto space = std::make_shared<Namespace>();
    budget_.Work(sizeof(Namespace) + arguments.named.size() * 64);
    const Value given = CallFunction(Function::kDict, arguments, budget_);
    for (const auto& [name, value] : given.dict()->items) {
      if (!name.text()) Fail("namespace: a name must be a string, not " + TypeName(name));
      SetAttribute(*space, name.text()->bytes, value);
    }
    return Value(std::move(space));
  }

  Value Eval(const Expr& expr) {
    const Depth depth(depth_, kMaxDepth);
    budget_.Step();
    at_ = expr.at;
    switch (expr.op) {
      case Op::kConst:
        return expr.value;
      case Op::kName:
        return Lookup(expr.name);
      case Op::kList:
      case Op::kTuple:
        return MakeList(budget_, EvalAll(expr), expr.op == Op::kTuple);
      case Op::kDict:
        return EvalDict(expr);
      case Op::kAttr:
      case Op::kItem:
      case Op::kSlice:
        return EvalPart(expr);
      case Op::kCall:
        return EvalCall(expr);
      case Op::kFilter:
        return EvalFilter(expr, nullptr);
      case Op::kTest:
        return EvalTest(expr);
      case Op::kAnd:
      case Op::kOr: {
        Value left = Eval(*expr.operands[0]);
        return IsTrue(left) == (expr.op == Op::kOr) ? left : Eval(*expr.operands[1]);
      }
      case Op::kCompare:
        return EvalCompare(expr);
      case Op::kCond:
        if (IsTrue(Eval(*expr.operands[0]))) return Eval(*expr.operands[1]);
        return expr.operands[2] ? Eval(*expr.operands[2])
                                : MakeUndefined("an inline 'if' without 'else' gave nothing");
      case Op::kConcat:
        return EvalConcat(expr);
      default:
        return EvalOperator(expr);
    }
  }

  std::vector<Value> EvalAll(const Expr& expr) {
    std::vector<Value> values;
    for (const ExprPtr& operand : expr.operands) values.push_back(Eval(*operand));
    at_ = expr.at;
    return values;
  }

  Value EvalOperator(const Expr& expr) {
    const Value left = Eval(*expr.operands[0]);
    at_ = expr.at;
    if (expr.op == Op::kNot) return MakeBool(!IsTrue(left));
    if (expr.op == Op::kNegate) return Negate(left);
    if (expr.op == Op::kPlus) return Negate(Negate(left));
    const Value right = Eval(*expr.operands[1]);
    at_ = expr.at;
    return Arithmetic(expr.op, left, right, budget_);
  }

  Value EvalConcat(const Expr& expr) {
    Text out;
    for (const Value& value : EvalAll(expr)) AppendStr(out, value, budget_);
    return MakeText(budget_, std::move(out));
  }

  Value EvalDict(const Expr& expr) {
    const std::vector<Value> values = EvalAll(expr);
    std::vector<std::pair<Value, Value>> items;
    for (size_t i = 0; i < values.size(); i += 2) {
      const auto known = std::find_if(items.begin(), items.end(), [&](const auto& item) {
        return Equal(item.first, values[i], budget_);
      });
      if (known != items.end()) {
        known->second = values[i + 1];
      } else {
        items.emplace_back(values[i], values[i + 1]);
      }
    }
    return MakeDict(budget_, std::move(items));
  }

  Value EvalPart(const Expr& expr) {
    const Value object = Eval(*expr.operands[0]);
    std::vector<Value> parts;
    for (size_t i = 1; i < expr.operands.size(); ++i)
      parts.push_back(expr.operands[i] ? Eval(*expr.operands[i]) : Value(None{}));
    at_ = expr.at;
    if (expr.op == Op::kAttr) return GetAttr(object, expr.name, budget_);
    if (expr.op == Op::kItem) return GetItem(object, parts[0], budget_);
    return GetSlice(object, parts[0], parts[1], parts[2], budget_);
  }

  // input: of a filter chain that has none of its own, at its innermost.
  Value EvalFilter(const Expr& expr, const Value* input) {
    const Depth depth(depth_, kMaxDepth);
    const Expr* inner = expr.operands[0].get();
    Value value;
    if (!inner) {
      value = *input;
    } else {
      value = input && inner->op == Op::kFilter ? EvalFilter(*inner, input) : Eval(*inner);
    }
    const Arguments arguments = EvalArguments(expr, 1);
    at_ = expr.at;
    return ApplyFilter(expr.name, value, arguments, budget_);
  }

  Value EvalTest(const Expr& expr) {
    const Value value = Eval(*expr.operands[0]);
    const Arguments arguments = EvalArguments(expr, 1);
    at_ = expr.at;
    return MakeBool(ApplyTest(expr.name, value, arguments, budget_));
  }

  Value EvalCompare(const Expr& expr) {
    Value left = Eval(*expr.operands[0]);
    for (size_t i = 0; i < expr.relations.size(); ++i) {
      Value right = Eval(*expr.operands[i + 1]);
      at_ = expr.at;
      if (!Holds(expr.relations[i], left, right, budget_)) return MakeBool(false);
      left = std::move(right);
    }
    return MakeBool(true);
  }

  const Syntax& syntax_;
  const Given& given_;
  Budget& budget_;
  std::shared_ptr<Scope> scope_;
  Text* out_ = nullptr;
  uint32_t at_ = 0;  // what runs now, for messages
  int depth_ = 0, calls_ = 0;
  int loops_ = 0;  // for loops around, those of the callers included
  int32_t generations_ = 0;
  int32_t message_ = -1;  // that the loop around is at
};

}  // namespace

std::string Place(std::string_view source, size_t at) {
  at = std::min(at, source.size());
  const size_t newline = at == 0 ? std::string_view::npos : source.rfind('\n', at - 1);
  const size_t line = newline == std::string_view::npos ? 0 : newline + 1;
  return "line " +
         std::to_string(std::count(source.begin(), source.begin() + static_cast<std::ptrdiff_t>(line), '\n') +
                        1) +
         ", column " + std::to_string(CountChars(source.substr(line, at - line)) + 1);
}

Text Run(const Syntax& syntax, const Given& given, Budget& budget) {
  return Interpreter(syntax, given, budget).Run();
}

}  // namespace rung::text::jinja
