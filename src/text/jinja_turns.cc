#include "text/jinja_turns.h"

#include <algorithm>
#include <string_view>

#include "text/jinja_text.h"

namespace rung::text::jinja {
namespace {

bool IsSpaceByte(char c) { return IsSpace(static_cast<unsigned char>(c)); }

// Less the white space there.
size_t EndOf(std::string_view text) {
  while (!text.empty() && IsSpaceByte(text.back())) text.remove_suffix(1);
  return text.size();
}

std::string_view Trimmed(std::string_view text) {
  text = text.substr(0, EndOf(text));
  while (!text.empty() && IsSpaceByte(text.front())) text.remove_prefix(1);
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

// What a text ends in, white space aside: its last word, or mark.
std::string_view LastMark(std::string_view text) {
  text = text.substr(0, EndOf(text));
  const size_t begin = text.find_last_of("<[ \t\r\n");
  return begin == text.npos ? text : text.substr(begin);
}

// The bytes of an iteration in front of its first turn.
struct Lead {
  std::string_view text;  // of the output, up to the first own byte of an assistant's message
  size_t begin;           // of the iteration
  size_t bound;           // the end of what others say in it
  int32_t message;        // the iteration's, -1: it is not over the messages
  bool more;              // the message has other keys than role and content
};

// The white space that the generation prompt ends in, behind `at`; more of it is generated.
size_t SkipSpaceOf(std::string_view prompt, std::string_view text, size_t at) {
  const std::string_view mark = Trimmed(prompt);
  for (size_t i = prompt.find(mark) + mark.size(); i < prompt.size() && at < text.size(); ++i) {
    if (text[at] != prompt[i]) break;
    ++at;
  }
  return at;
}

// Where the turn begins: where the generation prompt ends, as far as that can be told.
size_t TurnBegin(const Lead& lead, const Speakers& speakers) {
  const std::string_view text = lead.text;
  const size_t own = text.size(), start = SkipSpace(text, lead.bound, own);
  const std::string_view raw = speakers.prompt ? std::string_view(*speakers.prompt) : "";
  const std::string_view prompt = Trimmed(raw);
  if (!prompt.empty()) {
    // Some write the end of the turn before in front of it, some write it behind the question.
    const size_t at = text.find(prompt, start);
    if (at != text.npos) return SkipSpaceOf(raw, text, at + prompt.size());
    const size_t asked = EndOf(text.substr(0, lead.begin));
    if (lead.bound == lead.begin && text.substr(0, asked).ends_with(prompt))
      return std::max(lead.begin, SkipSpaceOf(raw, text, asked));
  } else if (speakers.prompt && lead.message > 0 && lead.bound == lead.begin) {
    return SkipSpaceOf(raw, text, lead.begin);
  }
  if (lead.more && speakers.plain) {
    const std::string_view plain = Trimmed(*speakers.plain);
    const size_t at = text.find(plain, start);
    if (at != text.npos) return SkipSpace(text, at + plain.size(), own);
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

std::optional<std::string> PromptIn(const Text& answered, std::string_view header,
                                    std::string_view prompted) {
  if (answered.runs.empty()) return std::nullopt;
  const std::string_view text = answered.bytes;
  const size_t own = answered.runs.back().begin;
  if (own < header.size() || text.substr(own - header.size(), header.size()) != header) return std::nullopt;
  const size_t begin = own - header.size();
  if (text.starts_with(prompted)) {
    if (prompted.size() > own) return std::nullopt;
    return std::string(header.substr(0, std::max(prompted.size(), begin) - begin));
  }
  const size_t common = CommonMarks(text.substr(0, own), prompted);
  if (common > begin) return std::string(header.substr(0, common - begin));
  // What came before is written otherwise once it has an answer; both end alike.
  const std::string_view end = LastMark(prompted);
  if (!end.empty() && end == LastMark(text.substr(0, begin))) return "";
  return std::nullopt;
}

std::optional<size_t> CloseTurn(Text& out, size_t begin, int32_t message, const Speakers& speakers) {
  std::vector<Text::Run>& runs = out.runs;
  size_t first = runs.size();
  while (first > 0 && runs[first - 1].begin >= begin) --first;
  std::vector<Text::Run> turns;
  bool apart = true;     // the next own bytes begin a turn
  size_t bound = begin;  // the end of what others say before the first turn
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
      if (turns.empty()) bound = run.end;
    } else if (!run.closed && message >= 0 && run.source != message) {
      if (turns.empty()) bound = run.end;  // the turn of another message repeats it
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
  if (Text::Run& turn = turns.front(); !turn.closed) {
    const bool more = speakers.more[static_cast<size_t>(turn.source)];
    turn.begin =
        TurnBegin({std::string_view(out.bytes).substr(0, own), begin, bound, message, more}, speakers);
  }
  if (!apart) Extend(turns.back(), out.bytes, out.bytes.size());
  for (Text::Run& turn : turns) turn.closed = true;
  runs.insert(runs.end(), turns.begin(), turns.end());
  return own;
}

}  // namespace rung::text::jinja
