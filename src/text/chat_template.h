// Chat templates: an interpreter for the Jinja subset that model templates are written in.
//
// Sandboxed: a template sees only the values given to it; steps, depth and output are limited; there is no
// access to attributes beyond data, no import, no include. Errors carry line and column of the template; the
// template's own raise_exception is a Failure with its message.
//
// The variables are those that transformers gives: messages, add_generation_prompt, tools, documents (none
// unless given), bos_token and eos_token (undefined when empty), and those of RenderOptions::variables.
//
// What is learned. The strings of an assistant message (its content, and those in its tool calls, reasoning
// and other keys, except role and name) keep their origin through string operations, so the output knows
// which of its bytes they are. One iteration of the loop over the messages is one turn: its span goes from
// where the generation prompt ends to the end of what the iteration wrote (the end-of-turn marker), less
// whitespace there and less a generation prompt.
// The generation prompt is that of the conversation up to an answer, looked for between the iteration's first
// byte and the first of the assistant's; where there is none the turn begins with the iteration. Where the
// iteration begins with another text, the turn begins where the two part, and else, or where the template
// cannot render that conversation, with the assistant's first byte ("<tool_call>{..." in front of it: behind
// what precedes a plain content).
// Where a turn shows what another says (the result of its call), its span ends before that, with the text
// that the template also writes while the other has said nothing; what it says behind it has a span of its
// own. A message that leaves no byte in the output has no span. One written outside of any loop (into a
// variable, say) has the text from where the conversation before it, with the generation prompt, ends (where
// others speak behind that, from its own bytes) to where the conversation with it does, or its bytes alone
// where the text does not go on from there. That takes two renderings, so it is done for the first 16 only; a
// later one has the template's text around it that the last one found has, where the same stands there.
// A template with {% generation %} blocks says it itself: the spans are what these wrote, nothing else.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace rung::text {

struct Message {
  std::string role, content;
  // The other keys of the message, as the text of a JSON object ("": none): name, tool_calls, tool_call_id,
  // reasoning_content, ... Their order is kept, and so is that of all keys inside: templates print it. A key
  // "content" here is given instead of `content`: a list of parts ({"type": "text", "text": ...}, ...), or
  // null. As transformers does, a key whose value is null is left out, and reasoning under its other names
  // ("thinking", "reasoning") is given as reasoning_content too.
  std::string extra = {};
};

struct RenderOptions {
  bool add_generation_prompt = false;
  std::string bos, eos;   // the texts of those tokens, "" when the model has none
  std::string tools;      // a JSON list of function schemas, "": none
  std::string documents;  // a JSON list, "": none
  std::string variables;  // a JSON object: more variables (enable_thinking, date_string, ...), "": none
  // What strftime_now writes, as seconds since 1970-01-01 00:00 of the clock it shows; nullopt: now, local.
  // A template that asks_time gives other text on another day: whoever needs the same text again says when.
  std::optional<int64_t> now;
};

// What a template wrote, and which parts of it came from assistant messages: those are learned.
struct Rendered {
  struct Span {
    size_t begin, end;     // bytes of text
    int32_t message = -1;  // whose turn it is: its index; -1: of a generation block outside of their loop
  };
  std::string text;
  // Ascending, disjoint: what each assistant turn says and its end-of-turn marker. The only answer of a
  // conversation, when it is its end and a content alone, begins with its content: what it follows is the
  // conversation without it, which whoever learns it renders anyway.
  std::vector<Span> assistant;
};

class ChatTemplate {
 public:
  static Result<ChatTemplate> Parse(std::string_view source, const std::string& name);

  // Fails when the template does, and when a text of JSON is none (named: which message, which option).
  Result<Rendered> Render(const std::vector<Message>& messages, const RenderOptions& options) const;
  // The same without tools, documents and variables.
  Result<Rendered> Render(const std::vector<Message>& messages, bool add_generation_prompt,
                          std::string_view bos, std::string_view eos) const;
  const std::string& source() const;
  bool asks_time() const;  // it may call strftime_now

 private:
  struct Program;
  explicit ChatTemplate(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const Program> program_;
};

}  // namespace rung::text
