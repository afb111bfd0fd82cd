// Which bytes of the output are learned: the rule in chat_template.h.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja_value.h"

namespace rung::text::jinja {

// Who said what, and what the template writes between the end of the last message and an answer.
struct Speakers {
  std::vector<bool> assistant;        // of each message
  std::vector<bool> more;             // of each message: an assistant's with other keys than role and content
  std::optional<std::string> prompt;  // the generation prompt, "" when there is none; nullopt: not known
  std::optional<std::string> plain;   // in front of an answer that is a content alone; nullopt: not known
};

// How much of an iteration's `header`, the bytes in front of the assistant's, the generation prompt has: of
// `answered`, a conversation that ends with that iteration and one plain answer, and `prompted`, the one
// before it with the generation prompt. nullopt: the two part before the iteration,
// and what generation begins behind does not stand in front of it.
std::optional<std::string> PromptIn(const Text& answered, std::string_view header, std::string_view prompted);

// The end of one iteration that wrote the bytes of `out` from `begin` on: of their runs those that are
// learned remain. message: the index of the message that the iteration was for, -1: it was not over the
// messages. Gives the first byte that an assistant's message has in the first turn; nullopt: there is none.
std::optional<size_t> CloseTurn(Text& out, size_t begin, int32_t message, const Speakers& speakers);

}  // namespace rung::text::jinja
