#include "text/chat_template.h"

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <utility>

#include "base/text.h"
#include "text/jinja_eval.h"
#include "text/jinja_json.h"
#include "text/jinja_lexer.h"
#include "text/jinja_ops.h"
#include "text/jinja_parser.h"
#include "text/jinja_text.h"

namespace rung::text {

using jinja::Budget;
using jinja::Members;
using jinja::Speakers;
using jinja::Value;

namespace {

constexpr size_t kMaxSource = size_t{1} << 20;  // the longest templates of published models have 20 KB

// The first of these that a message has is its reasoning, whatever name the template reads.
constexpr std::array<std::string_view, 3> kReasoning = {"reasoning_content", "thinking", "reasoning"};

Members ExtraMembers(const Message& message, int32_t source, Budget& budget) {
  if (message.extra.empty()) return {};
  const Value extra = ParseJson(message.extra, source, budget);
  if (!extra.dict()) jinja::Fail("its other keys must be a JSON object, not " + jinja::TypeName(extra));
  Members members = extra.dict()->items;
  // Not what is said.
  for (const std::string_view name : {"name", "role"}) {
    Value* value = FindMember(members, name);
    if (value && value->text()) *value = MakeString(budget, value->text()->bytes);
  }
  return members;
}

void GiveReasoning(Members& message, Budget& budget) {
  for (const std::string_view name : kReasoning) {
    const Value* found = FindMember(message, name);
    if (!found) continue;
    const Value reasoning = *found;
    if (Value* standard = FindMember(message, kReasoning[0])) {
      *standard = reasoning;
    } else {
      message.emplace_back(MakeString(budget, kReasoning[0]), reasoning);
    }
    if (!FindMember(message, kReasoning[1]))
      message.emplace(message.begin(), MakeString(budget, kReasoning[1]), reasoning);
    return;
  }
}

Value MakeMessage(const Message& message, size_t index, bool with_origin, Budget& budget) {
  const int32_t source = with_origin ? static_cast<int32_t>(index) : -1;
  jinja::Text content{message.content, {}};
  if (with_origin && !content.bytes.empty()) content.runs.push_back({0, content.bytes.size(), source, false});
  Members fields;
  fields.emplace_back(MakeString(budget, "role"), MakeString(budget, message.role));
  fields.emplace_back(MakeString(budget, "content"), MakeText(budget, std::move(content)));
  for (auto& [key, value] : ExtraMembers(message, source, budget)) {
    if (Value* known = FindMember(fields, key.text()->bytes)) {
      *known = value;
    } else {
      fields.emplace_back(key, value);
    }
  }
  std::erase_if(fields, [](const auto& field) { return field.second.template Is<jinja::None>(); });
  GiveReasoning(fields, budget);
  return MakeDict(budget, std::move(fields), static_cast<int32_t>(index));
}

// The conversation as a list of dictionaries; the bytes of what is said carry the index of their message.
Value MakeMessages(std::span<const Message> messages, bool with_origin, Budget& budget) {
  std::vector<Value> items;
  for (size_t i = 0; i < messages.size(); ++i) {
    try {
      items.push_back(MakeMessage(messages[i], i, with_origin, budget));
    } catch (jinja::Problem& problem) {
      jinja::Fail("message " + std::to_string(i) + ": " + problem.message);
    }
  }
  return MakeList(budget, std::move(items));
}

Value ParseOption(const char* option, std::string_view json, bool list, Budget& budget) {
  if (json.empty()) return Value(jinja::None{});
  try {
    Value value = ParseJson(json, -1, budget);
    if (list ? value.list() != nullptr : value.dict() != nullptr) return value;
    jinja::Fail(std::string("a JSON ") + (list ? "list" : "object") + " is needed, not " +
                jinja::TypeName(value));
  } catch (jinja::Problem& problem) {
    jinja::Fail(std::string(option) + ": " + problem.message);
  }
}

using Variables = std::vector<std::pair<std::string, Value>>;

// All but the messages.
Variables MakeVariables(const RenderOptions& options, Budget& budget) {
  Variables variables;
  variables.emplace_back("add_generation_prompt", jinja::MakeBool(options.add_generation_prompt));
  variables.emplace_back("tools", ParseOption("tools", options.tools, true, budget));
  variables.emplace_back("documents", ParseOption("documents", options.documents, true, budget));
  const size_t fixed = variables.size();
  // A token that the model does not have is an undefined name, not an empty string: templates ask for that.
  if (!options.bos.empty()) variables.emplace_back("bos_token", MakeString(budget, options.bos));
  if (!options.eos.empty()) variables.emplace_back("eos_token", MakeString(budget, options.eos));
  const Value more = ParseOption("variables", options.variables, false, budget);
  if (!more.dict()) return variables;
  for (const auto& [key, value] : more.dict()->items) {
    const std::string& name = key.text()->bytes;
    const auto known = std::find_if(variables.begin(), variables.end(),
                                    [&](const auto& variable) { return variable.first == name; });
    if (name == "messages" || known - variables.begin() < static_cast<std::ptrdiff_t>(fixed))
      jinja::Fail("variables: '" + name + "' is not one of them: it is given by itself");
    if (known != variables.end()) {
      known->second = value;
    } else {
      variables.emplace_back(name, value);
    }
  }
  return variables;
}

// One rendering; what may go wrong is thrown.
jinja::Text RenderOnce(const jinja::Syntax& syntax, std::span<const Message> messages,
                       const RenderOptions& options, const Speakers& speakers,
                       std::optional<std::string>* header = nullptr,
                       std::vector<int32_t>* generations = nullptr) {
  Budget budget;
  jinja::Given given{MakeVariables(options, budget), speakers, options.now, header, generations};
  given.variables.emplace_back("messages", MakeMessages(messages, !syntax.has_generation, budget));
  return jinja::Run(syntax, given, budget);
}

Speakers SpeakersOf(std::span<const Message> messages) {
  Speakers speakers;
  for (const Message& message : messages) {
    speakers.assistant.push_back(message.role == "assistant");
    speakers.more.push_back(speakers.assistant.back() && !message.extra.empty());
  }
  return speakers;
}

// The same, without a failure: nullopt.
std::optional<jinja::Text> TryRender(const jinja::Syntax& syntax, std::span<const Message> messages,
                                     const RenderOptions& options,
                                     std::optional<std::string>* header = nullptr) {
  try {
    return RenderOnce(syntax, messages, options, SpeakersOf(messages), header);
  } catch (const jinja::PlacedProblem&) {
  } catch (const jinja::Problem&) {
  }
  return std::nullopt;
}

bool IsBlank(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](unsigned char c) { return jinja::IsSpace(c); });
}

// Where a mark begins that `text` ends inside of ("<|tool"); its size when it ends in none.
size_t OpenMark(std::string_view text) {
  for (const auto& [open, close] : {std::pair{'<', '>'}, {'[', ']'}}) {
    const size_t begin = text.rfind(open);
    if (begin != text.npos && text.find(close, begin) == text.npos) text = text.substr(0, begin);
  }
  return text.size();
}

// The end of a turn that another's bytes follow: of the template's text between (its tail), what it also
// writes when the conversation ends with this turn, for that is the turn's own. Only its own bytes where that
// cannot be seen.
size_t EndBeforeOthers(const jinja::Syntax& syntax, std::span<const Message> messages,
                       const RenderOptions& options, std::string_view text, const jinja::Text::Run& turn) {
  const size_t own = turn.end - turn.tail;
  RenderOptions changed = options;
  changed.add_generation_prompt = false;
  const std::optional<jinja::Text> alone =
      TryRender(syntax, messages.first(static_cast<size_t>(turn.source) + 1), changed);
  if (!alone) return own;
  const std::string_view with = text.substr(0, turn.end), without = alone->bytes;
  const size_t common = static_cast<size_t>(
      std::mismatch(with.begin(), with.end(), without.begin(), without.end()).first - with.begin());
  if (common <= own) return own;
  size_t end = own + (common < turn.end ? OpenMark(with.substr(own, common - own)) : turn.tail);
  while (end > own && jinja::IsSpace(static_cast<unsigned char>(with[end - 1]))) --end;
  return end;
}

// The same for many turns: one rendering for all that have the same tail.
class TailCutter {
 public:
  TailCutter(const jinja::Syntax& syntax, std::span<const Message> messages, const RenderOptions& options,
             std::string_view text)
      : syntax_(syntax), messages_(messages), options_(options), text_(text) {}

  size_t End(const jinja::Text::Run& turn) {
    if (turn.tail == 0) return turn.end;
    const size_t own = turn.end - turn.tail;
    const auto [kept, first] = kept_.try_emplace(text_.substr(own, turn.tail));
    if (first) kept->second = EndBeforeOthers(syntax_, messages_, options_, text_, turn) - own;
    return own + kept->second;
  }

 private:
  const jinja::Syntax& syntax_;
  std::span<const Message> messages_;
  const RenderOptions& options_;
  std::string_view text_;
  std::map<std::string_view, size_t> kept_;  // bytes of a tail that are the turn's
};

// Ends the last span of `rendered` where it ends in `alone`, the same conversation without the generation
// prompt: a template may write that in the iteration of the last message.
void EndBeforePrompt(const Rendered& alone, Rendered* rendered) {
  if (alone.assistant.empty()) return;
  const Rendered::Span& end = alone.assistant.back();
  Rendered::Span& span = rendered->assistant.back();
  if (end.message != span.message || end.begin != span.begin || end.end >= span.end) return;
  const std::string_view own = std::string_view(alone.text).substr(0, end.end);
  if (rendered->text.starts_with(own)) span.end = end.end;
}

// The turns of messages that no loop over the messages wrote, as into a variable. The first of them are found
// by rendering, kMaxCuts at most, for each takes two renderings of what precedes it; those behind have the
// template's text around them that the last one found has, where the same stands there.
class TurnCutter {
 public:
  TurnCutter(const jinja::Syntax& syntax, std::span<const Message> messages, const RenderOptions& options,
             const jinja::Text& written)
      : syntax_(syntax), messages_(messages), options_(options), written_(written) {}

  // The turn of the run `index`, not before the byte `least`; the run alone where it is not found.
  jinja::Text::Run Cut(size_t index, size_t least);

 private:
  static constexpr int kMaxCuts = 16;

  struct Place {
    jinja::Text::Run run;
    size_t least;  // the turn does not begin before it
    size_t bound;  // the end of what was said before the run
    size_t own;    // the end of the message's own bytes
    size_t most;   // where others speak, or the text ends
  };
  std::optional<jinja::Text::Run> ByRendering(const Place& place) const;
  jinja::Text::Run AsTheLast(const Place& place) const;

  const jinja::Syntax& syntax_;
  std::span<const Message> messages_;
  const RenderOptions& options_;
  const jinja::Text& written_;
  int cuts_ = 0;
  std::string_view front_, back_;  // the template's text around the message in the last turn found
};

// From where the generation prompt of the conversation before it ends to where the conversation with it does;
// from the message's own bytes where others speak in front of them. nullopt where the text does not go on
// from there.
std::optional<jinja::Text::Run> TurnCutter::ByRendering(const Place& place) const {
  const std::string_view text = written_.bytes;
  const auto source = static_cast<size_t>(place.run.source);
  RenderOptions changed = options_;
  changed.add_generation_prompt = true;
  const std::optional<jinja::Text> before = TryRender(syntax_, messages_.first(source), changed);
  if (!before || !text.starts_with(before->bytes)) return std::nullopt;
  const size_t begin = before->bytes.size();
  if (begin < place.least || begin > place.run.begin) return std::nullopt;
  changed.add_generation_prompt = false;
  const std::optional<jinja::Text> with = TryRender(syntax_, messages_.first(source + 1), changed);
  if (!with) return std::nullopt;
  const std::string_view whole = with->bytes;
  const size_t common = static_cast<size_t>(
      std::mismatch(text.begin(), text.end(), whole.begin(), whole.end()).first - text.begin());
  const size_t own = place.own;
  if (common < own || common > place.most) return std::nullopt;
  size_t end = common;
  if (common < std::min(text.size(), whole.size())) end = own + OpenMark(text.substr(own, common - own));
  while (end > own && jinja::IsSpace(static_cast<unsigned char>(text[end - 1]))) --end;
  return jinja::Text::Run{begin < place.bound ? place.run.begin : begin, end, place.run.source, true};
}

jinja::Text::Run TurnCutter::AsTheLast(const Place& place) const {
  const std::string_view text = written_.bytes;
  const std::string_view behind = text.substr(place.own, place.most - place.own);
  if (back_.empty() || !behind.starts_with(back_)) return place.run;
  const size_t least = std::max(place.least, place.bound);
  size_t begin = place.run.begin;
  if (begin >= least && text.substr(least, begin - least).ends_with(front_)) begin -= front_.size();
  return {begin, place.own + back_.size(), place.run.source, true};
}

jinja::Text::Run TurnCutter::Cut(size_t index, size_t least) {
  const std::vector<jinja::Text::Run>& runs = written_.runs;
  const jinja::Text::Run& run = runs[index];
  // The rest of a message whose turn was not found.
  if (index > 0 && runs[index - 1].source == run.source && !runs[index - 1].closed) return run;
  size_t next = index;
  while (next < runs.size() && runs[next].source == run.source && !runs[next].closed) ++next;
  const Place place{run, least, index > 0 ? runs[index - 1].end : 0, runs[next - 1].end,
                    next < runs.size() ? runs[next].begin : written_.bytes.size()};
  if (cuts_ == kMaxCuts) return AsTheLast(place);
  ++cuts_;
  const std::optional<jinja::Text::Run> turn = ByRendering(place);
  if (!turn) return run;
  const std::string_view text = written_.bytes;
  front_ = text.substr(turn->begin, run.begin - turn->begin);
  back_ = text.substr(place.own, turn->end - place.own);
  return *turn;
}

// With what stands in front of an answer, found by rendering the messages before one alone, with the
// generation prompt, and with an answer. A template that cannot do one of these has no such header. A single
// plain answer at the end does not need it: see Rendered.
Speakers FindHeaders(const jinja::Syntax& syntax, std::span<const Message> messages,
                     const RenderOptions& options) {
  Speakers speakers = SpeakersOf(messages);
  const bool more = std::find(speakers.more.begin(), speakers.more.end(), true) != speakers.more.end();
  const auto first = std::find(speakers.assistant.begin(), speakers.assistant.end(), true);
  if (!more && (first == speakers.assistant.end() || first + 1 == speakers.assistant.end())) return speakers;
  // The first that follows something.
  const auto follows = std::find(speakers.assistant.begin() + 1, speakers.assistant.end(), true);
  const std::ptrdiff_t answer =
      (follows == speakers.assistant.end() ? first : follows) - speakers.assistant.begin();
  std::optional<std::string> header;
  const auto render = [&](std::span<const Message> prefix, bool prompt) {
    RenderOptions changed = options;
    changed.add_generation_prompt = prompt;
    return TryRender(syntax, prefix, changed, &header);
  };
  std::vector<Message> prefix(messages.begin(), messages.begin() + answer);
  const std::optional<jinja::Text> alone = render(prefix, false), prompted = render(prefix, true);
  if (alone && prompted && prompted->bytes.starts_with(alone->bytes))
    speakers.prompt = prompted->bytes.substr(alone->bytes.size());
  const bool asked = speakers.prompt && !IsBlank(*speakers.prompt);
  if (asked && !more) return speakers;
  prefix.push_back({"assistant", "x"});
  header.reset();
  const std::optional<jinja::Text> answered = render(prefix, false);
  speakers.plain = header;
  // It is written whether it is asked for or not, or there is none.
  if (!asked && prompted && answered && header)
    speakers.prompt = jinja::PromptIn(*answered, *header, prompted->bytes);
  return speakers;
}

}  // namespace

struct ChatTemplate::Program {
  std::string name, source;
  jinja::Syntax syntax;
};

Result<ChatTemplate> ChatTemplate::Parse(std::string_view source, const std::string& name) {
  const std::string prefix = "template of " + name + ": ";
  if (source.size() > kMaxSource) return Failure{prefix + "more than 1 MiB: this is no chat template"};
  if (!IsUtf8(source)) return Failure{prefix + "not UTF-8"};
  auto program = std::make_shared<Program>();
  program->name = name;
  program->source = source;
  std::string normal = jinja::NormalizeNewlines(source);
  try {
    program->syntax = jinja::Parse(normal);
  } catch (const jinja::SyntaxError& error) {
    return Failure{prefix + jinja::Place(normal, error.at) + ": " + error.message};
  }
  program->syntax.source = std::move(normal);
  return ChatTemplate(std::move(program));
}

Result<Rendered> ChatTemplate::Render(const std::vector<Message>& messages,
                                      const RenderOptions& options) const {
  const jinja::Syntax& syntax = program_->syntax;
  const std::string prefix = "template of " + program_->name + ": ";
  Speakers speakers;
  jinja::Text text;
  std::vector<int32_t> generations;
  try {
    if (!syntax.has_generation) speakers = FindHeaders(syntax, messages, options);
    text = RenderOnce(syntax, messages, options, speakers, nullptr, &generations);
  } catch (const jinja::PlacedProblem& placed) {
    if (placed.problem.raised) return Failure{prefix + placed.problem.message};
    return Failure{prefix + jinja::Place(syntax.source, placed.at) + ": " + placed.problem.message};
  } catch (const jinja::Problem& problem) {
    return Failure{prefix + problem.message};
  }
  Rendered rendered;
  TurnCutter cutter(syntax, messages, options, text);
  TailCutter tails(syntax, messages, options, text.bytes);
  for (size_t i = 0; i < text.runs.size(); ++i) {
    const jinja::Text::Run& run = text.runs[i];
    const auto source = static_cast<size_t>(run.source);
    if (syntax.has_generation) {
      rendered.assistant.push_back({run.begin, run.end, generations[source]});
    } else if (run.closed) {
      rendered.assistant.push_back({run.begin, tails.End(run), run.source});
    } else if (speakers.assistant[source]) {
      const size_t least = rendered.assistant.empty() ? 0 : rendered.assistant.back().end;
      const jinja::Text::Run turn = cutter.Cut(i, least);
      rendered.assistant.push_back({turn.begin, turn.end, run.source});
      while (i + 1 < text.runs.size() && text.runs[i + 1].begin < turn.end) ++i;
    }
  }
  rendered.text = std::move(text.bytes);
  const bool prompted =
      options.add_generation_prompt && !syntax.has_generation && !rendered.assistant.empty();
  if (prompted && static_cast<size_t>(rendered.assistant.back().message) + 1 == messages.size()) {
    RenderOptions changed = options;
    changed.add_generation_prompt = false;
    if (const Result<Rendered> alone = Render(messages, changed); alone.ok())
      EndBeforePrompt(alone.value(), &rendered);
  }
  return rendered;
}

Result<Rendered> ChatTemplate::Render(const std::vector<Message>& messages, bool add_generation_prompt,
                                      std::string_view bos, std::string_view eos) const {
  RenderOptions options;
  options.add_generation_prompt = add_generation_prompt;
  options.bos = bos;
  options.eos = eos;
  return Render(messages, options);
}

const std::string& ChatTemplate::source() const { return program_->source; }

bool ChatTemplate::asks_time() const { return program_->source.find("strftime_now") != std::string::npos; }

}  // namespace rung::text
