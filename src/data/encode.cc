#include "data/encode.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

namespace rung::data {
namespace {

// Whether a bracket that stands open in front of `rest` is that of a mark, which has no white space inside.
bool ClosesMark(std::string_view rest, char close) {
  const size_t at = rest.find_first_of("<>[] \t\r\n");
  return at != rest.npos && rest[at] == close;
}

// The bytes that both begin with, whole characters and no half of a mark ("<|im_"), but at least `least`. A
// bracket that neither closes is text.
size_t CommonPrefix(std::string_view a, std::string_view b, size_t least) {
  const size_t most = std::min(a.size(), b.size());
  size_t common = static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(most), b.begin()).first - a.begin());
  if (common <= least) return common;
  for (const auto& [open, close] : {std::pair{'<', '>'}, {'[', ']'}}) {
    const size_t begin = a.substr(0, common).rfind(open);
    if (begin == a.npos || begin < least) continue;
    if (a.substr(begin + 1, common - begin - 1).find_first_of("<>[] \t\r\n") != a.npos) continue;
    if (ClosesMark(a.substr(common), close) || ClosesMark(b.substr(common), close)) common = begin;
  }
  while (common > least && common < a.size() && (static_cast<unsigned char>(a[common]) & 0xC0) == 0x80)
    --common;
  return common;
}

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

std::string_view WithoutTrailingSpace(std::string_view text) {
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

// Where, in the turn text[begin,end), that goes on which follows `prompt`; nullopt: it is not there. The
// generation prompt is the prompt from `header` on; without one the turn follows the user's as it is. Of the
// white space that the prompt ends in the turn may have less.
std::optional<size_t> FindTurn(std::string_view text, size_t begin, size_t end, std::string_view prompt,
                               size_t header) {
  const std::string_view space = prompt.substr(WithoutTrailingSpace(prompt).size());
  prompt.remove_suffix(space.size());
  while (header < prompt.size() && IsSpace(prompt[header])) ++header;
  size_t at = 0;
  if (header < prompt.size()) {
    const std::string_view mark = prompt.substr(header);
    at = text.substr(0, end).rfind(mark);
    if (at == text.npos || at < begin) return std::nullopt;
    at += mark.size();
  } else {
    at = WithoutTrailingSpace(text.substr(0, end)).size();
    if (at == 0 || at < begin || prompt.empty() || text[at - 1] != prompt.back()) return std::nullopt;
  }
  for (size_t i = 0; i < space.size() && at < end && text[at] == space[i]; ++i) ++at;
  return at;
}

bool SaysNothing(const text::Message& message) {
  return message.extra.empty() && WithoutTrailingSpace(message.content).empty();
}

// White space behind it aside.
bool EndsInMark(const Vocabulary& vocabulary, std::string_view said) {
  if (!vocabulary.is_special) return false;
  const std::vector<int32_t> ids = vocabulary.encode_rendered(WithoutTrailingSpace(said), false);
  return !ids.empty() && vocabulary.is_special(ids.back());
}

// Whether the last message is an answer that is learned.
bool EndsWithAnswer(const Record& record) {
  if (record.shape == Shape::kCompletion) return true;
  if (record.shape != Shape::kMessages || record.messages.empty()) return false;
  return record.messages.back().role == "assistant" && (record.learned.empty() || record.learned.back());
}

}  // namespace

// An example before it is cut to length.
struct Encoder::Ids {
  std::vector<int32_t> ids;
  std::vector<uint8_t> learn;
  size_t completion_begin = 0;  // what truncation keeps first; ids.size(): nothing in particular

  void Append(const std::vector<int32_t>& more, bool learned) {
    if (learned) completion_begin = ids.size();
    ids.insert(ids.end(), more.begin(), more.end());
    learn.resize(ids.size(), learned ? 1 : 0);
  }
  void AppendEnd(int32_t id, bool learned) {
    ids.push_back(id);
    learn.push_back(learned ? 1 : 0);
  }
};

// What an assistant's message says in a rendered text.
struct Encoder::Turn {
  size_t begin, end;  // bytes
  bool learned;
  bool closes;  // nothing more of the message follows
  bool last;    // it is of the last message
};

Encoder::Encoder(Vocabulary vocabulary, EncodeOptions options)
    : vocabulary_(std::move(vocabulary)), options_(options) {
  RUNG_CHECK(options_.max_length >= 2, "an example needs two ids: one to see and one to predict");
}

Encoder::Chat Encoder::Chat::Without(size_t last) const {
  const size_t kept = messages.size() - last;
  return {messages.first(kept), learned.first(std::min(kept, learned.size())), tools};
}

bool Encoder::IsEnd(int32_t id) const {
  return std::find(vocabulary_.end_ids.begin(), vocabulary_.end_ids.end(), id) != vocabulary_.end_ids.end();
}

Result<std::vector<Encoder::Turn>> Encoder::TurnsOf(const text::Rendered& rendered, const Chat& chat) {
  // A template's own blocks may not say whose they are: then one for each answer, in order, or no telling.
  std::vector<int32_t> answers, owners;
  for (size_t i = 0; i < chat.messages.size(); ++i) {
    if (chat.messages[i].role == "assistant") answers.push_back(static_cast<int32_t>(i));
  }
  for (const text::Rendered::Span& span : rendered.assistant) owners.push_back(span.message);
  if (std::find(owners.begin(), owners.end(), -1) != owners.end()) {
    if (owners.size() == answers.size()) {
      owners = answers;
    } else if (!chat.learned.empty()) {
      return Failure{
          fmt::format("the chat template writes {} of {} answers: which of them is learned cannot be told",
                      owners.size(), answers.size())};
    }
  }
  std::vector<Turn> turns;
  for (size_t i = 0; i < owners.size(); ++i) {
    const text::Rendered::Span& span = rendered.assistant[i];
    const bool known = owners[i] >= 0;
    turns.push_back({span.begin, span.end, !known || chat.IsLearned(static_cast<size_t>(owners[i])),
                     !known || i + 1 == owners.size() || owners[i + 1] != owners[i],
                     known && static_cast<size_t>(owners[i]) + 1 == chat.messages.size()});
  }
  return turns;
}

// Piece by piece: the borders of turns become borders of ids, whatever merges the tokenizer knows.
void Encoder::AppendTurns(std::string_view text, size_t at, std::span<const Turn> turns, Ids* out) const {
  const Turn* open = nullptr;  // the turn before has no end yet
  const auto close = [&] {
    if (open != nullptr && vocabulary_.eos >= 0) out->AppendEnd(vocabulary_.eos, open->learned);
    open = nullptr;
  };
  const auto between = [&](size_t end) {
    if (at >= end) return close();
    const std::vector<int32_t> ids = vocabulary_.encode_rendered(text.substr(at, end - at), at == 0);
    const bool ends = open != nullptr && !ids.empty() && IsEnd(ids.front());
    const bool learned = ends && open->learned;
    if (!ends) close();
    const size_t first = out->ids.size();
    out->Append(ids, false);
    if (learned) out->learn[first] = 1;
    open = nullptr;
  };
  for (const Turn& turn : turns) {
    RUNG_CHECK(at <= turn.begin && turn.begin <= turn.end && turn.end <= text.size(),
               "assistant spans must ascend inside the text");
    between(turn.begin);
    at = turn.end;
    if (turn.begin == turn.end) continue;
    const std::string_view said = text.substr(turn.begin, turn.end - turn.begin);
    const std::vector<int32_t> ids = vocabulary_.encode_rendered(said, turn.begin == 0);
    out->Append(ids, turn.learned);
    if (!turn.closes || std::any_of(ids.begin(), ids.end(), [&](int32_t id) { return IsEnd(id); })) continue;
    // A mark behind an earlier answer is that format's end of turn. After the last one generation must stop.
    if (turn.last || !EndsInMark(vocabulary_, said)) open = &turn;
  }
  between(text.size());
}

// Most templates write BOS themselves; a second one is a prefix that the model never saw.
void Encoder::AddBos(Ids* out) const {
  const bool has_bos = !out->ids.empty() && out->ids.front() == vocabulary_.bos;
  if (!vocabulary_.adds_bos || vocabulary_.bos < 0 || has_bos) return;
  out->ids.insert(out->ids.begin(), vocabulary_.bos);
  out->learn.insert(out->learn.begin(), 0);
  ++out->completion_begin;
}

Encoder::Ids Encoder::EncodeTurns(std::string_view text, std::span<const Turn> turns) const {
  Ids out;
  AppendTurns(text, 0, turns, &out);
  AddBos(&out);
  return out;
}

Encoder::Ids Encoder::EncodeSegments(const Record& record) const {
  std::string text;
  std::vector<Turn> turns;
  for (const Segment& segment : record.segments) {
    const size_t begin = text.size();
    text += segment.text;
    if (segment.learned) turns.push_back({begin, text.size(), true, false, false});
  }
  return EncodeTurns(text, turns);
}

Result<text::Rendered> Encoder::Render(const Chat& chat, bool add_generation_prompt) const {
  if (!vocabulary_.render) {
    return Failure{
        "the model has no chat template, and messages need one: give records with prompt and completion"};
  }
  return vocabulary_.render({chat.messages.begin(), chat.messages.end()}, chat.tools, add_generation_prompt);
}

Result<Encoder::Ids> Encoder::ChatPromptIds(const Chat& chat, std::string* text) const {
  Result<text::Rendered> rendered = Render(chat, true);
  if (!rendered.ok()) return rendered.failure();
  if (text) *text = rendered.value().text;
  Result<std::vector<Turn>> turns = TurnsOf(rendered.value(), chat);
  if (!turns.ok()) return turns.failure();
  return EncodeTurns(rendered.value().text, turns.value());
}

// The prompt as generation will see it, then the answer. A template may write a conversation differently once
// the answer is there: learning starts where the generation prompt ends, not where the answer's content does.
//
//   the text goes on from the prompt            the prompt, and the text behind it (Qwen3 puts empty
//   reasoning
//                                               before an answer)
//   its last turn has the generation prompt     the prompt, and what follows it in that turn (gpt-oss drops
//   the behind another text, or other white space   reasoning of earlier turns) they part inside of the
//   generation prompt   the text; learned from there on (a prompt that opens reasoning,
//                                               an answer without it)
Result<Encoder::Ids> Encoder::EncodeAnswered(const Chat& chat, std::string_view text,
                                             std::vector<Turn> turns) const {
  std::string prompt;
  Result<Ids> encoded = ChatPromptIds(chat.Without(1), &prompt);
  if (!encoded.ok()) return encoded.failure();
  const auto answer = std::find_if(turns.begin(), turns.end(), [](const Turn& turn) { return turn.last; });
  const size_t before = answer == turns.begin() ? 0 : std::prev(answer)->end;
  if (text.starts_with(prompt) && before <= prompt.size() && prompt.size() <= answer->end) {
    answer->begin = prompt.size();
  } else {
    Result<text::Rendered> alone = Render(chat.Without(1), false);
    if (!alone.ok()) return alone.failure();
    const std::string& asked = alone.value().text;
    // Where the generation prompt begins.
    const size_t header = prompt.starts_with(asked) ? asked.size() : CommonPrefix(prompt, asked, 0);
    const std::optional<size_t> begin = FindTurn(text, before, answer->begin, prompt, header);
    if (!begin) {
      const size_t common = CommonPrefix(text, prompt, std::min(header, text.size()));
      if (common < header || header < before) {
        return Failure{
            "the chat template writes the messages before the last answer in another way once it is there: "
            "what generation sees cannot be told"};
      }
      answer->begin = std::min(common, answer->begin);
      return EncodeTurns(text, turns);
    }
    answer->begin = *begin;
  }
  Ids out = std::move(encoded).value();
  AppendTurns(text, answer->begin, {answer, turns.end()}, &out);
  return out;
}

Result<Encoder::Ids> Encoder::EncodeChat(const Chat& chat) const {
  Result<text::Rendered> whole = Render(chat, false);
  if (!whole.ok()) return whole.failure();
  Result<std::vector<Turn>> found = TurnsOf(whole.value(), chat);
  if (!found.ok()) return found.failure();
  std::vector<Turn> turns = std::move(found).value();
  const size_t last = chat.messages.size() - 1;
  if (chat.messages[last].role != "assistant" || !chat.IsLearned(last)) {
    return EncodeTurns(whole.value().text, turns);
  }
  const bool has_answer = std::any_of(turns.begin(), turns.end(), [](const Turn& turn) { return turn.last; });
  if (!has_answer) {
    return Failure{SaysNothing(chat.messages[last]) ? "the last answer is empty"
                                                    : "the chat template writes nothing of the last answer"};
  }
  if (chat.messages.size() == 1) return EncodeTurns(whole.value().text, turns);
  return EncodeAnswered(chat, whole.value().text, std::move(turns));
}

Result<Encoder::Ids> Encoder::EncodeMessages(const Record& record) const {
  if (!options_.mask_history) return EncodeChat({record.messages, record.learned, record.tools});
  std::vector<uint8_t> last(record.messages.size());
  for (size_t i = last.size(); i-- > 0;) {
    if (record.messages[i].role != "assistant") continue;
    last[i] = record.learned.empty() ? 1 : record.learned[i];
    break;
  }
  return EncodeChat({record.messages, last, record.tools});
}

Encoder::Ids Encoder::EncodeText(const Record& record) const {
  const bool specials = options_.special_tokens;
  std::vector<int32_t> text =
      specials ? vocabulary_.encode_rendered(record.text, true) : vocabulary_.encode(record.text);
  const bool ends = specials && !text.empty() && IsEnd(text.back());
  if (vocabulary_.eos >= 0 && !ends) text.push_back(vocabulary_.eos);
  Ids out;
  if (!specials) out.Append(PlainPrompt(""), false);
  out.Append(text, true);
  if (specials) AddBos(&out);
  return out;
}

Result<Encoder::Ids> Encoder::EncodeUncut(const Record& record) const {
  switch (record.shape) {
    case Shape::kCompletion: {
      if (record.completion.empty()) return Failure{"the completion is empty"};
      if (vocabulary_.render) {
        const text::Message messages[] = {{"user", record.prompt}, {"assistant", record.completion}};
        return EncodeChat({messages, {}, record.tools});
      }
      if (!record.tools.empty()) {
        return Failure{"the record has tools, and only a chat template can write them: there is none"};
      }
      Ids out;
      out.Append(PlainPrompt(record.prompt), false);
      std::vector<int32_t> completion = vocabulary_.encode(record.completion);
      if (vocabulary_.eos >= 0) completion.push_back(vocabulary_.eos);
      out.Append(completion, true);
      return out;
    }
    case Shape::kMessages:
      return EncodeMessages(record);
    case Shape::kText:
      if (record.text.empty()) return Failure{"the text is empty"};
      return EncodeText(record);
    case Shape::kSegments:
      return EncodeSegments(record);
  }
  return Failure{"unknown shape"};
}

// A BOS that begins the text. Some models name the mark that begins a turn as their BOS: it stands there once
// for each, and is no beginning of a text.
bool Encoder::BeginsWithBos(const Ids& x) const {
  if (x.ids.empty() || x.ids.front() != vocabulary_.bos) return false;
  return vocabulary_.adds_bos || std::count(x.ids.begin(), x.ids.end(), vocabulary_.bos) == 1;
}

void Encoder::Truncate(Ids& x) const {
  const auto limit = static_cast<size_t>(options_.max_length);
  if (x.ids.size() <= limit) return;
  const auto erase = [&](size_t begin, size_t end) {
    x.ids.erase(x.ids.begin() + static_cast<int64_t>(begin), x.ids.begin() + static_cast<int64_t>(end));
    x.learn.erase(x.learn.begin() + static_cast<int64_t>(begin), x.learn.begin() + static_cast<int64_t>(end));
  };
  // The first id of a completion is learned only if an id comes before it: BOS, or the prompt's last.
  const size_t prompt = x.completion_begin, excess = x.ids.size() - limit;
  const size_t bos = prompt > 0 && BeginsWithBos(x) ? 1 : 0;
  if (prompt > excess + bos || (prompt == excess + bos && bos == 1)) {
    erase(bos, bos + excess);
    // What it followed is gone. The completion may follow BOS, as without a prompt.
    if (prompt > excess + bos) x.learn[bos] = 0;
    return;
  }
  erase(bos, prompt > bos ? prompt - (1 - bos) : bos);
  x.ids.resize(std::min(x.ids.size(), limit));
  x.learn.resize(x.ids.size());
}

Result<Encoder::Ids> Encoder::EncodeLearned(const Record& record) const {
  Result<Ids> encoded = EncodeUncut(record);
  if (!encoded.ok()) return encoded.failure();
  Ids x = std::move(encoded).value();
  const auto cut = [&x] {
    while (!x.learn.empty() && x.learn.back() == 0) {
      x.learn.pop_back();
      x.ids.pop_back();
    }
  };
  // What a template writes behind the end of the last answer no generation reaches.
  if (options_.completion_only || EndsWithAnswer(record)) cut();
  if (!options_.completion_only) std::fill(x.learn.begin(), x.learn.end(), uint8_t{1});
  if (x.ids.empty()) {
    return Failure{record.shape == Shape::kSegments
                       ? "nothing in it is learned: there is no text in a segment with the label true"
                       : "nothing in it is learned: there is no message of the assistant's"};
  }
  const auto length = static_cast<int64_t>(x.ids.size());
  if (options_.truncation == Truncation::kDrop && length > options_.max_length) {
    return Failure{fmt::format("it has {} tokens, the limit is {}", length, options_.max_length)};
  }
  return x;
}

std::vector<Example> Encoder::Split(const Ids& whole) const {
  const size_t limit = static_cast<size_t>(options_.max_length), size = whole.ids.size();
  // With two ids there is no room for BOS beside an id to see and one to predict.
  const bool bos = BeginsWithBos(whole) && limit > 2;
  std::vector<Example> parts;
  for (size_t begin = 0; begin + 1 < size;) {
    Example part;
    if (begin > 0 && bos) {
      part.ids.push_back(vocabulary_.bos);
      part.learn.push_back(0);
    }
    const size_t context = part.ids.size(), end = std::min(size, begin + limit - context);
    const auto at = static_cast<int64_t>(begin), to = static_cast<int64_t>(end);
    part.ids.insert(part.ids.end(), whole.ids.begin() + at, whole.ids.begin() + to);
    part.learn.insert(part.learn.end(), whole.learn.begin() + at, whole.learn.begin() + to);
    part.learn[context] = 0;  // learned in the part before; of the first part, nothing predicts it
    while (!part.learn.empty() && part.learn.back() == 0) {
      part.learn.pop_back();
      part.ids.pop_back();
    }
    if (!part.ids.empty()) parts.push_back(std::move(part));
    begin = end - 1;
  }
  return parts;
}

Result<Example> Encoder::Encode(const Record& record, bool* truncated) const {
  if (truncated) *truncated = false;
  Result<Ids> encoded = EncodeLearned(record);
  if (!encoded.ok()) return encoded.failure();
  Ids x = std::move(encoded).value();
  if (truncated) *truncated = static_cast<int64_t>(x.ids.size()) > options_.max_length;
  Truncate(x);
  x.learn.front() = 0;
  Example example{std::move(x.ids), std::move(x.learn), 0};
  if (example.target_count() == 0) return Failure{"it is a single id: there is nothing to predict"};
  return example;
}

Result<std::vector<Example>> Encoder::EncodeParts(const Record& record, bool* truncated) const {
  std::vector<Example> parts;
  if (options_.truncation != Truncation::kSplit) {
    Result<Example> example = Encode(record, truncated);
    if (!example.ok()) return example.failure();
    parts.push_back(std::move(example).value());
    return parts;
  }
  Result<Ids> encoded = EncodeLearned(record);
  if (truncated)
    *truncated = encoded.ok() && static_cast<int64_t>(encoded.value().ids.size()) > options_.max_length;
  if (!encoded.ok()) return encoded.failure();
  parts = Split(encoded.value());
  if (parts.empty()) return Failure{"it is a single id: there is nothing to predict"};
  return parts;
}

std::vector<Example> Encoder::EncodeReported(const Record& record, RecordReport* report) const {
  report->special = SpecialText(record);
  Result<std::vector<Example>> encoded = EncodeParts(record, &report->truncated);
  if (!encoded.ok()) {
    report->dropped = encoded.failure().message;
    return {};
  }
  for (const Example& example : encoded.value()) {
    report->rows += static_cast<int64_t>(example.ids.size()) - 1;
    report->targets += example.target_count();
  }
  return std::move(encoded).value();
}

Result<PromptText> Encoder::Prompt(const Record& record) const {
  if (record.shape == Shape::kCompletion) {
    if (!vocabulary_.render) return PromptText{PlainPrompt(record.prompt), record.completion};
    const text::Message user[] = {{"user", record.prompt}};
    Result<Ids> ids = ChatPromptIds({user, {}, record.tools}, nullptr);
    if (!ids.ok()) return ids.failure();
    return PromptText{std::move(ids).value().ids, record.completion};
  }
  if (record.shape != Shape::kMessages) {
    return Failure{fmt::format("a {} record has no prompt and completion", NameOf(record.format))};
  }
  const std::span<const text::Message> messages = record.messages;
  if (messages.size() < 2 || messages.back().role != "assistant") {
    return Failure{"the messages do not end with an answer of the assistant's"};
  }
  Result<Ids> ids = ChatPromptIds({messages.first(messages.size() - 1), {}, record.tools}, nullptr);
  if (!ids.ok()) return ids.failure();
  return PromptText{std::move(ids).value().ids, messages.back().content};
}

std::string Encoder::SpecialText(const Record& record) const {
  if (!vocabulary_.special_in) return "";
  if (record.shape == Shape::kText) return options_.special_tokens ? "" : vocabulary_.special_in(record.text);
  if (record.shape != Shape::kCompletion) return "";
  const std::string found = vocabulary_.special_in(record.prompt);
  return found.empty() ? vocabulary_.special_in(record.completion) : found;
}

Result<std::vector<int32_t>> Encoder::ChatPrompt(std::span<const text::Message> messages) const {
  Result<Ids> encoded = ChatPromptIds({messages, {}, ""}, nullptr);
  if (!encoded.ok()) return encoded.failure();
  return std::move(encoded).value().ids;
}

std::vector<int32_t> Encoder::PlainPrompt(std::string_view prompt) const {
  std::vector<int32_t> ids;
  if (!prompt.empty()) ids = vocabulary_.encode(prompt);
  if (vocabulary_.adds_bos && vocabulary_.bos >= 0) ids.insert(ids.begin(), vocabulary_.bos);
  return ids;
}

Result<std::vector<Example>> Encoder::EncodeAll(std::span<const Record> records, const std::string& name,
                                                EncodeReport* report,
                                                const std::function<bool(size_t done)>& go_on) const {
  std::vector<Example> examples;
  EncodeReport counts;
  for (size_t i = 0; i < records.size(); ++i) {
    if (i > 0 && go_on && !go_on(i))
      return Failure{"interrupted while the data was encoded: run the same command again",
                     ExitCode::kInterrupted};
    RecordReport counted;
    for (Example& example : EncodeReported(records[i], &counted)) {
      example.record = static_cast<int64_t>(i);
      examples.push_back(std::move(example));
    }
    counts.Add(std::move(counted), records[i].row);
  }
  const std::string why = counts.dropped.empty() ? "there are no records"
                                                 : fmt::format("row {}: {}", counts.dropped.front().row,
                                                               counts.dropped.front().reason);
  if (report) *report = std::move(counts);
  if (examples.empty()) return Failure{fmt::format("{}: no record has a target token: {}", name, why)};
  return examples;
}

}  // namespace rung::data
