#include "text/jinja_turns.h"

#include <algorithm>
#include <string_view>

#include "text/jinja_text.h"

namespace rung::text::jinja {
namespace {

bool IsSpaceByte(char c) { return IsSpace(static_cast<unsigned char>(c)); }

std::string_view Trimmed(std::string_view text) {
  while (!text.empty() && IsSpaceByte(text.front())) text.remove_prefix(1);
  while (!text.empty() && IsSpaceByte(text.back())) text.remove_suffix(1);
  return text;
}

size_t SkipSpace(std::string_view text, size_t at, size_t end) {
  while (at < end && IsSpaceByte(text[at])) ++at;
  return at;
}

// Bytes that both begin with, up to a border of marks or lines: where two headers part ways.
size_t CommonMarks(std::string_view a, std::string_view b) {
  const size_t most = std::min(a.size(), b.size());
  size_t common = static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<std::ptrdiff_t>(most), b.begin()).first - a.begin());
  while (common > 0 && a[common - 1] != '>' && a[common - 1] != '\n') --common;
  return common;
}

// Where a turn with more than a content begins; `own` is its first own byte.
size_t TurnBegin(std::string_view text, size_t begin, size_t own, const Speakers& speakers) {
  const size_t start = SkipSpace(text, begin, own);
  text = text.substr(0, own);
  const std::string_view prompt = Trimmed(speakers.prompt);
  // Some write the end of the turn before in front of it.
  size_t at = prompt.empty() ? std::string_view::npos : text.find(prompt, start);
  if (at != std::string_view::npos) {
    at += prompt.size();
    // The white space that the generation prompt ends in; more of it is generated.
    const std::string_view raw = speakers.prompt;
    for (size_t i = raw.find(prompt) + prompt.size(); i < raw.size() && at < own && text[at] == raw[i]; ++i)
      ++at;
    return at;
  }
  if (speakers.plain) {
    const std::string_view plain = Trimmed(*speakers.plain);
    at = text.find(plain, start);
    if (at != std::string_view::npos) return SkipSpace(text, at + plain.size(), own);
  }
  const size_t common = CommonMarks(text.substr(start), prompt);
  return common > 0 ? SkipSpace(text, start + common, own) : own;
}

// The turn goes on to `end`, where others speak or the iteration ends, less the whitespace there.
void Extend(Text::Run& turn, std::string_view text, size_t end) {
  if (turn.closed) return;
  while (end > turn.end && IsSpaceByte(text[end - 1])) --end;
  turn.end = end;
}

}  // namespace

std::optional<size_t> CloseTurn(Text& out, size_t begin, int32_t message, const Speakers& speakers) {
  std::vector<Text::Run>& runs = out.runs;
  size_t first = runs.size();
  while (first > 0 && runs[first - 1].begin >= begin) --first;
  std::vector<Text::Run> turns;
  bool apart = true;  // the next own bytes begin a turn
  for (size_t i = first; i < runs.size(); ++i) {
    const Text::Run& run = runs[i];
    const size_t source = static_cast<size_t>(run.source);
    const bool assistant = run.closed || (source < speakers.assistant.size() && speakers.assistant[source]);
    if (!assistant) {  // a tool's result inside of the turn that called it is not what the assistant said
      if (!turns.empty() && !apart && !turns.back().closed) {
        const size_t own = turns.back().end;
        Extend(turns.back(), out.bytes, run.begin);
        turns.back().tail = turns.back().end - own;
      }
      apart = true;
    } else if (!run.closed && message >= 0 && run.source != message) {
      continue;  // the turn of another message repeats it
    } else if (!apart && !run.closed && !turns.back().closed && turns.back().source == run.source) {
      turns.back().end = run.end;
    } else {
      turns.push_back(run);
      apart = false;
    }
  }
  runs.resize(first);
  if (turns.empty()) return std::nullopt;
  const size_t own = turns.front().begin;
  if (Text::Run& turn = turns.front(); !turn.closed && speakers.more[static_cast<size_t>(turn.source)])
    turn.begin = TurnBegin(out.bytes, begin, turn.begin, speakers);
  if (!apart) Extend(turns.back(), out.bytes, out.bytes.size());
  for (Text::Run& turn : turns) turn.closed = true;
  runs.insert(runs.end(), turns.begin(), turns.end());
  return own;
}

}  // namespace rung::text::jinja
