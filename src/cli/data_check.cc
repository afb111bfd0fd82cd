#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <unordered_map>

#include "base/text.h"
#include "cli/data.h"
#include "cli/print.h"
#include "data/data_files.h"
#include "data/dataset.h"
#include "data/row_pieces.h"

namespace rung::cli {
namespace {

// Findings of one kind that are listed; all are counted.
constexpr int64_t kListed = 1000;
// Training records that others are compared with: about half a gigabyte.
constexpr size_t kRemembered = size_t{1} << 22;

struct CheckCommand : DataCommand {
  std::vector<std::string> test_data;
};

enum class Kind : uint8_t {
  kBad,
  kNothing,
  kEmptyAnswer,
  kLeftOut,
  kSpecialText,
  kUnwritten,
  kDuplicate,
  kTwoAnswers,
  kInTraining
};
constexpr const char* kKinds[] = {"bad record",
                                  "nothing to learn",
                                  "empty answer",
                                  "left out in training",
                                  "special token in plain text",
                                  "left out by the template",
                                  "duplicate",
                                  "another answer to the same prompt",
                                  "stands in the training data"};
const char* NameOf(Kind kind) { return kKinds[static_cast<size_t>(kind)]; }

struct Finding {
  Kind kind;
  std::string what;
};

class Findings {
 public:
  explicit Findings(bool json) : json_(json) {}

  // `row` 0: of the whole file.
  void Add(const Finding& found, const std::string& file, int64_t row) {
    if (++counts_[found.kind] > kListed) return;
    if (json_) {
      list_.push_back({{"kind", NameOf(found.kind)}, {"file", file}, {"row", row}, {"what", found.what}});
    } else {
      fmt::print("{}:{} {}: {}\n", file, row > 0 ? fmt::format("{}:", row) : "", NameOf(found.kind),
                 Printable(found.what, Newlines::kKeep));
    }
  }
  bool empty() const { return counts_.empty(); }
  // `compared`: training records that others were compared with; `all` of them: whether these are all.
  void Print(int64_t records, size_t compared, bool all) const {
    nlohmann::ordered_json counts = nlohmann::ordered_json::object();
    for (const auto& [kind, count] : counts_) counts[NameOf(kind)] = count;
    if (json_) {
      const nlohmann::ordered_json summary = {
          {"records", records}, {"compared", compared}, {"counts", counts}, {"findings", list_}};
      PrintJson(summary);
      return;
    }
    fmt::print("{} records", records);
    for (const auto& [kind, count] : counts_) {
      fmt::print(", {}: {}{}", NameOf(kind), count,
                 count > kListed ? fmt::format(" ({} listed)", kListed) : "");
    }
    fmt::print("{}\n", counts_.empty() ? ", nothing wrong" : "");
    if (!all) fmt::print("duplicates were looked for among the first {} training records\n", compared);
  }

 private:
  bool json_;
  std::map<Kind, int64_t> counts_;
  nlohmann::ordered_json list_ = nlohmann::ordered_json::array();
};

bool IsBlank(const std::string& text) { return text.find_first_not_of(" \t\r\n") == text.npos; }

// An answer without content, or none at all; what is learned of a blank one is its white space and its end.
std::optional<Finding> FindEmptyAnswer(const data::Record& record) {
  const auto of_text = [](const std::string& text, const char* name) -> std::optional<Finding> {
    if (text.empty()) return Finding{Kind::kNothing, fmt::format("the {} is empty", name)};
    if (IsBlank(text)) return Finding{Kind::kEmptyAnswer, fmt::format("the {} is white space alone", name)};
    return std::nullopt;
  };
  std::string learned;
  switch (record.shape) {
    case data::Shape::kCompletion:
      return of_text(record.completion, "completion");
    case data::Shape::kText:
      return of_text(record.text, "text");
    case data::Shape::kSegments:
      for (const data::Segment& segment : record.segments) learned += segment.learned ? segment.text : "";
      return of_text(learned, "text of its learned segments");
    case data::Shape::kMessages:
      break;
  }
  std::optional<Finding> empty;
  bool any = false;
  for (size_t i = 0; i < record.messages.size(); ++i) {
    const text::Message& message = record.messages[i];
    if (message.role != "assistant" || (!record.learned.empty() && !record.learned[i])) continue;
    if (!message.extra.empty() || !IsBlank(message.content)) {
      any = true;
    } else if (!empty) {
      empty =
          Finding{Kind::kEmptyAnswer, fmt::format("message {} is the assistant's and {}", i + 1,
                                                  message.content.empty() ? "empty" : "white space alone")};
    }
  }
  if (any || empty) return empty;
  return Finding{Kind::kNothing, "no message of the assistant's is learned"};
}

struct Place {
  int32_t file = 0;
  bool held_out = false;
  int64_t row = 0;
};

// What can be said of a row alone.
struct Looked {
  std::optional<Result<data::Record>> record;
  std::vector<Finding> findings;
  uint64_t content = 0, prompt = 0;
  int64_t examples = 0;
};

class Checker {
 public:
  explicit Checker(const CheckCommand& command)
      : command_(command), options_(Resolve(command.flags)), findings_(command.json) {
    if (command.model.empty()) return;
    model_ = std::make_unique<LoadedModel>(LoadTextOf(command));
    encoder_.emplace(EncoderOf(command, *model_));
  }

  void File(const Path& path, bool test) {
    files_.push_back(path.string());
    examples_ = 0;
    Result<std::unique_ptr<data::RowReader>> opened = data::RowReader::Open(path, options_.read.sample_by);
    if (!opened.ok()) return AddUnreadable(opened.failure().message);
    data::RowReader& reader = *opened.value();
    data::FileCheck check(reader.name(), INT64_MAX);
    data::RowPieces pieces(&reader, threads_, nullptr);
    for (;;) {
      Result<std::span<data::RawRow>> piece = pieces.Next();
      if (!piece.ok()) return AddUnreadable(piece.failure().message);
      const std::span<data::RawRow> rows = piece.value();
      if (rows.empty()) break;
      std::vector<Looked> looked(rows.size());
      pieces.ForEach([&](size_t i) { Look(rows[i], reader, &looked[i]); }).OrThrow();
      for (size_t i = 0; i < rows.size(); ++i) Take(&check, rows[i].row, std::move(looked[i]), test);
    }
    if (check.records() == 0 && check.bad_rows() == 0) AddUnreadable(check.Finish().failure().message);
  }
  // Training files, each as often as its weight says; all of them may be left out by it.
  void Training(std::span<const data::DataFile> files) {
    int64_t examples = 0;
    double kept = 0;
    for (const data::DataFile& file : files) {
      File(file.path, false);
      examples += examples_;
      kept += std::floor(static_cast<double>(examples_) * file.weight);
    }
    // Without a model it is not known into how many a record is split.
    const bool counted = encoder_ || options_.truncation != data::Truncation::kSplit;
    if (examples == 0 || kept > 0 || !counted) return;
    findings_.Add({Kind::kLeftOut, fmt::format("the weights leave none of {} examples: raise FILE:{}",
                                               examples, files.front().weight)},
                  files.front().path.string(), 0);
  }
  bool Finish() {
    findings_.Print(records_, contents_.size(), !full_);
    return findings_.empty();
  }

 private:
  // What is wrong with a file from some row on: "name:row: what" or "name: what".
  void AddUnreadable(std::string_view message) {
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
    findings_.Add({Kind::kBad, std::string(message)}, file, row);
  }

  void Look(const data::RawRow& row, const data::RowReader& reader, Looked* looked) const {
    looked->record = data::RecordOfRow(row, reader, options_.read);
    if (!looked->record->ok()) return;
    const data::Record& record = looked->record->value();
    std::optional<Finding> empty = FindEmptyAnswer(record);
    // With a model, what is learned is not guessed.
    const bool guess = encoder_ || command_.train_on_prompt;
    const bool nothing = empty && empty->kind == Kind::kNothing;
    if (empty && !(guess && nothing)) looked->findings.push_back(std::move(*empty));
    if (encoder_) {
      LookAsTraining(record, looked);
    } else {
      looked->examples = nothing && !guess ? 0 : 1;
    }
    looked->content = data::ContentHash(record);
    looked->prompt = data::PromptHash(record);
  }
  void LookAsTraining(const data::Record& record, Looked* looked) const {
    const Result<std::vector<data::Example>> parts = encoder_->EncodeParts(record);
    if (!parts.ok()) return looked->findings.push_back({Kind::kLeftOut, parts.failure().message});
    looked->examples = std::ssize(parts.value());
    if (const std::string special = encoder_->SpecialText(record); !special.empty()) {
      looked->findings.push_back(
          {Kind::kSpecialText,
           fmt::format("\"{}\" is read as plain text: a template has rendered it before?", special)});
    }
    for (std::string& what : encoder_->Unwritten(record))
      looked->findings.push_back({Kind::kUnwritten, std::move(what)});
  }

  // In the order of the rows.
  void Take(data::FileCheck* check, int64_t row, Looked looked, bool test) {
    ++records_;
    std::vector<std::string> bad;
    const std::optional<data::Record> record = check->Take(std::move(*looked.record), row, &bad);
    if (!record) return AddUnreadable(bad.front());
    const std::string& file = files_.back();
    for (const Finding& found : looked.findings) findings_.Add(found, file, row);
    const bool held_out = data::IsHeldOut(looked.content, options_.valid_fraction);
    if (!held_out) examples_ += looked.examples;
    const Place here{static_cast<int32_t>(files_.size() - 1), held_out, row};
    const auto asked = prompts_.find(looked.prompt);
    const auto same = contents_.find(looked.content);
    if (test) {
      if (asked == prompts_.end()) return;
      return findings_.Add(
          {Kind::kInTraining,
           fmt::format("{} {}", same != contents_.end() ? "the same record as" : "the same prompt as",
                       Name(same != contents_.end() ? same->second : asked->second))},
          file, row);
    }
    if (same != contents_.end())
      return findings_.Add({Kind::kDuplicate, "of " + Name(same->second)}, file, row);
    if (asked != prompts_.end()) {
      const bool apart = asked->second.held_out != held_out;
      findings_.Add({Kind::kTwoAnswers, fmt::format("as in {}{}", Name(asked->second),
                                                    apart ? ": --valid-fraction holds out one of them" : "")},
                    file, row);
    }
    if (contents_.size() >= kRemembered) {
      full_ = true;
      return;
    }
    contents_.emplace(looked.content, here);
    prompts_.try_emplace(looked.prompt, here);
  }
  std::string Name(const Place& place) const {
    return fmt::format("{}:{}", files_[static_cast<size_t>(place.file)], place.row);
  }

  const CheckCommand& command_;
  const train::DataOptions options_;
  const int threads_ = command_.thread_count();
  Findings findings_;
  std::unique_ptr<LoadedModel> model_;
  std::optional<data::Encoder> encoder_;
  std::vector<std::string> files_;
  std::unordered_map<uint64_t, Place> contents_, prompts_;  // of the training files: where first
  bool full_ = false;                                       // there are more records than are remembered
  int64_t records_ = 0;
  int64_t examples_ = 0;  // of the last file, for training
};

void RunCheck(const CheckCommand& command) {
  Checker checker(command);
  checker.Training(data::FindDataFiles(command.data, data::Split::kTrain).OrThrow());
  for (const data::DataFile& file : data::FindDataFiles(command.test_data, data::Split::kTest).OrThrow()) {
    checker.File(file.path, true);
  }
  // A folder brings its own held-out records.
  for (const std::string& name : command.data) {
    const Path folder = data::FolderOf(name);
    if (!command.test_data.empty() || folder.empty()) continue;
    for (const data::Split split : {data::Split::kValid, data::Split::kTest}) {
      const Path path = data::FindInFolder(folder, split).OrThrow();
      if (!path.empty()) checker.File(path, true);
    }
  }
  if (!checker.Finish()) throw Error(ExitCode::kBadInput, "check: the data is not clean: see the list");
}

}  // namespace

Action AddDataCheck(CLI::App& app) {
  auto command = std::make_shared<CheckCommand>();
  AddDataFlags(app, command.get(), false);
  app.add_option("--test-data", command->test_data, "held-out records, none of which should stand in --data")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  return [command] { RunCheck(*command); };
}

}  // namespace rung::cli
