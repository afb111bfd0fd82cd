#include "data/checker.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <iterator>
#include <memory>
#include <utility>

#include "data/dataset.h"
#include "data/row_pieces.h"

namespace rung::data {
namespace {

// Training records that others are compared with: about half a gigabyte.
constexpr size_t kRemembered = size_t{1} << 22;

using Defective = std::pair<Defect, std::string>;

bool IsBlank(const std::string& text) { return text.find_first_not_of(" \t\r\n") == text.npos; }

// An answer without content, or none at all; what is learned of a blank one is its white space and its end.
std::optional<Defective> FindEmptyAnswer(const Record& record) {
  const auto of_text = [](const std::string& text, const char* name) -> std::optional<Defective> {
    if (text.empty()) return Defective{Defect::kNothing, fmt::format("the {} is empty", name)};
    if (IsBlank(text))
      return Defective{Defect::kEmptyAnswer, fmt::format("the {} is white space alone", name)};
    return std::nullopt;
  };
  std::string learned;
  switch (record.shape) {
    case Shape::kCompletion:
      return of_text(record.completion, "completion");
    case Shape::kText:
      return of_text(record.text, "text");
    case Shape::kSegments:
      for (const Segment& segment : record.segments) learned += segment.learned ? segment.text : "";
      return of_text(learned, "text of its learned segments");
    case Shape::kMessages:
      break;
  }
  std::optional<Defective> empty;
  bool any = false;
  for (size_t i = 0; i < record.messages.size(); ++i) {
    const text::Message& message = record.messages[i];
    if (message.role != "assistant" || (!record.learned.empty() && !record.learned[i])) continue;
    if (!message.extra.empty() || !IsBlank(message.content)) {
      any = true;
    } else if (!empty) {
      empty = Defective{Defect::kEmptyAnswer,
                        fmt::format("message {} is the assistant's and {}", i + 1,
                                    message.content.empty() ? "empty" : "white space alone")};
    }
  }
  if (any || empty) return empty;
  return Defective{Defect::kNothing, "no message of the assistant's is learned"};
}

}  // namespace

const char* NameOf(Defect defect) {
  constexpr const char* kNames[] = {"bad record",
                                    "nothing to learn",
                                    "empty answer",
                                    "left out in training",
                                    "special token in plain text",
                                    "left out by the template",
                                    "duplicate",
                                    "another answer to the same prompt",
                                    "stands in the training data"};
  return kNames[static_cast<size_t>(defect)];
}

Checker::Checker(const CheckOptions& options, const Encoder* encoder,
                 std::function<void(const Finding&)> on_finding)
    : options_(options), encoder_(encoder), on_finding_(std::move(on_finding)) {}

void Checker::Training(std::span<const DataFile> files) {
  int64_t examples = 0;
  double kept = 0;
  for (const DataFile& file : files) {
    File(file.path, false);
    examples += examples_;
    kept += std::floor(static_cast<double>(examples_) * file.weight);
  }
  // Without a model it is not known into how many a record is split.
  const bool counted = encoder_ || options_.truncation != Truncation::kSplit;
  if (examples == 0 || kept > 0 || !counted) return;
  clean_ = false;
  on_finding_(
      {Defect::kLeftOut, files.front().path.string(), 0,
       fmt::format("the weights leave none of {} examples: raise FILE:{}", examples, files.front().weight)});
}

void Checker::File(const Path& path, bool held_out) {
  files_.push_back(path.string());
  examples_ = 0;
  Result<std::unique_ptr<RowReader>> opened = RowReader::Open(path, options_.read.sample_by);
  if (!opened.ok()) return AddUnreadable(opened.failure().message);
  RowReader& reader = *opened.value();
  FileCheck check(reader.name(), INT64_MAX);
  RowPieces pieces(&reader, options_.threads, nullptr);
  for (;;) {
    Result<std::span<RawRow>> piece = pieces.Next();
    if (!piece.ok()) return AddUnreadable(piece.failure().message);
    const std::span<RawRow> rows = piece.value();
    if (rows.empty()) break;
    std::vector<Looked> looked(rows.size());
    pieces.ForEach([&](size_t i) { Look(rows[i], reader, &looked[i]); }).OrThrow();
    for (size_t i = 0; i < rows.size(); ++i) Take(&check, rows[i].row, std::move(looked[i]), held_out);
  }
  if (check.records() == 0 && check.bad_rows() == 0) AddUnreadable(check.Finish().failure().message);
}

void Checker::Add(Defect defect, int64_t row, std::string what) {
  clean_ = false;
  on_finding_({defect, files_.back(), row, std::move(what)});
}

void Checker::AddUnreadable(std::string_view message) {
  const std::string& file = files_.back();
  int64_t row = 0;
  if (message.starts_with(file)) {
    message.remove_prefix(file.size());
    if (const auto [end, code] = std::from_chars(message.data() + 1, message.data() + message.size(), row);
        message.starts_with(':') && code == std::errc()) {
      message.remove_prefix(static_cast<size_t>(end - message.data()));
    } else {
      row = 0;
    }
    while (message.starts_with(':') || message.starts_with(' ')) message.remove_prefix(1);
  }
  Add(Defect::kBad, row, std::string(message));
}

void Checker::Look(const RawRow& row, const RowReader& reader, Looked* looked) const {
  looked->record = RecordOfRow(row, reader, options_.read);
  if (!looked->record->ok()) return;
  const Record& record = looked->record->value();
  std::optional<Defective> empty = FindEmptyAnswer(record);
  // With a model, what is learned is not guessed.
  const bool guess = encoder_ || options_.train_on_prompt;
  const bool nothing = empty && empty->first == Defect::kNothing;
  if (empty && !(guess && nothing)) looked->defects.push_back(std::move(*empty));
  if (encoder_) {
    LookAsTraining(record, looked);
  } else {
    looked->examples = nothing && !guess ? 0 : 1;
  }
  looked->content = ContentHash(record);
  looked->prompt = PromptHash(record);
}

void Checker::LookAsTraining(const Record& record, Looked* looked) const {
  const Result<std::vector<Example>> parts = encoder_->EncodeParts(record);
  if (!parts.ok()) {
    looked->defects.emplace_back(Defect::kLeftOut, parts.failure().message);
    return;
  }
  looked->examples = std::ssize(parts.value());
  if (const std::string special = encoder_->SpecialText(record); !special.empty()) {
    looked->defects.emplace_back(
        Defect::kSpecialText,
        fmt::format("\"{}\" is read as plain text: a template has rendered it before?", special));
  }
  for (std::string& what : encoder_->Unwritten(record))
    looked->defects.emplace_back(Defect::kUnwritten, std::move(what));
}

void Checker::Take(FileCheck* check, int64_t row, Looked looked, bool held_out_file) {
  ++records_;
  std::vector<std::string> bad;
  const std::optional<Record> record = check->Take(std::move(*looked.record), row, &bad);
  if (!record) return AddUnreadable(bad.front());
  for (auto& [defect, what] : looked.defects) Add(defect, row, std::move(what));
  const bool held_out = IsHeldOut(looked.content, options_.valid_fraction);
  if (!held_out) examples_ += looked.examples;
  const Place here{static_cast<int32_t>(files_.size() - 1), held_out, row};
  const auto asked = prompts_.find(looked.prompt);
  const auto same = contents_.find(looked.content);
  if (held_out_file) {
    if (asked == prompts_.end()) return;
    const bool whole = same != contents_.end();
    return Add(Defect::kInTraining, row,
               fmt::format("{} {}", whole ? "the same record as" : "the same prompt as",
                           Name(whole ? same->second : asked->second)));
  }
  if (same != contents_.end()) return Add(Defect::kDuplicate, row, "of " + Name(same->second));
  if (asked != prompts_.end()) {
    const bool apart = asked->second.held_out != held_out;
    Add(Defect::kTwoAnswers, row,
        fmt::format("as in {}{}", Name(asked->second),
                    apart ? ": --valid-fraction holds out one of them" : ""));
  }
  if (contents_.size() >= kRemembered) {
    full_ = true;
    return;
  }
  contents_.emplace(looked.content, here);
  prompts_.try_emplace(looked.prompt, here);
}

std::string Checker::Name(const Place& place) const {
  return fmt::format("{}:{}", files_[static_cast<size_t>(place.file)], place.row);
}

}  // namespace rung::data
