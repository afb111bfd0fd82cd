// One record of a data set, in one of the formats told apart by their keys.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "data/columns.h"
#include "text/chat_template.h"

namespace rung::data {

// The keys of a record.
enum class Format : uint8_t {
  kAuto,        // by the keys
  kCompletion,  // {"prompt": "...", "completion": "..."}, or a list of messages each
  kMessages,    // {"messages": [{"role": "user", "content": "..."}, ...]}, perhaps "tools"
  kText,        // {"text": "..."}
  kAlpaca,      // {"instruction": "...", "input": "...", "output": "..."}, perhaps "system", "history"
  kShareGpt,    // {"conversations": [{"from": "human", "value": "..."}, ...]}, perhaps "system", "tools"
  kSegments,    // {"segments": [{"label": true, "text": "..."}, ...]}
};
// "prompt-completion", "messages", "text", "alpaca", "sharegpt", "segments", "auto": names of --format.
Result<Format> ParseFormat(std::string_view name);
const char* NameOf(Format format);
std::vector<std::string> FormatNames();

// What a record is once it is read.
enum class Shape : uint8_t { kCompletion, kMessages, kText, kSegments };

struct Segment {
  std::string text;  // as a template would have written it: special tokens in it are read as such
  bool learned = false;
};

struct Record {
  Shape shape = Shape::kText;
  Format format = Format::kText;        // whose keys it was read from
  std::string prompt, completion;       // kCompletion
  std::vector<text::Message> messages;  // kMessages, at least one
  // Of each message, whether it is learned if it is the assistant's; empty: all are.
  std::vector<uint8_t> learned;
  std::string tools;                 // beside a chat: a JSON list of function schemas; empty: none
  std::string text;                  // kText
  std::vector<Segment> segments;     // kSegments, at least one
  std::vector<std::string> choices;  // the "choices" key, for ranking; empty: none
  std::string label;                 // the "label" key; a number or a boolean as JSON writes it; empty: none
  int64_t row = 0;  // 1-based line of its file (of a .json list the element); 0: it is not from a file
};

struct RecordOptions {
  Format format = Format::kAuto;
  Columns columns;
};

// One JSON object. The failure's message says what is wrong and what is right; the caller adds where (file
// and row).
Result<Record> ParseRecord(std::string_view json, const RecordOptions& options = {});
// One row of a table. Lists (messages, conversations, segments, tools, history, choices) are JSON in their
// field; an empty field of those, or of label, is none.
Result<Record> RecordOfFields(std::span<const std::string> columns, std::span<const std::string> fields,
                              const RecordOptions& options = {});
// A row of a .txt file. `options` must not have columns or another format.
Result<Record> RecordOfText(std::string_view text, const RecordOptions& options = {});

// The record with `completion` in place of its own: of a kCompletion record the completion, of kMessages the
// content of the last message, which must be the assistant's. For ranking the choices of a record.
Result<Record> WithCompletion(const Record& record, std::string_view completion);
// What its answer answers, for people: the prompt, or what stands before the last message.
const std::string& AskedIn(const Record& record);

// A hash of what the record says (not where it stands, nor label and choices): equal records have equal ones,
// on every machine.
uint64_t ContentHash(const Record& record);
// The same of what comes before the answer: the prompt, or all messages but the last, where a prompt is a
// user's message. Texts are all prompt; of a record without an answer, or with nothing before it, it is the
// ContentHash.
uint64_t PromptHash(const Record& record);

}  // namespace rung::data
