#include "text/jinja_expr_parser.h"

#include <array>

namespace rung::text::jinja {
namespace {

constexpr int kMaxExprHeight = 300;  // also bounds a + b + c + ..., which is a tall tree

}  // namespace

bool IsKeyword(std::string_view name) {
  static constexpr std::array<std::string_view, 7> kWords = {"and", "or", "not", "if", "else", "in", "is"};
  return std::find(kWords.begin(), kWords.end(), name) != kWords.end();
}

bool ExprParser::IsOperator(std::string_view text) const {
  return Now().kind == TokenKind::kOperator && Now().text == text;
}

bool ExprParser::IsName(std::string_view text) const {
  return Now().kind == TokenKind::kName && Now().text == text;
}

bool ExprParser::SkipOperator(std::string_view text) {
  if (!IsOperator(text)) return false;
  Take();
  return true;
}

bool ExprParser::SkipName(std::string_view text) {
  if (!IsName(text)) return false;
  Take();
  return true;
}

void ExprParser::Expect(std::string_view text) {
  if (!SkipOperator(text)) Refuse("expected '" + std::string(text) + "', found " + Found());
}

std::string ExprParser::ExpectName(const char* what) {
  if (Now().kind != TokenKind::kName) Refuse(std::string("expected ") + what + ", found " + Found());
  return Take().text;
}

void ExprParser::Refuse(std::string message) const { throw SyntaxError{std::move(message), Now().at}; }
void ExprParser::RefuseAt(std::string message, uint32_t at) { throw SyntaxError{std::move(message), at}; }

std::string ExprParser::Found() const {
  switch (Now().kind) {
    case TokenKind::kName:
    case TokenKind::kOperator:
      return "'" + Now().text + "'";
    case TokenKind::kString:
      return "a string";
    case TokenKind::kInt:
    case TokenKind::kFloat:
      return "a number";
    case TokenKind::kPrintEnd:
      return "'}}'";
    case TokenKind::kBlockEnd:
      return "'%}'";
    default:
      return "the end";
  }
}

std::unique_ptr<Expr> ExprParser::Make(Op op, uint32_t at) {
  auto expr = std::make_unique<Expr>();
  expr->op = op;
  expr->at = at;
  return expr;
}

void ExprParser::Adopt(Expr& parent, ExprPtr child) {
  if (child) parent.depth = std::max(parent.depth, child->depth + 1);
  if (parent.depth > kMaxExprHeight) RefuseAt("an expression of more than 300 levels", parent.at);
  parent.operands.push_back(std::move(child));
}

ExprPtr ExprParser::ParseExpr(bool with_cond) {
  Nest nest(*this);
  if (!with_cond) return ParseOr();
  ExprPtr value = ParseOr();
  while (IsName("if")) {
    const uint32_t at = Take().at;
    ExprPtr condition = ParseOr(), otherwise;
    if (SkipName("else")) otherwise = ParseExpr();
    value = Make(Op::kCond, at, std::move(condition), std::move(value), std::move(otherwise));
  }
  return value;
}

ExprPtr ExprParser::ParseOr() {
  ExprPtr left = ParseAnd();
  while (IsName("or")) {
    const uint32_t at = Take().at;
    left = Make(Op::kOr, at, std::move(left), ParseAnd());
  }
  return left;
}

ExprPtr ExprParser::ParseAnd() {
  ExprPtr left = ParseNot();
  while (IsName("and")) {
    const uint32_t at = Take().at;
    left = Make(Op::kAnd, at, std::move(left), ParseNot());
  }
  return left;
}

ExprPtr ExprParser::ParseNot() {
  if (!IsName("not")) return ParseCompare();
  Nest nest(*this);
  const uint32_t at = Take().at;
  return Make(Op::kNot, at, ParseNot());
}

std::optional<Relation> ExprParser::TakeRelation() {
  static constexpr std::array<std::pair<std::string_view, Relation>, 6> kSigns = {
      {{"==", Relation::kEqual},
       {"!=", Relation::kNotEqual},
       {"<", Relation::kLess},
       {"<=", Relation::kLessEqual},
       {">", Relation::kGreater},
       {">=", Relation::kGreaterEqual}}};
  for (const auto& [text, relation] : kSigns)
    if (SkipOperator(text)) return relation;
  if (SkipName("in")) return Relation::kIn;
  if (IsName("not") && Ahead().kind == TokenKind::kName && Ahead().text == "in") {
    Take();
    Take();
    return Relation::kNotIn;
  }
  return std::nullopt;
}

ExprPtr ExprParser::ParseCompare() {
  const uint32_t at = Now().at;
  ExprPtr first = ParseSum();
  std::unique_ptr<Expr> chain;
  while (const std::optional<Relation> relation = TakeRelation()) {
    if (!chain) chain = Make(Op::kCompare, at, std::move(first));
    chain->relations.push_back(*relation);
    Adopt(*chain, ParseSum());
  }
  if (chain) return chain;
  return first;
}

ExprPtr ExprParser::ParseSum() {
  ExprPtr left = ParseConcat();
  while (IsOperator("+") || IsOperator("-")) {
    const Token& sign = Take();
    left = Make(sign.text == "+" ? Op::kAdd : Op::kSubtract, sign.at, std::move(left), ParseConcat());
  }
  return left;
}

ExprPtr ExprParser::ParseConcat() {
  ExprPtr first = ParseProduct();
  std::unique_ptr<Expr> chain;
  while (IsOperator("~")) {
    const uint32_t at = Take().at;
    if (!chain) chain = Make(Op::kConcat, at, std::move(first));
    Adopt(*chain, ParseProduct());
  }
  if (chain) return chain;
  return first;
}

ExprPtr ExprParser::ParseProduct() {
  static constexpr std::array<std::pair<std::string_view, Op>, 4> kSigns = {
      {{"*", Op::kMultiply}, {"/", Op::kDivide}, {"//", Op::kFloorDivide}, {"%", Op::kModulo}}};
  ExprPtr left = ParsePower();
  while (true) {
    const auto sign =
        std::find_if(kSigns.begin(), kSigns.end(), [&](const auto& s) { return IsOperator(s.first); });
    if (sign == kSigns.end()) return left;
    const uint32_t at = Take().at;
    left = Make(sign->second, at, std::move(left), ParsePower());
  }
}

ExprPtr ExprParser::ParsePower() {
  ExprPtr left = ParseUnary(true);
  while (IsOperator("**")) {
    const uint32_t at = Take().at;
    left = Make(Op::kPower, at, std::move(left), ParseUnary(true));
  }
  return left;
}

ExprPtr ExprParser::ParseUnary(bool with_filter) {
  Nest nest(*this);
  ExprPtr value;
  if (IsOperator("-") || IsOperator("+")) {
    const Token& sign = Take();
    value = Make(sign.text == "-" ? Op::kNegate : Op::kPlus, sign.at, ParseUnary(false));
  } else {
    value = ParsePrimary();
  }
  value = ParsePostfix(std::move(value));
  return with_filter ? ParseFilters(std::move(value)) : std::move(value);
}

ExprPtr ExprParser::Constant(Value value, uint32_t at) {
  auto expr = Make(Op::kConst, at);
  expr->value = std::move(value);
  return expr;
}

Value ExprParser::TextConstant(std::string text) {
  return Value(std::make_shared<const Text>(Text{std::move(text), {}}));
}

ExprPtr ExprParser::ParsePrimary() {
  const Token& token = Now();
  switch (token.kind) {
    case TokenKind::kName:
      return ParseName();
    case TokenKind::kString: {
      std::string text;
      while (Now().kind == TokenKind::kString) text += Take().text;
      return Constant(TextConstant(std::move(text)), token.at);
    }
    case TokenKind::kInt:
      Take();
      return Constant(Value(token.integer), token.at);
    case TokenKind::kFloat:
      Take();
      return Constant(Value(token.real), token.at);
    default:
      break;
  }
  if (SkipOperator("(")) {
    ExprPtr value = ParseTuple(true, true);
    Expect(")");
    return value;
  }
  if (IsOperator("[")) return ParseList();
  if (IsOperator("{")) return ParseDict();
  Refuse("expected an expression, found " + Found());
}

ExprPtr ExprParser::ParseName() {
  const Token& token = Take();
  const std::string& name = token.text;
  if (name == "true" || name == "True") return Constant(Value(true), token.at);
  if (name == "false" || name == "False") return Constant(Value(false), token.at);
  if (name == "none" || name == "None") return Constant(Value(None{}), token.at);
  if (IsKeyword(name)) RefuseAt("expected an expression, found '" + name + "'", token.at);
  auto expr = Make(Op::kName, token.at);
  expr->name = name;
  return expr;
}

bool ExprParser::AtTupleEnd() const {
  return Now().kind == TokenKind::kPrintEnd || Now().kind == TokenKind::kBlockEnd || IsOperator(")") ||
         IsName("recursive");
}

ExprPtr ExprParser::ParseTuple(bool with_cond, bool may_be_empty) {
  const uint32_t at = Now().at;
  std::vector<ExprPtr> parts;
  bool tuple = false;
  while (!AtTupleEnd()) {
    parts.push_back(ParseExpr(with_cond));
    if (!SkipOperator(",")) break;
    tuple = true;
  }
  if (parts.empty() && !may_be_empty) Refuse("expected an expression, found " + Found());
  if (parts.size() == 1 && !tuple) return std::move(parts[0]);
  auto expr = Make(Op::kTuple, at);
  for (ExprPtr& part : parts) Adopt(*expr, std::move(part));
  return expr;
}

ExprPtr ExprParser::ParseList() {
  auto expr = Make(Op::kList, Take().at);
  while (!IsOperator("]")) {
    Adopt(*expr, ParseExpr());
    if (!SkipOperator(",")) break;
  }
  Expect("]");
  return expr;
}

ExprPtr ExprParser::ParseDict() {
  auto expr = Make(Op::kDict, Take().at);
  while (!IsOperator("}")) {
    Adopt(*expr, ParseExpr());
    Expect(":");
    Adopt(*expr, ParseExpr());
    if (!SkipOperator(",")) break;
  }
  Expect("}");
  return expr;
}

ExprPtr ExprParser::ParsePostfix(ExprPtr value) {
  while (true) {
    const uint32_t at = Now().at;
    if (SkipOperator(".")) {
      if (Now().kind == TokenKind::kInt) {
        value = Make(Op::kItem, at, std::move(value), Constant(Value(Take().integer), at));
      } else {
        auto attribute = Make(Op::kAttr, Now().at, std::move(value));
        attribute->name = ExpectName("the name of an attribute");
        value = std::move(attribute);
      }
    } else if (SkipOperator("[")) {
      value = ParseSubscript(std::move(value), at);
    } else if (IsOperator("(")) {
      value = ParseCall(std::move(value));
    } else {
      return value;
    }
  }
}

ExprPtr ExprParser::ParseSubscript(ExprPtr value, uint32_t at) {
  std::array<ExprPtr, 3> parts;
  size_t colons = 0;
  while (!IsOperator("]")) {
    if (IsOperator(":")) {
      if (++colons > 2) Refuse("a slice has at most two ':'");
      Take();
    } else {
      if (parts[colons]) Refuse("expected ']', found " + Found());
      parts[colons] = ParseExpr();
    }
  }
  Expect("]");
  if (colons > 0)
    return Make(Op::kSlice, at, std::move(value), std::move(parts[0]), std::move(parts[1]),
                std::move(parts[2]));
  if (!parts[0]) RefuseAt("an empty subscript", at);
  return Make(Op::kItem, at, std::move(value), std::move(parts[0]));
}

void ExprParser::ParseArguments(Expr& call) {
  Expect("(");
  while (!IsOperator(")")) {
    const bool spread = IsOperator("*") || IsOperator("**");
    if (spread) {
      const bool again =
          std::find(call.keywords.begin(), call.keywords.end(), Now().text) != call.keywords.end();
      if (again) Refuse("'" + Now().text + "' given twice");
      call.keywords.push_back(Take().text);
    } else if (Now().kind == TokenKind::kName && Ahead().kind == TokenKind::kOperator &&
               Ahead().text == "=") {
      call.keywords.push_back(Take().text);
      Take();
    } else if (!call.keywords.empty()) {
      Refuse("a positional argument after one with a name, or after '*'");
    }
    Adopt(call, ParseExpr());
    if (!SkipOperator(",")) break;
  }
  Expect(")");
}

ExprPtr ExprParser::ParseCall(ExprPtr callee) {
  const uint32_t at = callee->at;
  auto call = Make(Op::kCall, at, std::move(callee));
  ParseArguments(*call);
  return call;
}

ExprPtr ExprParser::ParseFilters(ExprPtr value) {
  while (true) {
    if (SkipOperator("|")) {
      value = ParseFilter(std::move(value));
    } else if (IsName("is")) {
      value = ParseTest(std::move(value));
    } else if (IsOperator("(")) {
      value = ParseCall(std::move(value));
    } else {
      return value;
    }
  }
}

ExprPtr ExprParser::ParseFilter(ExprPtr value) {
  auto filter = Make(Op::kFilter, Now().at, std::move(value));
  filter->name = ExpectName("the name of a filter");
  if (IsOperator("(")) ParseArguments(*filter);
  return filter;
}

ExprPtr ExprParser::ParseTest(ExprPtr value) {
  Take();
  const bool negated = SkipName("not");
  const uint32_t at = Now().at;
  auto test = Make(Op::kTest, at, std::move(value));
  test->name = ExpectName("the name of a test");
  const bool word = Now().kind == TokenKind::kName && !IsName("else") && !IsName("or") && !IsName("and");
  if (IsOperator("(")) {
    ParseArguments(*test);
  } else if (word || Now().kind == TokenKind::kString || Now().kind == TokenKind::kInt ||
             Now().kind == TokenKind::kFloat || IsOperator("[") || IsOperator("{")) {
    if (IsName("is")) Refuse("two tests in a row: put the first in parentheses");
    // As Jinja, which would read `x is defined if y` as a test with an argument; a keyword is none.
    if (!word || !IsKeyword(Now().text)) Adopt(*test, ParsePostfix(ParsePrimary()));
  }
  if (negated) return Make(Op::kNot, at, std::move(test));
  return test;
}

}  // namespace rung::text::jinja
