// Chat templates: an interpreter for the Jinja subset that model templates are written in.
//
// Sandboxed: a template sees only the values given to it; steps, depth and output are limited; there is no
// access to attributes beyond data, no import, no include. Errors carry line and column of the template; the
// template's own raise_exception is a Failure with its message.
//
// The variables are those that transformers gives: messages (role and content), add_generation_prompt, tools
// and documents (both none), bos_token and eos_token (undefined when empty).
//
// What is learned. The bytes of an assistant message's content keep their origin through string operations,
// so the output knows which of its bytes they are. One iteration of the loop over the messages is one turn:
// its span goes from the first such byte to the end of what the iteration wrote (the end-of-turn marker),
// less whitespace there. A content that leaves no byte in the output has no span; one written outside of any
// loop has itself alone. A template with {% generation %} blocks says it itself: the spans are what these
// blocks wrote, nothing else.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace rung::text {

struct Message {
  std::string role, content;
};

// What a template wrote, and which parts of it came from assistant messages: those are learned.
struct Rendered {
  struct Span {
    size_t begin, end;  // bytes of text
  };
  std::string text;
  // Ascending, disjoint: each assistant turn's content and its end-of-turn marker.
  std::vector<Span> assistant;
};

class ChatTemplate {
 public:
  static Result<ChatTemplate> Parse(std::string_view source, const std::string& name);

  // bos and eos: the texts of those tokens, "" when the model has none.
  Result<Rendered> Render(const std::vector<Message>& messages, bool add_generation_prompt,
                          std::string_view bos, std::string_view eos) const;
  const std::string& source() const;

 private:
  struct Program;
  explicit ChatTemplate(std::shared_ptr<const Program> program) : program_(std::move(program)) {}
  std::shared_ptr<const Program> program_;
};

}  // namespace rung::text
