#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <unordered_map>

#include "base/text.h"
#include "cli/data.h"
#include "data/data_files.h"
#include "data/encode.h"

namespace rung::cli {
namespace {

// Findings of one kind that are listed; all are counted.
constexpr int64_t kListed = 1000;

struct CheckCommand : DataCommand {
  std::vector<std::string> test_data;
};

enum class Kind : uint8_t { kBad, kEmptyAnswer, kLeftOut, kDuplicate, kTwoAnswers, kInTraining };
constexpr const char* kKinds[] = {"bad record",
                                  "empty answer",
                                  "left out in training",
                                  "duplicate",
                                  "another answer to the same prompt",
                                  "stands in the training data"};

struct Place {
  int32_t file = 0;
  int64_t row = 0;
};

class Findings {
 public:
  explicit Findings(bool json) : json_(json) {}

  void Add(Kind kind, const std::string& file, int64_t row, const std::string& what) {
    if (++counts_[kind] > kListed) return;
    if (json_) {
      list_.push_back(
          {{"kind", kKinds[static_cast<size_t>(kind)]}, {"file", file}, {"row", row}, {"what", what}});
    } else {
      fmt::print("{}:{}: {}: {}\n", file, row, kKinds[static_cast<size_t>(kind)],
                 Printable(what, Newlines::kKeep));
    }
  }
  bool empty() const { return counts_.empty(); }
  void Print(int64_t records) const {
    nlohmann::ordered_json counts = nlohmann::ordered_json::object();
    for (const auto& [kind, count] : counts_) counts[kKinds[static_cast<size_t>(kind)]] = count;
    if (json_) {
      const nlohmann::ordered_json all = {{"records", records}, {"counts", counts}, {"findings", list_}};
      fmt::print("{}\n", all.dump(2));
      return;
    }
    fmt::print("{} records", records);
    for (const auto& [kind, count] : counts_) {
      fmt::print(", {}: {}{}", kKinds[static_cast<size_t>(kind)], count,
                 count > kListed ? fmt::format(" ({} listed)", kListed) : "");
    }
    fmt::print("{}\n", counts_.empty() ? ", nothing wrong" : "");
  }

 private:
  bool json_;
  std::map<Kind, int64_t> counts_;
  nlohmann::ordered_json list_ = nlohmann::ordered_json::array();
};

bool HasEmptyAnswer(const data::Record& record) {
  const auto blank = [](const std::string& text) { return text.find_first_not_of(" \t\r\n") == text.npos; };
  switch (record.shape) {
    case data::Shape::kCompletion:
      return blank(record.completion);
    case data::Shape::kText:
      return blank(record.text);
    case data::Shape::kSegments:
      return std::all_of(record.segments.begin(), record.segments.end(),
                         [&](const data::Segment& s) { return !s.learned || blank(s.text); });
    case data::Shape::kMessages:
      return std::any_of(record.messages.begin(), record.messages.end(), [&](const text::Message& m) {
        return m.role == "assistant" && m.extra.empty() && blank(m.content);
      });
  }
  return false;
}

class Checker {
 public:
  explicit Checker(const CheckCommand& command)
      : options_(ResolveReading(command.flags)), findings_(command.json) {
    if (command.model.empty()) return;
    text_ = std::make_unique<model::ModelText>(LoadTextOf(command));
    encoder_.emplace(EncoderOf(command, *text_));
  }

  void File(const Path& path, bool test) {
    Result<std::unique_ptr<data::RowReader>> opened = data::RowReader::Open(path, options_.sample_by);
    if (!opened.ok()) throw Error(opened.failure().code, opened.failure().message);
    data::RowReader& reader = *opened.value();
    files_.push_back(reader.name());
    data::FileCheck check(reader.name(), INT64_MAX);
    for (data::RawRow row;;) {
      Result<bool> more = reader.Next(&row);
      if (!more.ok()) {
        findings_.Add(Kind::kBad, reader.name(), row.row, more.failure().message);
        break;
      }
      if (!more.value()) break;
      ++records_;
      std::vector<std::string> bad;
      const std::optional<data::Record> record =
          check.Take(data::RecordOfRow(row, reader, options_), row.row, &bad);
      if (record) {
        Look(*record, test);
      } else {
        const std::string place = fmt::format("{}:{}: ", reader.name(), row.row);
        findings_.Add(Kind::kBad, reader.name(), row.row, bad.front().substr(place.size()));
      }
    }
  }
  bool Finish() {
    findings_.Print(records_);
    return findings_.empty();
  }

 private:
  void Look(const data::Record& record, bool test) {
    const std::string& file = files_.back();
    if (HasEmptyAnswer(record)) {
      findings_.Add(Kind::kEmptyAnswer, file, record.row, "there is nothing to learn");
    } else if (encoder_) {
      const Result<std::vector<data::Example>> parts = encoder_->EncodeParts(record);
      if (!parts.ok()) findings_.Add(Kind::kLeftOut, file, record.row, parts.failure().message);
    }
    const Place here{static_cast<int32_t>(files_.size() - 1), record.row};
    const uint64_t content = data::ContentHash(record), prompt = data::PromptHash(record);
    if (test) {
      const auto found = prompts_.find(prompt);
      if (found != prompts_.end()) {
        findings_.Add(
            Kind::kInTraining, file, record.row,
            fmt::format("{} {}", contents_.contains(content) ? "the same record as" : "the same prompt as",
                        Name(found->second)));
      }
      return;
    }
    const auto [same, fresh] = contents_.try_emplace(content, here);
    if (!fresh) findings_.Add(Kind::kDuplicate, file, record.row, "of " + Name(same->second));
    const auto [asked, first] = prompts_.try_emplace(prompt, here);
    if (!first && fresh) findings_.Add(Kind::kTwoAnswers, file, record.row, "as in " + Name(asked->second));
  }
  std::string Name(const Place& place) const {
    return fmt::format("{}:{}", files_[static_cast<size_t>(place.file)], place.row);
  }

  data::ReadOptions options_;
  Findings findings_;
  std::unique_ptr<model::ModelText> text_;
  std::optional<data::Encoder> encoder_;
  std::vector<std::string> files_;
  std::unordered_map<uint64_t, Place> contents_, prompts_;  // of the training files: where first
  int64_t records_ = 0;
};

void RunCheck(const CheckCommand& command) {
  Checker checker(command);
  for (const data::DataFile& file : data::FindDataFiles(command.data, data::Split::kTrain).OrThrow()) {
    checker.File(file.path, false);
  }
  for (const data::DataFile& file : data::FindDataFiles(command.test_data, data::Split::kTest).OrThrow()) {
    checker.File(file.path, true);
  }
  // A folder brings its own held-out records.
  std::error_code error;
  for (const std::string& name : command.data) {
    if (!command.test_data.empty() || !std::filesystem::is_directory(name, error)) continue;
    for (const data::Split split : {data::Split::kValid, data::Split::kTest}) {
      const Path path = data::FindInFolder(name, split).OrThrow();
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
