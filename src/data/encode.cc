#include "data/encode.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace rung::data {
namespace {

// The answers that are learned. A template may leave an answer out; then it cannot be told which span is
// whose.
Result<std::vector<text::Rendered::Span>> LearnedSpans(const text::Rendered& rendered,
                                                       std::span<const text::Message> messages,
                                                       std::span<const uint8_t> learned) {
  if (learned.empty()) return rendered.assistant;
  std::vector<text::Rendered::Span> spans;
  size_t answers = 0;
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role != "assistant") continue;
    if (answers < rendered.assistant.size() && learned[i]) spans.push_back(rendered.assistant[answers]);
    ++answers;
  }
  if (answers != rendered.assistant.size()) {
    return Failure{
        fmt::format("the chat template writes {} of {} answers: which of them is learned cannot be told",
                    rendered.assistant.size(), answers)};
  }
  return spans;
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
};

Encoder::Encoder(Vocabulary vocabulary, EncodeOptions options)
    : vocabulary_(std::move(vocabulary)), options_(options) {
  RUNG_CHECK(options_.max_length >= 2, "an example needs two ids: one to see and one to predict");
}

// Piece by piece: the borders of learned parts become borders of ids, whatever merges the tokenizer knows.
Encoder::Ids Encoder::EncodeRendered(std::string_view text,
                                     std::span<const text::Rendered::Span> learned) const {
  Ids out;
  size_t at = 0;
  for (const auto& [begin, end] : learned) {
    RUNG_CHECK(at <= begin && begin <= end && end <= text.size(),
               "assistant spans must ascend inside the text");
    if (at < begin) out.Append(vocabulary_.encode_rendered(text.substr(at, begin - at), at == 0), false);
    if (begin < end)
      out.Append(vocabulary_.encode_rendered(text.substr(begin, end - begin), begin == 0), true);
    at = end;
  }
  if (at < text.size()) out.Append(vocabulary_.encode_rendered(text.substr(at), at == 0), false);

  // Most templates write BOS themselves; a second one is a prefix that the model never saw.
  const bool has_bos = !out.ids.empty() && out.ids.front() == vocabulary_.bos;
  if (vocabulary_.adds_bos && vocabulary_.bos >= 0 && !has_bos) {
    out.ids.insert(out.ids.begin(), vocabulary_.bos);
    out.learn.insert(out.learn.begin(), 0);
    ++out.completion_begin;
  }
  return out;
}

Result<Encoder::Ids> Encoder::ChatPromptIds(const Chat& chat, std::string* text) const {
  if (!vocabulary_.render) {
    return Failure{
        "the model has no chat template, and messages need one: give records with prompt and completion"};
  }
  Result<text::Rendered> rendered =
      vocabulary_.render({chat.messages.begin(), chat.messages.end()}, chat.tools, true);
  if (!rendered.ok()) return rendered.failure();
  if (text) *text = rendered.value().text;
  Result<std::vector<text::Rendered::Span>> spans =
      LearnedSpans(rendered.value(), chat.messages, chat.learned);
  if (!spans.ok()) return spans.failure();
  return EncodeRendered(rendered.value().text, spans.value());
}

Result<Encoder::Ids> Encoder::EncodeChat(const Chat& chat) const {
  if (!vocabulary_.render) return ChatPromptIds(chat, nullptr);  // its failure
  const auto& messages = chat.messages;
  Result<text::Rendered> whole = vocabulary_.render({messages.begin(), messages.end()}, chat.tools, false);
  if (!whole.ok()) return whole.failure();
  Result<std::vector<text::Rendered::Span>> learned = LearnedSpans(whole.value(), messages, chat.learned);
  if (!learned.ok()) return learned.failure();
  const std::string_view text = whole.value().text;
  const std::vector<text::Rendered::Span>& spans = learned.value();
  const bool answered = messages.size() > 1 && messages.back().role == "assistant" && !spans.empty() &&
                        (chat.learned.empty() || chat.learned.back());
  if (!answered) return EncodeRendered(text, spans);

  // The prompt as generation will see it, then the answer. A template may write a conversation differently
  // once the answer is there (Qwen3 drops the reasoning of earlier turns, and puts an empty one before the
  // answer): learning starts where the generation prompt ends, not where the answer's content does.
  std::string prompt;
  const size_t before = messages.size() - 1;
  Result<Ids> encoded = ChatPromptIds(
      {messages.first(before), chat.learned.first(std::min(before, chat.learned.size())), chat.tools},
      &prompt);
  if (!encoded.ok()) return encoded.failure();
  Ids out = std::move(encoded).value();
  auto [begin, end] = spans.back();
  if (text.starts_with(prompt) && prompt.size() <= end) begin = prompt.size();
  std::vector<int32_t> answer = vocabulary_.encode_rendered(text.substr(begin, end - begin), false);
  const bool ends = std::any_of(answer.begin(), answer.end(), [&](int32_t id) {
    return std::find(vocabulary_.end_ids.begin(), vocabulary_.end_ids.end(), id) != vocabulary_.end_ids.end();
  });
  // Without an end to learn, the tuned model never stops.
  if (!ends && vocabulary_.eos >= 0) answer.push_back(vocabulary_.eos);
  out.Append(answer, true);
  if (end < text.size()) {
    const size_t kept = out.completion_begin;
    out.Append(vocabulary_.encode_rendered(text.substr(end), false), false);
    out.completion_begin = kept;
  }
  return out;
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

Result<Encoder::Ids> Encoder::EncodeUncut(const Record& record) const {
  const std::vector<int32_t> end =
      vocabulary_.eos >= 0 ? std::vector{vocabulary_.eos} : std::vector<int32_t>{};
  switch (record.shape) {
    case Shape::kCompletion: {
      if (record.completion.empty()) return Failure{"the completion is empty"};
      if (vocabulary_.render) {
        const text::Message messages[] = {{"user", record.prompt}, {"assistant", record.completion}};
        return EncodeChat({messages, {}, record.tools});
      }
      Ids out;
      out.Append(PlainPrompt(record.prompt), false);
      std::vector<int32_t> completion = vocabulary_.encode(record.completion);
      completion.insert(completion.end(), end.begin(), end.end());
      out.Append(completion, true);
      return out;
    }
    case Shape::kMessages:
      return EncodeMessages(record);
    case Shape::kText: {
      if (record.text.empty()) return Failure{"the text is empty"};
      Ids out;
      out.Append(PlainPrompt(""), false);
      std::vector<int32_t> text = vocabulary_.encode(record.text);
      text.insert(text.end(), end.begin(), end.end());
      out.Append(text, true);
      return out;
    }
    case Shape::kSegments: {
      std::string text;
      std::vector<text::Rendered::Span> learned;
      for (const Segment& segment : record.segments) {
        if (segment.learned) learned.push_back({text.size(), text.size() + segment.text.size()});
        text += segment.text;
      }
      return EncodeRendered(text, learned);
    }
  }
  return Failure{"unknown shape"};
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
  const size_t bos = prompt > 0 && x.ids.front() == vocabulary_.bos ? 1 : 0;
  if (prompt > excess + bos || (prompt == excess + bos && bos == 1)) {
    erase(bos, bos + excess);
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
  if (!options_.completion_only) std::fill(x.learn.begin(), x.learn.end(), uint8_t{1});
  while (!x.learn.empty() && x.learn.back() == 0) {
    x.learn.pop_back();
    x.ids.pop_back();
  }
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
  const bool bos = whole.ids.front() == vocabulary_.bos && limit > 2;
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
                                                EncodeReport* report) const {
  std::vector<Example> examples;
  EncodeReport counts;
  for (size_t i = 0; i < records.size(); ++i) {
    bool truncated = false;
    Result<std::vector<Example>> encoded = EncodeParts(records[i], &truncated);
    ++counts.records;
    if (!encoded.ok()) {
      counts.Drop({records[i].row, encoded.failure().message});
      continue;
    }
    counts.truncated += truncated;
    for (Example& example : std::move(encoded).value()) {
      example.record = static_cast<int64_t>(i);
      counts.rows += static_cast<int64_t>(example.ids.size()) - 1;
      counts.targets += example.target_count();
      examples.push_back(std::move(example));
    }
  }
  const std::string why = counts.dropped.empty() ? "there are no records"
                                                 : fmt::format("row {}: {}", counts.dropped.front().row,
                                                               counts.dropped.front().reason);
  if (report) *report = std::move(counts);
  if (examples.empty()) return Failure{fmt::format("{}: no record has a target token: {}", name, why)};
  return examples;
}

void EncodeReport::Drop(Dropped record) {
  ++dropped_count;
  if (dropped.size() < kListed) dropped.push_back(std::move(record));
}

}  // namespace rung::data
