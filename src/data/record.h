// One record of a data set, in one of three shapes told apart by their keys.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/chat_template.h"

namespace rung::data {

enum class Shape {
  kCompletion,  // {"prompt": "...", "completion": "..."}
  kMessages,    // {"messages": [{"role": "user", "content": "..."}, ...]}
  kText,        // {"text": "..."}
};

// "prompt and completion", "messages", "text": for messages to the user.
const char* ShapeName(Shape shape);

struct Record {
  Shape shape = Shape::kText;
  std::string prompt, completion;       // kCompletion
  std::vector<text::Message> messages;  // kMessages, at least one
  std::string text;                     // kText
  std::vector<std::string> choices;     // the "choices" key, for ranking; empty: none
  std::string label;  // the "label" key; a number or a boolean as JSON writes it; empty: none
  int64_t row = 0;    // 1-based line of its file; 0: it is not from a file
};

// A line larger than this is a mistake (a whole file on one line), not a record.
inline constexpr size_t kMaxLineBytes = size_t{16} << 20;

// One line without its line end. The failure's message says what is wrong and what is right; the caller adds
// where (file and row).
Result<Record> ParseRecord(std::string_view line);

// The record with `completion` in place of its own: of a kCompletion record the completion, of kMessages the
// content of the last message, which must be the assistant's. For ranking the choices of a record.
Result<Record> WithCompletion(const Record& record, std::string_view completion);

}  // namespace rung::data
