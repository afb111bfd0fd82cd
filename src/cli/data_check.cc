#include <fmt/format.h>

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/text.h"
#include "cli/data.h"
#include "cli/print.h"
#include "data/checker.h"

namespace rung::cli {
namespace {

// Findings of one kind that are listed; all are counted.
constexpr int64_t kListed = 1000;

struct CheckCommand : DataCommand {
  std::vector<std::string> test_data;
};

// Printed as they come, or one JSON object at the end.
class FindingList {
 public:
  explicit FindingList(bool json) : json_(json) {}

  void Add(const data::Finding& found) {
    if (++counts_[found.defect] > kListed) return;
    if (json_) {
      list_.push_back({{"kind", data::NameOf(found.defect)},
                       {"file", found.file},
                       {"row", found.row},
                       {"what", found.what}});
    } else {
      fmt::print("{}:{} {}: {}\n", found.file, found.row > 0 ? fmt::format("{}:", found.row) : "",
                 data::NameOf(found.defect), Printable(found.what, Newlines::kKeep));
    }
  }
  void Print(const data::Checker& checker) const {
    nlohmann::ordered_json counts = nlohmann::ordered_json::object();
    for (const auto& [defect, count] : counts_) counts[data::NameOf(defect)] = count;
    if (json_) {
      return PrintJson(nlohmann::ordered_json{{"records", checker.records()},
                                              {"compared", checker.compared()},
                                              {"counts", counts},
                                              {"findings", list_}});
    }
    fmt::print("{} records", checker.records());
    for (const auto& [defect, count] : counts_) {
      fmt::print(", {}: {}{}", data::NameOf(defect), count,
                 count > kListed ? fmt::format(" ({} listed)", kListed) : "");
    }
    fmt::print("{}\n", counts_.empty() ? ", nothing wrong" : "");
    if (!checker.compared_all()) {
      fmt::print("duplicates were looked for among the first {} training records\n", checker.compared());
    }
  }

 private:
  bool json_;
  std::map<data::Defect, int64_t> counts_;
  nlohmann::ordered_json list_ = nlohmann::ordered_json::array();
};

data::CheckOptions CheckOptionsOf(const CheckCommand& command) {
  const train::DataOptions options = Resolve(command.flags);
  return {options.read, options.truncation, options.valid_fraction, command.train_on_prompt,
          command.thread_count()};
}

void RunCheck(const CheckCommand& command) {
  const data::CheckOptions options = CheckOptionsOf(command);
  std::optional<LoadedModel> model;
  std::optional<data::Encoder> encoder;
  if (!command.model.empty()) {
    model.emplace(LoadTextOf(command));
    encoder.emplace(EncoderOf(command, *model));
  }
  FindingList findings(command.json);
  data::Checker checker(options, encoder ? &*encoder : nullptr,
                        [&](const data::Finding& found) { findings.Add(found); });
  checker.Training(data::FindDataFiles(command.data, data::Split::kTrain).OrThrow());
  for (const data::DataFile& file : data::FindDataFiles(command.test_data, data::Split::kTest).OrThrow()) {
    checker.HeldOut(file.path);
  }
  // A folder brings its own held-out records.
  for (const std::string& name : command.data) {
    const Path folder = data::FolderOf(name);
    if (!command.test_data.empty() || folder.empty()) continue;
    for (const data::Split split : {data::Split::kValid, data::Split::kTest}) {
      const Path path = data::FindInFolder(folder, split).OrThrow();
      if (!path.empty()) checker.HeldOut(path);
    }
  }
  findings.Print(checker);
  if (!checker.clean()) throw Error(ExitCode::kBadInput, "check: the data is not clean: see the list");
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
