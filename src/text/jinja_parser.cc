#include "text/jinja_parser.h"

#include "text/jinja_expr_parser.h"

namespace rung::text::jinja {
namespace {

class Parser : ExprParser {
 public:
  explicit Parser(std::string_view source) : ExprParser(source) {}

  Syntax Run() {
    Syntax syntax;
    syntax.body = ParseBody({});
    syntax.has_generation = has_generation_;
    return syntax;
  }

 private:
  static Node MakeNode(Tag tag, uint32_t at) {
    Node node;
    node.tag = tag;
    node.at = at;
    return node;
  }

  void ExpectBlockEnd() {
    if (Now().kind != TokenKind::kBlockEnd) Refuse("expected '%}', found " + Found());
    Take();
  }

  Body ParseBody(std::vector<std::string_view> ends) {
    Nest nest(*this);
    const uint32_t opened = Previous().at;
    Body body;
    while (true) {
      const Token& token = Now();
      if (token.kind == TokenKind::kEnd) {
        if (!ends.empty())
          RefuseAt("a block that never ends: '" + std::string(ends.back()) + "' is missing", opened);
        return body;
      }
      Take();
      if (token.kind == TokenKind::kData) {
        body.push_back(MakeNode(Tag::kText, token.at));
        body.back().text = TextConstant(token.text);
      } else if (token.kind == TokenKind::kPrintBegin) {
        body.push_back(MakeNode(Tag::kPrint, Now().at));
        body.back().exprs.push_back(ParseTuple(true, false));
        if (Now().kind != TokenKind::kPrintEnd) Refuse("expected '}}', found " + Found());
        Take();
      } else {
        for (std::string_view end : ends)
          if (IsName(end)) return body;  // the caller takes it
        body.push_back(ParseStatement());
      }
    }
  }

  // The closing tag of a block, as ParseBody left it.
  void TakeEnd() {
    Take();
    ExpectBlockEnd();
  }

  Node ParseStatement() {
    Node node = MakeNode(Tag::kText, Now().at);
    const std::string tag = ExpectName("the name of a tag");
    if (tag == "if") return ParseIf(std::move(node));
    if (tag == "for") return ParseFor(std::move(node));
    if (tag == "set") return ParseSet(std::move(node));
    if (tag == "macro") return ParseMacro(std::move(node));
    if (tag == "call") return ParseCallBlock(std::move(node));
    if (tag == "with") return ParseWith(std::move(node));
    if (tag == "filter") return ParseFilterBlock(std::move(node));
    if (tag == "generation") {
      has_generation_ = true;
      node.tag = Tag::kGeneration;
      ExpectBlockEnd();
      ParseInto(node, "endgeneration", false);
      return node;
    }
    if (tag == "break" || tag == "continue") {
      if (loops_ == 0) RefuseAt("'" + tag + "' outside of a loop", node.at);
      node.tag = tag == "break" ? Tag::kBreak : Tag::kContinue;
      ExpectBlockEnd();
      return node;
    }
    if (tag.starts_with("end") || tag == "else" || tag == "elif")
      RefuseAt("'" + tag + "' without the tag that it belongs to", node.at);
    RefuseAt("the tag '" + tag + "' is not supported", node.at);
  }

  // A body with its end tag. Inside of a function of its own (in_loop false), break does not see the loops
  // outside.
  void ParseInto(Node& node, std::string_view end, bool in_loop) {
    const int outer = loops_;
    if (!in_loop) loops_ = 0;
    node.bodies.push_back(ParseBody({end}));
    loops_ = outer;
    TakeEnd();
  }

  Node ParseIf(Node node) {
    node.tag = Tag::kIf;
    while (true) {
      node.exprs.push_back(ParseTuple(false, false));
      ExpectBlockEnd();
      node.bodies.push_back(ParseBody({"elif", "else", "endif"}));
      if (!IsName("elif")) break;
      Take();
    }
    if (IsName("else")) {
      TakeEnd();
      node.bodies.push_back(ParseBody({"endif"}));
    }
    TakeEnd();
    return node;
  }

  Node ParseFor(Node node) {
    node.tag = Tag::kFor;
    node.target = ParseTarget(false);
    if (!SkipName("in")) Refuse("expected 'in', found " + Found());
    node.exprs.push_back(ParseTuple(false, false));
    node.exprs.push_back(SkipName("if") ? ParseExpr() : nullptr);
    if (IsName("recursive")) Refuse("'recursive' loops are not supported");
    ExpectBlockEnd();
    ++loops_;
    node.bodies.push_back(ParseBody({"else", "endfor"}));
    --loops_;
    if (IsName("else")) {
      TakeEnd();
      node.bodies.push_back(ParseBody({"endfor"}));
    }
    TakeEnd();
    return node;
  }

  Target ParseTarget(bool with_attribute) {
    Nest nest(*this);
    Target target;
    bool several = false;
    do {
      if (!target.parts.empty() && (IsName("in") || IsOperator("=") || IsOperator(")"))) break;
      Target part;
      if (SkipOperator("(")) {
        part = ParseTarget(false);
        Expect(")");
      } else {
        if (Now().kind == TokenKind::kName && (IsKeyword(Now().text) || Now().text == "loop"))
          Refuse("cannot assign to '" + Now().text + "'");
        part.name = ExpectName("a name to assign to");
        if (with_attribute && target.parts.empty() && SkipOperator("."))
          part.attribute = ExpectName("the name of an attribute");
      }
      target.parts.push_back(std::move(part));
      several = several || IsOperator(",");
    } while (SkipOperator(","));
    if (several) return target;
    Target only = std::move(target.parts[0]);
    return only;
  }

  Node ParseSet(Node node) {
    node.target = ParseTarget(true);
    if (SkipOperator("=")) {
      node.tag = Tag::kSet;
      node.exprs.push_back(ParseTuple(true, false));
      ExpectBlockEnd();
      return node;
    }
    if (!node.target.parts.empty()) Refuse("expected '=', found " + Found());
    node.tag = Tag::kSetBlock;
    node.exprs.push_back(ParseFilterChain());
    ExpectBlockEnd();
    ParseInto(node, "endset", true);
    return node;
  }

  // "| a | b(1)" with no input of its own: the innermost operand is null.
  ExprPtr ParseFilterChain() {
    ExprPtr chain;
    while (SkipOperator("|")) chain = ParseFilter(std::move(chain));
    return chain;
  }

  void ParseParameters(Node& node) {
    Expect("(");
    while (!IsOperator(")")) {
      node.parameters.push_back(ExpectName("the name of a parameter"));
      if (SkipOperator("=")) {
        node.exprs.push_back(ParseExpr());
      } else if (!node.exprs.empty()) {
        Refuse("a parameter without a default after one with a default");
      }
      if (!SkipOperator(",")) break;
    }
    Expect(")");
  }

  Node ParseMacro(Node node) {
    node.tag = Tag::kMacro;
    node.name = ExpectName("the name of a macro");
    ParseParameters(node);
    ExpectBlockEnd();
    ParseInto(node, "endmacro", false);
    return node;
  }

  // The call is exprs.back(); parameters, their defaults and bodies[0] are the macro `caller`.
  Node ParseCallBlock(Node node) {
    node.tag = Tag::kCallBlock;
    node.name = "caller";
    if (IsOperator("(")) ParseParameters(node);
    ExprPtr call = ParseExpr();
    if (call->op != Op::kCall) RefuseAt("'call' needs a call of a macro", node.at);
    ExpectBlockEnd();
    ParseInto(node, "endcall", false);
    node.exprs.push_back(std::move(call));
    return node;
  }

  Node ParseWith(Node node) {
    node.tag = Tag::kWith;
    while (Now().kind != TokenKind::kBlockEnd) {
      if (!node.exprs.empty()) Expect(",");
      node.parameters.push_back(ExpectName("a name to assign to"));
      Expect("=");
      node.exprs.push_back(ParseExpr());
    }
    ExpectBlockEnd();
    ParseInto(node, "endwith", true);
    return node;
  }

  Node ParseFilterBlock(Node node) {
    node.tag = Tag::kFilter;
    ExprPtr chain = ParseFilter(nullptr);
    while (SkipOperator("|")) chain = ParseFilter(std::move(chain));
    node.exprs.push_back(std::move(chain));
    ExpectBlockEnd();
    ParseInto(node, "endfilter", true);
    return node;
  }

  int loops_ = 0;
  bool has_generation_ = false;
};

}  // namespace

Syntax Parse(std::string_view source) { return Parser(source).Run(); }

}  // namespace rung::text::jinja
