// The syntax tree of a template.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "text/jinja_value.h"

namespace rung::text::jinja {

enum class Op {
  kConst,   // value
  kName,    // name
  kList,    // operands
  kTuple,   // operands
  kDict,    // operands: key, value, key, value, ...
  kAttr,    // operands[0].name
  kItem,    // operands[0][operands[1]]
  kSlice,   // operands[0][begin:end:step]; absent parts are null
  kCall,    // operands[0](arguments)
  kFilter,  // operands[0] | name(arguments); operands[0] is null when a block is the input
  kTest,    // operands[0] is name(arguments)
  kNot,
  kNegate,
  kPlus,
  kAnd,
  kOr,
  kCompare,  // operands[0] relations[0] operands[1] relations[1] ...
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kConcat,  // all operands
  kCond     // operands: condition, then, else (null when absent)
};

enum class Relation { kEqual, kNotEqual, kLess, kLessEqual, kGreater, kGreaterEqual, kIn, kNotIn };

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

struct Expr {
  Op op = Op::kConst;
  uint32_t at = 0;  // byte of the source
  int depth = 1;    // height of the tree: bounds recursion over it
  std::string name;
  Value value;
  std::vector<ExprPtr> operands;
  std::vector<std::string> keywords;  // names of the last arguments; "*" and "**": spread
  std::vector<Relation> relations;
};

// What an assignment binds: a name, an attribute of a namespace, or several targets.
struct Target {
  std::string name, attribute;
  std::vector<Target> parts;
};

enum class Tag {
  kText,        // text
  kPrint,       // exprs[0]
  kIf,          // exprs[i] guards bodies[i]; one body more is the else
  kFor,         // target in exprs[0] if exprs[1] (or null); bodies[0], bodies[1] is the else
  kSet,         // target = exprs[0]
  kSetBlock,    // target = bodies[0], filtered by exprs[0] (or null)
  kMacro,       // name(parameters), the last exprs.size() of them with defaults; bodies[0]
  kCallBlock,   // exprs[0] is the call; `macro` is the body as a macro
  kFilter,      // exprs[0] applied to bodies[0]
  kWith,        // targets of parameters = exprs; bodies[0]
  kGeneration,  // bodies[0]
  kBreak,
  kContinue
};

struct Node;
using Body = std::vector<Node>;

struct Node {
  Tag tag = Tag::kText;
  uint32_t at = 0;
  std::string name;
  Value text;
  Target target;
  std::vector<std::string> parameters;
  std::vector<ExprPtr> exprs;
  std::vector<Body> bodies;
};

struct Syntax {
  std::string source;  // with newlines as "\n"
  Body body;
  bool has_generation = false;
};

}  // namespace rung::text::jinja
