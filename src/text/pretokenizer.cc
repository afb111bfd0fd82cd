#include "text/pretokenizer.h"

#include <algorithm>

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

// The whole text as matches (true) and what lies between them (false).
void FindSpans(std::string_view text, bool invert, Regex::Matcher* matcher, Spans* spans) {
  spans->clear();
  size_t done = 0;
  Regex::Span match{};
  for (size_t from = 0; from < text.size() && matcher->Next(text, from, &match);) {
    if (match.end == match.begin) {  // an empty match cuts nothing; look on behind the next character
      if (match.end >= text.size()) break;
      from = match.end + StepUtf8(text.substr(match.end)).size;
      continue;
    }
    if (match.begin > done) spans->push_back({{done, match.begin}, invert});
    spans->push_back({match, !invert});
    from = done = match.end;
  }
  if (done < text.size()) spans->push_back({{done, text.size()}, invert});
}

void PushSpans(std::string_view text, SplitBehavior behavior, const Spans& spans,
               std::vector<std::string_view>* pieces) {
  const auto view = [&](Regex::Span s) { return text.substr(s.begin, s.end - s.begin); };
  const size_t first = pieces->size();
  const auto extend = [&](std::string_view more) {
    pieces->back() = {pieces->back().data(), pieces->back().size() + more.size()};
  };
  for (size_t i = 0; i < spans.size(); ++i) {
    const auto& [span, is_match] = spans[i];
    const bool has_previous = pieces->size() > first && i > 0;
    switch (behavior) {
      case SplitBehavior::kIsolated:
        pieces->push_back(view(span));
        break;
      case SplitBehavior::kRemoved:
        if (!is_match) pieces->push_back(view(span));
        break;
      case SplitBehavior::kContiguous:
        has_previous&& spans[i - 1].second == is_match ? extend(view(span)) : pieces->push_back(view(span));
        break;
      case SplitBehavior::kMergedWithPrevious:
        has_previous&& is_match && !spans[i - 1].second ? extend(view(span)) : pieces->push_back(view(span));
        break;
      case SplitBehavior::kMergedWithNext:
        has_previous && !is_match && spans[i - 1].second ? extend(view(span)) : pieces->push_back(view(span));
        break;
    }
  }
}

void Metaspace(const PreStep& step, std::string_view text, bool first, PreTokenizer::Scratch* scratch) {
  std::string& marked = scratch->owned.emplace_back();
  for (const char c : text) {
    if (c == ' ')
      marked += step.mark;
    else
      marked += c;
  }
  const bool prepend =
      step.prepend == PreStep::Prepend::kAlways || (step.prepend == PreStep::Prepend::kFirst && first);
  if (prepend && !std::string_view(marked).starts_with(step.mark)) marked.insert(0, step.mark);
  std::string_view rest = marked;
  while (step.split) {
    const size_t next = rest.find(step.mark, 1);
    if (next == std::string_view::npos) break;
    scratch->next.push_back(rest.substr(0, next));
    rest.remove_prefix(next);
  }
  if (!rest.empty()) scratch->next.push_back(rest);
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

PreTokenizer::Scratch::Scratch(const PreTokenizer& pretokenizer) {
  for (const PreStep& step : pretokenizer.steps)
    step.regex ? matchers.emplace_back(*step.regex) : matchers.emplace_back(std::nullopt);
}

void PreTokenizer::Split(std::string_view text, bool first, Scratch* scratch) const {
  scratch->owned.clear();
  scratch->pieces.assign(text.empty() ? 0 : 1, text);
  for (size_t i = 0; i < steps.size(); ++i) {
    const PreStep& step = steps[i];
    scratch->next.clear();
    bool at_start = first;
    for (const std::string_view piece : scratch->pieces) {
      switch (step.kind) {
        case PreStep::Kind::kSplit:
          FindSpans(piece, step.invert, &*scratch->matchers[i], &scratch->spans);
          PushSpans(piece, step.behavior, scratch->spans, &scratch->next);
          break;
        case PreStep::Kind::kSpace:
          if (piece.starts_with(' '))
            scratch->next.push_back(piece);
          else
            scratch->next.push_back(scratch->owned.emplace_back(" ").append(piece));
          break;
        case PreStep::Kind::kMetaspace:
          Metaspace(step, piece, at_start, scratch);
          break;
      }
      at_start = false;
    }
    scratch->pieces.swap(scratch->next);
  }
}

}  // namespace rung::text
