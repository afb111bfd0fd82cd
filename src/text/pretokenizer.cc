#include "text/pretokenizer.h"

#include "text/unicode.h"
#include "text/utf8.h"

namespace rung::text {

#define RUNG_GPT2_PATTERN R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"
const KnownPattern kGpt2Pattern = {"gpt-2", RUNG_GPT2_PATTERN, false};
const KnownPattern kSmolLmPattern = {"smollm", RUNG_GPT2_PATTERN, true};
#undef RUNG_GPT2_PATTERN
const KnownPattern kLlama3Pattern = {
    "llama-bpe",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    false};
const KnownPattern kQwen2Pattern = {
    "qwen2",
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
    false};

namespace {

using Spans = std::vector<std::pair<Regex::Span, bool>>;
using Pieces = std::vector<PreTokenizer::Piece>;

// The whole text as matches (true) and what lies between them (false). An empty match cuts, except directly
// behind another.
void FindMatches(std::string_view text, bool invert, Regex::Matcher* matcher, Spans* spans) {
  size_t done = 0, last = std::string_view::npos;
  Regex::Span match{};
  for (size_t from = 0; from <= text.size() && matcher->Next(text, from, &match);) {
    if (match.end == match.begin && match.end == last) {
      from += from < text.size() ? StepUtf8(text.substr(from)).size : 1;
      continue;
    }
    if (match.begin > done) spans->push_back({{done, match.begin}, invert});
    spans->push_back({match, !invert});
    from = done = last = match.end;
  }
  if (done < text.size()) spans->push_back({{done, text.size()}, invert});
}

void FindCharacters(std::string_view text, const PreStep& step, Spans* spans) {
  size_t done = 0;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step character = StepUtf8(text.substr(at));
    const size_t end = at + character.size;
    if (step.is != nullptr ? step.is(character.code_point) : character.code_point == step.delimiter) {
      if (at > done) spans->push_back({{done, at}, false});
      spans->push_back({{at, end}, true});
      done = end;
    }
    at = end;
  }
  if (done < text.size()) spans->push_back({{done, text.size()}, false});
}

// Runs of word characters and of what is neither word nor space are kept.
void FindWords(std::string_view text, Spans* spans) {
  enum class Class { kNone, kSpace, kWord, kOther };
  Class last = Class::kNone;
  for (size_t at = 0; at < text.size();) {
    const Utf8Step character = StepUtf8(text.substr(at));
    const Class now = IsSpace(character.code_point)           ? Class::kSpace
                      : IsWordCharacter(character.code_point) ? Class::kWord
                                                              : Class::kOther;
    const size_t end = at + character.size;
    if (now == last)
      spans->back().first.end = end;
    else
      spans->push_back({{at, end}, now == Class::kSpace});
    last = now;
    at = end;
  }
}

void FindLengths(std::string_view text, size_t length, Spans* spans) {
  size_t begin = 0, characters = 0;
  for (size_t at = 0; at < text.size();) {
    at += StepUtf8(text.substr(at)).size;
    if (++characters % length == 0 || at == text.size()) {
      spans->push_back({{begin, at}, false});
      begin = at;
    }
  }
}

// Whether a span joins the one before it.
bool Joins(SplitBehavior behavior, bool is_match, bool was_match) {
  switch (behavior) {
    case SplitBehavior::kContiguous:
      return is_match == was_match;
    case SplitBehavior::kMergedWithPrevious:
      return is_match && !was_match;
    case SplitBehavior::kMergedWithNext:
      return !is_match && was_match;
    case SplitBehavior::kIsolated:
    case SplitBehavior::kRemoved:
      break;
  }
  return false;
}

void PushSpans(const PreTokenizer::Piece& piece, SplitBehavior behavior, const Spans& spans, Pieces* pieces) {
  const auto push = [&](size_t begin, size_t end) {
    if (end > begin) pieces->push_back({piece.text.substr(begin, end - begin), piece.first && begin == 0});
  };
  size_t begin = 0, end = 0;
  for (size_t i = 0; i < spans.size(); ++i) {
    const auto& [span, is_match] = spans[i];
    if (behavior == SplitBehavior::kRemoved) {
      if (!is_match) push(span.begin, span.end);
      continue;
    }
    if (i == 0 || !Joins(behavior, is_match, spans[i - 1].second)) {
      push(begin, end);
      begin = span.begin;
    }
    end = span.end;
  }
  push(begin, end);
}

void Metaspace(const PreStep& step, const PreTokenizer::Piece& piece, PreTokenizer::Scratch* scratch) {
  std::string& marked = scratch->owned.emplace_back();
  marked.reserve(piece.text.size() + piece.text.size() / 2 + step.mark.size());
  const bool prepend =
      step.prepend == PreStep::Prepend::kAlways || (step.prepend == PreStep::Prepend::kFirst && piece.first);
  if (prepend && !piece.text.starts_with(' ') && !piece.text.starts_with(step.mark)) marked += step.mark;
  for (const char c : piece.text) {
    if (c == ' ')
      marked += step.mark;
    else
      marked += c;
  }
  std::string_view rest = marked;
  bool first = piece.first;
  while (step.split) {
    const size_t next = rest.find(step.mark, 1);
    if (next == std::string_view::npos) break;
    scratch->next.push_back({rest.substr(0, next), first});
    first = false;
    rest.remove_prefix(next);
  }
  scratch->next.push_back({rest, first});
}

void Apply(const PreStep& step, const PreTokenizer::Piece& piece, Regex::Matcher* matcher,
           PreTokenizer::Scratch* scratch) {
  switch (step.kind) {
    case PreStep::Kind::kSpace:
      if (piece.text.starts_with(' '))
        scratch->next.push_back(piece);
      else
        scratch->next.push_back({scratch->owned.emplace_back(" ").append(piece.text), piece.first});
      return;
    case PreStep::Kind::kMetaspace:
      return Metaspace(step, piece, scratch);
    case PreStep::Kind::kSplit:
      scratch->spans.clear();
      FindMatches(piece.text, step.invert, matcher, &scratch->spans);
      break;
    case PreStep::Kind::kCharacters:
      scratch->spans.clear();
      FindCharacters(piece.text, step, &scratch->spans);
      break;
    case PreStep::Kind::kWords:
      scratch->spans.clear();
      FindWords(piece.text, &scratch->spans);
      break;
    case PreStep::Kind::kLength:
      scratch->spans.clear();
      FindLengths(piece.text, step.length, &scratch->spans);
      break;
  }
  PushSpans(piece, step.behavior, scratch->spans, &scratch->next);
}

}  // namespace

Result<PreStep> SplitAt(std::string_view pattern, SplitBehavior behavior) {
  Result<Regex> regex = Regex::Compile(pattern);
  if (!regex.ok()) return regex.failure();
  PreStep step;
  step.regex = std::move(regex).value();
  step.behavior = behavior;
  return step;
}

PreStep SplitAtCharacters(bool (*is)(uint32_t), SplitBehavior behavior) {
  PreStep step;
  step.kind = PreStep::Kind::kCharacters;
  step.is = is;
  step.behavior = behavior;
  return step;
}

PreTokenizer::Scratch::Scratch(const PreTokenizer& pretokenizer) {
  for (const PreStep& step : pretokenizer.steps)
    step.regex ? matchers.emplace_back(*step.regex) : matchers.emplace_back(std::nullopt);
}

void PreTokenizer::Split(std::string_view text, bool first, Scratch* scratch) const {
  scratch->owned.clear();
  scratch->pieces.assign(text.empty() ? 0 : 1, Piece{text, first});
  for (size_t i = 0; i < steps.size(); ++i) {
    scratch->next.clear();
    for (const Piece& piece : scratch->pieces)
      Apply(steps[i], piece, scratch->matchers[i] ? &*scratch->matchers[i] : nullptr, scratch);
    scratch->pieces.swap(scratch->next);
  }
}

}  // namespace rung::text
