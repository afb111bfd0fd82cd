// Records to token ids, with a mark on each id whether predicting it is learned.
//
//   completion, chat template   render [user: prompt, assistant: completion]; the assistant's part is learned
//   completion, no template     [BOS] prompt | completion EOS; completion and EOS are learned
//   messages                    rendered; every assistant part is learned, or those that the record says
//   text                        [BOS] text EOS; all but the first id are learned
//   segments                    [BOS] segments; those marked are learned
//
// The text is encoded piece by piece between those borders, so that the ids before a learned part are exactly
// the ids that generation starts from: Prompt(r).ids is a prefix of Encode(r).ids (unless that was
// truncated). There is one exception: a template whose generation prompt says more than its answers begin
// with (DeepSeek-R1's "<think>") writes the answer in its own way, and learning starts where the two part.
//
// Every answer has an end. Where the template writes none behind it, the token that begins what follows is
// learned if it ends a generation, and else EOS is put there; not learned where the answer is not.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "data/batch.h"
#include "data/encode_report.h"
#include "data/record.h"
#include "data/vocabulary.h"
#include "text/chat_template.h"

namespace rung::data {

// What becomes of an example that is longer than max_length.
enum class Truncation : uint8_t {
  kLeft,   // its prompt is cut from the left (BOS stays); a completion that does not fit loses its end
  kDrop,   // it is left out
  kSplit,  // it becomes several; each but the first begins with (BOS and) the id before its own, for context
};

struct EncodeOptions {
  int64_t max_length = 2048;    // ids of one example, at least 2
  bool completion_only = true;  // false: learn the prompt as well
  bool mask_history = false;    // of several answers learn the last
  Truncation truncation = Truncation::kLeft;
  // Special tokens written out in a text record are read as such; a BOS or an end that is there is not put
  // there again. For texts that a chat template has rendered before.
  bool special_tokens = false;
};

struct PromptText {
  std::vector<int32_t> ids;  // what generation starts from, never truncated
  std::string completion;    // what the record expects next
};

class Encoder {
 public:
  Encoder(Vocabulary vocabulary, EncodeOptions options);

  // Ids after the last learned one are left out: they would cost rows and teach nothing. A failure is the
  // reason why the record has no target id, or is dropped for its length. `truncated`, if given, is set.
  // Encode never splits: it cuts as kLeft.
  Result<Example> Encode(const Record& record, bool* truncated = nullptr) const;
  // One example or, with kSplit, several.
  Result<std::vector<Example>> EncodeParts(const Record& record, bool* truncated = nullptr) const;
  // The same, and all that a report has of it. None: `report` says why.
  std::vector<Example> EncodeReported(const Record& record, RecordReport* report) const;

  // Fails for a record without a completion (text; segments; messages that do not end with the assistant's).
  Result<PromptText> Prompt(const Record& record) const;

  // The text of a special token that stands in the record and is read as plain text ("": there is none): most
  // likely a template has rendered it before.
  std::string SpecialText(const Record& record) const;
  // What the template leaves out, in words: "a part of message 2" (counted from 1; of those that are learned:
  // reasoning inside of a content, say), "the call of \"f\" in message 2", "the tools". Empty also when it
  // fails.
  std::vector<std::string> Unwritten(const Record& record) const;

  // What generation starts from, for callers without a record. ChatPrompt needs a chat template.
  Result<std::vector<int32_t>> ChatPrompt(std::span<const text::Message> messages) const;
  std::vector<int32_t> PlainPrompt(std::string_view prompt) const;

  // Example::record is the index in `records`. Records without a target are listed in the report; when none
  // has one, that is a failure. `name`: of the data set, for messages. `go_on`, if given, is called between
  // records with how many are done; when it returns false, that is a failure with kInterrupted.
  Result<std::vector<Example>> EncodeAll(std::span<const Record> records, const std::string& name,
                                         EncodeReport* report,
                                         const std::function<bool(size_t done)>& go_on = {}) const;

  const Vocabulary& vocabulary() const { return vocabulary_; }
  const EncodeOptions& options() const { return options_; }

 private:
  struct Ids;
  struct Turn;
  struct Chat {
    std::span<const text::Message> messages;
    std::span<const uint8_t> learned;  // as in Record
    const std::string& tools;

    bool IsLearned(size_t message) const { return learned.empty() || learned[message]; }
    Chat Without(size_t last) const;  // messages
  };
  static Result<std::vector<Turn>> TurnsOf(const text::Rendered& rendered, const Chat& chat);
  Result<text::Rendered> Render(const Chat& chat, bool add_generation_prompt) const;
  // Text from `at` on and its turns, behind what is there.
  void AppendTurns(std::string_view text, size_t at, std::span<const Turn> turns, Ids* out) const;
  Ids EncodeTurns(std::string_view text, std::span<const Turn> turns) const;
  Ids EncodeSegments(const Record& record) const;
  void AddBos(Ids* out) const;
  Result<Ids> ChatPromptIds(const Chat& chat, std::string* text) const;
  Result<Ids> EncodeAnswered(const Chat& chat, std::string_view text, std::vector<Turn> turns) const;
  Result<Ids> EncodeChat(const Chat& chat) const;
  Result<Ids> EncodeMessages(const Record& record) const;
  Ids EncodeText(const Record& record) const;
  Result<Ids> EncodeUncut(const Record& record) const;
  Result<Ids> EncodeLearned(const Record& record) const;
  bool BeginsWithBos(const Ids& ids) const;
  bool IsEnd(int32_t id) const;
  void Truncate(Ids& ids) const;
  std::vector<Example> Split(const Ids& whole) const;

  Vocabulary vocabulary_;
  EncodeOptions options_;
};

}  // namespace rung::data
