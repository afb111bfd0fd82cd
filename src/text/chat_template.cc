#include "text/chat_template.h"

#include "base/text.h"
#include "text/jinja_eval.h"
#include "text/jinja_lexer.h"
#include "text/jinja_parser.h"

namespace rung::text {

using jinja::Value;

namespace {

constexpr size_t kMaxSource = size_t{1} << 20;  // the longest templates of published models have 20 KB

// The conversation as a list of dictionaries; the bytes of assistant contents carry the index of their
// message.
Value MakeMessages(const std::vector<Message>& messages, bool with_origin, jinja::Budget& budget) {
  std::vector<Value> items;
  for (size_t i = 0; i < messages.size(); ++i) {
    jinja::Text content{messages[i].content, {}};
    if (with_origin && messages[i].role == "assistant" && !content.bytes.empty())
      content.runs.push_back({0, content.bytes.size(), static_cast<int32_t>(i), false});
    std::vector<std::pair<Value, Value>> fields;
    fields.emplace_back(MakeString(budget, "role"), MakeString(budget, messages[i].role));
    fields.emplace_back(MakeString(budget, "content"), MakeText(budget, std::move(content)));
    items.push_back(MakeDict(budget, std::move(fields), /*message=*/true));
  }
  return MakeList(budget, std::move(items));
}

}  // namespace

struct ChatTemplate::Program {
  std::string name, source;
  jinja::Syntax syntax;
};

Result<ChatTemplate> ChatTemplate::Parse(std::string_view source, const std::string& name) {
  const std::string prefix = "template of " + name + ": ";
  if (source.size() > kMaxSource) return Failure{prefix + "more than 1 MiB: this is no chat template"};
  if (!IsUtf8(source)) return Failure{prefix + "not UTF-8"};
  auto program = std::make_shared<Program>();
  program->name = name;
  program->source = source;
  std::string normal = jinja::NormalizeNewlines(source);
  try {
    program->syntax = jinja::Parse(normal);
  } catch (const jinja::SyntaxError& error) {
    return Failure{prefix + jinja::Place(normal, error.at) + ": " + error.message};
  }
  program->syntax.source = std::move(normal);
  return ChatTemplate(std::move(program));
}

Result<Rendered> ChatTemplate::Render(const std::vector<Message>& messages, bool add_generation_prompt,
                                      std::string_view bos, std::string_view eos) const {
  const jinja::Syntax& syntax = program_->syntax;
  const std::string prefix = "template of " + program_->name + ": ";
  jinja::Budget budget;
  jinja::Text text;
  try {
    std::vector<std::pair<std::string, Value>> variables;
    variables.emplace_back("messages", MakeMessages(messages, !syntax.has_generation, budget));
    variables.emplace_back("add_generation_prompt", jinja::MakeBool(add_generation_prompt));
    variables.emplace_back("tools", Value(jinja::None{}));
    variables.emplace_back("documents", Value(jinja::None{}));
    // A token that the model does not have is an undefined name, not an empty string: templates ask for that.
    if (!bos.empty()) variables.emplace_back("bos_token", MakeString(budget, bos));
    if (!eos.empty()) variables.emplace_back("eos_token", MakeString(budget, eos));
    text = jinja::Run(syntax, std::move(variables), budget);
  } catch (const jinja::PlacedProblem& placed) {
    if (placed.problem.raised) return Failure{prefix + placed.problem.message};
    return Failure{prefix + jinja::Place(syntax.source, placed.at) + ": " + placed.problem.message};
  } catch (const jinja::Problem& problem) {
    return Failure{prefix + problem.message};
  }
  Rendered rendered;
  for (const jinja::Text::Run& run : text.runs) rendered.assistant.push_back({run.begin, run.end});
  rendered.text = std::move(text.bytes);
  return rendered;
}

const std::string& ChatTemplate::source() const { return program_->source; }

}  // namespace rung::text
