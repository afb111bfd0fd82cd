// Expressions of a template: the half of the parser that statements build on.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace rung::text::jinja {

bool IsKeyword(std::string_view name);

class ExprParser {
 protected:
  explicit ExprParser(std::string_view source) : tokens_(Lex(source)) {}

  struct Nest {
    explicit Nest(ExprParser& parser) : parser_(parser) {
      if (++parser_.depth_ > kMaxParseDepth) parser_.Refuse("nested more than 100 deep");
    }
    ~Nest() { --parser_.depth_; }
    ExprParser& parser_;
  };

  const Token& Now() const { return tokens_[index_]; }
  const Token& Ahead() const { return tokens_[std::min(index_ + 1, tokens_.size() - 1)]; }
  const Token& Take() { return tokens_[index_ + 1 < tokens_.size() ? index_++ : index_]; }
  const Token& Previous() const { return tokens_[index_ > 0 ? index_ - 1 : 0]; }
  bool IsOperator(std::string_view text) const;
  bool IsName(std::string_view text) const;
  bool SkipOperator(std::string_view text);
  bool SkipName(std::string_view text);
  void Expect(std::string_view text);
  std::string ExpectName(const char* what);
  std::string Found() const;  // the next token, for messages
  [[noreturn]] void Refuse(std::string message) const;
  [[noreturn]] static void RefuseAt(std::string message, uint32_t at);

  ExprPtr ParseExpr(bool with_cond = true);
  Value TextConstant(std::string text);
  // One expression, or several with commas: a tuple.
  ExprPtr ParseTuple(bool with_cond, bool may_be_empty);
  ExprPtr ParseFilter(ExprPtr value);

 private:
  static constexpr int kMaxParseDepth = 100;  // brackets in brackets, blocks in blocks

  static std::unique_ptr<Expr> Make(Op op, uint32_t at);
  static void Adopt(Expr& parent, ExprPtr child);
  template <class... Children>
  static std::unique_ptr<Expr> Make(Op op, uint32_t at, Children... children) {
    auto expr = Make(op, at);
    (Adopt(*expr, std::move(children)), ...);
    return expr;
  }
  ExprPtr ParseOr();
  ExprPtr ParseAnd();
  ExprPtr ParseNot();
  std::optional<Relation> TakeRelation();
  ExprPtr ParseCompare();
  ExprPtr ParseSum();
  ExprPtr ParseConcat();
  ExprPtr ParseProduct();
  ExprPtr ParsePower();
  ExprPtr ParseUnary(bool with_filter);
  ExprPtr Constant(Value value, uint32_t at);
  ExprPtr ParsePrimary();
  ExprPtr ParseName();
  bool AtTupleEnd() const;
  ExprPtr ParseList();
  ExprPtr ParseDict();
  ExprPtr ParsePostfix(ExprPtr value);
  ExprPtr ParseSubscript(ExprPtr value, uint32_t at);
  // The arguments in parentheses, appended to `call`.
  void ParseArguments(Expr& call);
  ExprPtr ParseCall(ExprPtr callee);
  ExprPtr ParseFilters(ExprPtr value);
  ExprPtr ParseTest(ExprPtr value);

  const std::vector<Token> tokens_;
  size_t index_ = 0;
  int depth_ = 0;
};

}  // namespace rung::text::jinja
