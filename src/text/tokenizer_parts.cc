#include "text/tokenizer_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "text/unicode.h"
#include "text/utf8.h"

namespace rung::text {
namespace {

using Json = nlohmann::json;

// The type's name; fails when there is none.
std::string TypeOf(const Json& json, std::string_view where, JsonReader* reader) {
  if (!json.is_object()) {
    reader->Fail(fmt::format("{}: expected an object, found {}", where, json.type_name()));
    return {};
  }
  const std::string type = reader->String(json, "type", "", where);
  if (type.empty()) reader->Fail(fmt::format("{}.type: missing", where));
  return type;
}

void Unsupported(std::string_view where, std::string_view what, JsonReader* reader) {
  reader->Fail(fmt::format("{}: {} is not supported", where, what));
}

// {"String": "..."} or {"Regex": "..."}.
struct Pattern {
  std::string text;
  bool is_regex = false;
};
Pattern ReadPattern(const Json& json, std::string_view where, JsonReader* reader) {
  const Json* pattern = reader->Object(json, "pattern", where);
  if (pattern == nullptr) {
    reader->Fail(fmt::format("{}.pattern: missing", where));
    return {};
  }
  Pattern read;
  read.text = reader->String(*pattern, "String", "", where);
  if (read.text.empty()) {
    read.text = reader->String(*pattern, "Regex", "", where);
    read.is_regex = true;
  }
  if (read.text.empty())
    reader->Fail(fmt::format("{}.pattern: expected a String or a Regex, not empty", where));
  return read;
}

std::optional<Regex> CompilePattern(const Pattern& pattern, std::string_view where, JsonReader* reader) {
  Result<Regex> regex = pattern.is_regex ? Regex::Compile(pattern.text) : Regex::Literal(pattern.text);
  if (regex.ok()) return std::move(regex).value();
  reader->Fail(fmt::format("{}: {}", where, regex.failure().message));
  return std::nullopt;
}

SplitBehavior ReadBehavior(const Json& json, std::string_view where, JsonReader* reader) {
  const std::string behavior = reader->String(json, "behavior", "Isolated", where);
  static constexpr std::pair<std::string_view, SplitBehavior> kBehaviors[] = {
      {"Isolated", SplitBehavior::kIsolated},
      {"Removed", SplitBehavior::kRemoved},
      {"Contiguous", SplitBehavior::kContiguous},
      {"MergedWithPrevious", SplitBehavior::kMergedWithPrevious},
      {"MergedWithNext", SplitBehavior::kMergedWithNext}};
  const auto found = std::find_if(std::begin(kBehaviors), std::end(kBehaviors),
                                  [&](const auto& known) { return known.first == behavior; });
  if (found != std::end(kBehaviors)) return found->second;
  Unsupported(where, fmt::format("behavior '{:.60}'", behavior), reader);
  return SplitBehavior::kIsolated;
}

void ReadSplit(const Json& json, std::string_view where, JsonReader* reader, PreTokenizer* pretokenizer) {
  PreStep step;
  step.regex = CompilePattern(ReadPattern(json, where, reader), where, reader);
  step.invert = reader->Bool(json, "invert", false, where);
  step.behavior = ReadBehavior(json, where, reader);
  pretokenizer->steps.push_back(std::move(step));
}

// prepend_scheme replaced add_prefix_space: files carry either.
PreStep ReadMetaspace(const Json& json, std::string_view where, JsonReader* reader) {
  PreStep step;
  step.kind = PreStep::Kind::kMetaspace;
  step.mark = reader->String(json, "replacement", "\u2581", where);
  if (step.mark.empty() || StepUtf8(step.mark).size != step.mark.size())
    reader->Fail(fmt::format("{}.replacement: expected one character", where));
  step.split = reader->Bool(json, "split", true, where);
  const bool prefix = reader->Bool(json, "add_prefix_space", true, where);
  const std::string scheme = reader->String(json, "prepend_scheme", prefix ? "always" : "never", where);
  if (scheme == "first")
    step.prepend = PreStep::Prepend::kFirst;
  else if (scheme == "never")
    step.prepend = PreStep::Prepend::kNever;
  else if (scheme != "always")
    Unsupported(where, fmt::format("prepend_scheme '{:.60}'", scheme), reader);
  return step;
}

void ReadByteLevel(const Json& json, std::string_view where, JsonReader* reader, PreTokenizer* pretokenizer) {
  if (reader->Bool(json, "add_prefix_space", true, where)) {
    PreStep step;
    step.kind = PreStep::Kind::kSpace;
    pretokenizer->steps.push_back(std::move(step));
  }
  if (reader->Bool(json, "use_regex", true, where))
    pretokenizer->steps.push_back(SplitAt(kGpt2Pattern.pattern, SplitBehavior::kIsolated).OrThrow());
}

// The one character of a member, 0 after a failure.
uint32_t ReadCharacter(const Json& json, const char* key, std::string_view where, JsonReader* reader) {
  const std::string text = reader->String(json, key, "", where);
  if (!text.empty() && StepUtf8(text).size == text.size()) return StepUtf8(text).code_point;
  reader->Fail(fmt::format("{}.{}: expected one character", where, key));
  return 0;
}

void ReadReplaceStep(const Json& json, std::string_view where, JsonReader* reader, NormalStep* step) {
  const Pattern pattern = ReadPattern(json, where, reader);
  step->kind = NormalStep::Kind::kReplace;
  step->from = pattern.text;
  step->to = reader->String(json, "content", "", where);
  if (pattern.is_regex) step->regex = CompilePattern(pattern, where, reader);
}

void ReadDecoderStep(const Json& json, JsonReader* reader, TokenizerImpl* impl, bool* byte_tokens) {
  constexpr std::string_view kWhere = "decoder";
  const std::string type = TypeOf(json, kWhere, reader);
  if (type == "ByteLevel" || type == "Fuse" || !reader->ok()) return;
  if (type == "ByteFallback") {
    *byte_tokens = true;
  } else if (type == "Replace") {
    const Pattern pattern = ReadPattern(json, kWhere, reader);
    if (pattern.is_regex) return Unsupported(kWhere, "Replace with a Regex", reader);
    impl->piece_replacements.emplace_back(pattern.text, reader->String(json, "content", "", kWhere));
  } else if (type == "Strip") {
    const Json start = json.value("start", Json(0)), stop = json.value("stop", Json(0));
    if (reader->String(json, "content", "", kWhere) != " " || stop != 0)
      return Unsupported(kWhere, "Strip other than of spaces at the beginning", reader);
    impl->leading_spaces = static_cast<int>(reader->Int(start, "decoder.start"));
  } else if (type == "Metaspace") {
    const PreStep step = ReadMetaspace(json, kWhere, reader);
    impl->piece_replacements.emplace_back(step.mark, " ");
    impl->leading_spaces = step.prepend == PreStep::Prepend::kNever ? 0 : 1;
  } else {
    Unsupported(kWhere, fmt::format("{:.60}", type), reader);
  }
}

}  // namespace

void ReadNormalizer(const Json& json, JsonReader* reader, Normalizer* normalizer) {
  constexpr std::string_view kWhere = "normalizer";
  if (json.is_null()) return;
  const std::string type = TypeOf(json, kWhere, reader);
  if (!reader->ok()) return;
  if (type == "Sequence") {
    if (const Json* steps = reader->Array(json, "normalizers", kWhere))
      for (const Json& step : *steps) ReadNormalizer(step, reader, normalizer);
    return;
  }
  NormalStep step;
  static constexpr std::pair<std::string_view, NormalStep::Kind> kPlain[] = {
      {"NFC", NormalStep::Kind::kNfc},
      {"NFD", NormalStep::Kind::kNfd},
      {"NFKC", NormalStep::Kind::kNfkc},
      {"NFKD", NormalStep::Kind::kNfkd},
      {"Lowercase", NormalStep::Kind::kLowercase},
      {"StripAccents", NormalStep::Kind::kStripAccents}};
  const auto plain = std::find_if(std::begin(kPlain), std::end(kPlain),
                                  [&](const auto& known) { return known.first == type; });
  if (plain != std::end(kPlain)) {
    step.kind = plain->second;
  } else if (type == "Prepend") {
    step.kind = NormalStep::Kind::kPrepend;
    step.to = reader->String(json, "prepend", "", kWhere);
  } else if (type == "Strip") {
    step.kind = NormalStep::Kind::kStrip;
    step.left = reader->Bool(json, "strip_left", true, kWhere);
    step.right = reader->Bool(json, "strip_right", true, kWhere);
  } else if (type == "Precompiled") {
    Result<Charsmap> map = Charsmap::FromBase64(reader->String(json, "precompiled_charsmap", "", kWhere));
    if (!map.ok()) return reader->Fail(fmt::format("{}.{}", kWhere, map.failure().message));
    step.kind = NormalStep::Kind::kCharsmap;
    step.charsmap = std::make_shared<const Charsmap>(std::move(map).value());
  } else if (type == "Replace") {
    ReadReplaceStep(json, kWhere, reader, &step);
  } else {
    return Unsupported(kWhere, fmt::format("{:.60}", type), reader);
  }
  normalizer->steps.push_back(std::move(step));
}

void ReadPreTokenizer(const Json& json, JsonReader* reader, PreTokenizer* pretokenizer, bool* byte_level) {
  constexpr std::string_view kWhere = "pre_tokenizer";
  if (json.is_null()) return;
  const std::string type = TypeOf(json, kWhere, reader);
  if (!reader->ok()) return;
  // Behind ByteLevel a pattern would see the printable stand-ins of bytes, which we never make.
  if (*byte_level) return Unsupported(kWhere, fmt::format("{:.60} behind ByteLevel", type), reader);
  if (type == "Sequence") {
    if (const Json* steps = reader->Array(json, "pretokenizers", kWhere))
      for (const Json& step : *steps) ReadPreTokenizer(step, reader, pretokenizer, byte_level);
  } else if (type == "ByteLevel") {
    ReadByteLevel(json, kWhere, reader, pretokenizer);
    *byte_level = true;
  } else if (type == "Split") {
    ReadSplit(json, kWhere, reader, pretokenizer);
  } else if (type == "Digits") {
    const bool individual = reader->Bool(json, "individual_digits", false, kWhere);
    pretokenizer->steps.push_back(
        SplitAtCharacters(IsNumber, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous));
  } else if (type == "Punctuation") {
    pretokenizer->steps.push_back(SplitAtCharacters(IsPunctuation, ReadBehavior(json, kWhere, reader)));
  } else if (type == "WhitespaceSplit") {
    pretokenizer->steps.push_back(SplitAtCharacters(IsSpace, SplitBehavior::kRemoved));
  } else if (type == "BertPreTokenizer") {
    pretokenizer->steps.push_back(SplitAtCharacters(IsSpace, SplitBehavior::kRemoved));
    pretokenizer->steps.push_back(SplitAtCharacters(IsPunctuation, SplitBehavior::kIsolated));
  } else if (type == "Delimiter" || type == "CharDelimiterSplit") {
    PreStep step = SplitAtCharacters(nullptr, SplitBehavior::kRemoved);
    step.delimiter = ReadCharacter(json, "delimiter", kWhere, reader);
    pretokenizer->steps.push_back(std::move(step));
  } else if (type == "Whitespace") {
    PreStep step;
    step.kind = PreStep::Kind::kWords;
    step.behavior = SplitBehavior::kRemoved;
    pretokenizer->steps.push_back(std::move(step));
  } else if (type == "FixedLength") {
    PreStep step;
    step.kind = PreStep::Kind::kLength;
    step.length = json.contains("length")
                      ? static_cast<size_t>(reader->Int(json["length"], "pre_tokenizer.length"))
                      : 5;
    if (step.length == 0) reader->Fail("pre_tokenizer.length: expected at least 1");
    pretokenizer->steps.push_back(std::move(step));
  } else if (type == "Metaspace") {
    pretokenizer->steps.push_back(ReadMetaspace(json, kWhere, reader));
  } else {
    Unsupported(kWhere, fmt::format("{:.60}", type), reader);
  }
}

void ReadDecoder(const Json& json, JsonReader* reader, TokenizerImpl* impl, bool* byte_tokens) {
  if (json.is_null()) return Unsupported("decoder", "a tokenizer without a decoder", reader);
  if (!json.is_object() || json.value("type", Json()) != "Sequence")
    return ReadDecoderStep(json, reader, impl, byte_tokens);
  if (const Json* steps = reader->Array(json, "decoders", "decoder"))
    for (const Json& step : *steps) ReadDecoderStep(step, reader, impl, byte_tokens);
}

std::string ReadFirstSpecial(const Json& json, JsonReader* reader) {
  constexpr std::string_view kWhere = "post_processor";
  if (json.is_null()) return {};
  const std::string type = TypeOf(json, kWhere, reader);
  if (type == "Sequence") {
    std::string first;
    if (const Json* steps = reader->Array(json, "processors", kWhere))
      for (const Json& step : *steps)
        if (first.empty()) first = ReadFirstSpecial(step, reader);
    return first;
  }
  if (type == "RobertaProcessing" || type == "BertProcessing") {
    const Json* cls = reader->Array(json, "cls", kWhere);
    if (cls != nullptr && cls->size() == 2 && cls->front().is_string())
      return cls->front().get<std::string>();
    reader->Fail(fmt::format("{}.cls: expected [text, id]", kWhere));
    return {};
  }
  if (type == "ByteLevel") return {};
  if (type != "TemplateProcessing") {
    Unsupported(kWhere, fmt::format("{:.60}", type), reader);
    return {};
  }
  const Json* single = reader->Array(json, "single", kWhere);
  if (single == nullptr || single->empty()) return {};
  const Json* special = reader->Object(single->front(), "SpecialToken", kWhere);
  return special == nullptr ? std::string() : reader->String(*special, "id", "", kWhere);
}

}  // namespace rung::text
