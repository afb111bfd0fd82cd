#include "cli/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>

#include "base/text.h"
#include "cli/say.h"
#include "cli/verb.h"
#include "io/json_file.h"

namespace rung::cli {
namespace {

using nlohmann::json;
using Settings = std::vector<std::pair<std::string, std::string>>;

constexpr uint64_t kRunJsonLimit = uint64_t{16} << 20;

std::string SettingText(const json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "";
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

void Flatten(const json& value, const std::string& name, Settings* settings) {
  if (value.is_object() && value.contains("value")) {
    settings->emplace_back(name, SettingText(value["value"]));  // an option: its origin is not what it says
  } else if (value.is_object()) {
    for (const auto& item : value.items()) {
      Flatten(item.value(), name.empty() ? item.key() : name + "." + item.key(), settings);
    }
  } else {
    settings->emplace_back(name, SettingText(value));
  }
}

// "a/run" and "b/run" as they are; names that differ in the last part by that.
void NameRuns(std::vector<ReportRun>* runs) {
  const auto last = [](const Path& folder) {
    const Path clean = folder.lexically_normal();
    return (clean.has_filename() ? clean.filename() : clean.parent_path().filename()).string();
  };
  for (ReportRun& run : *runs) {
    const auto same = std::count_if(runs->begin(), runs->end(), [&](const ReportRun& other) {
      return last(other.folder) == last(run.folder);
    });
    const std::string name = last(run.folder);
    run.name = same > 1 || name.empty() || name == "." ? run.folder.string() : name;
  }
}

struct ReportCommand {
  std::vector<std::string> folders;
  std::string out = "report.html";
};

// A page may be made anew; anything else is somebody's work.
void CheckReplaceable(const Path& out) {
  std::error_code error;
  if (!std::filesystem::exists(std::filesystem::symlink_status(out, error))) return;
  const Result<RandomAccessFile> file = RandomAccessFile::Open(out);
  std::string head(file.ok() ? static_cast<size_t>(std::min<uint64_t>(file.value().size(), 4096)) : 0, ' ');
  const bool read = file.ok() && file.value().Read(0, std::as_writable_bytes(std::span(head))).ok();
  if (read && head.starts_with("<!DOCTYPE html>") && head.find(kPageTitle) != head.npos) return;
  throw Error(ExitCode::kUsage,
              fmt::format("--out {}: is there and no report of rung: choose another name", out.string()));
}

// Everything in run.json, as one level of names. Not JSON, or deeper than 64 levels: a failure.
Result<Settings> ReadSettings(const Path& run_json) {
  Result<json> object = io::ReadJson(run_json, kRunJsonLimit);
  if (!object.ok()) return object.failure();
  Settings settings;
  Flatten(object.value(), "", &settings);
  return settings;
}

// Reads a run's folder. A failure when it holds no train_log.jsonl; what else is missing is left out.
Result<ReportRun> ReadRun(const Path& folder) {
  ReportRun run;
  run.folder = folder;
  std::error_code error;
  if (!std::filesystem::exists(folder / train::kTrainLog, error)) {
    return Failure{fmt::format("{}: no train_log.jsonl: give the --out folder of a run", folder.string())};
  }
  Result<train::RunHistory> history = train::ReadHistory(folder / train::kTrainLog);
  if (!history.ok()) return history.failure();
  run.history = std::move(history).value();
  if (const Path path = folder / "run.json"; std::filesystem::exists(path, error)) {
    Result<Settings> settings = ReadSettings(path);
    if (settings.ok()) {
      run.settings = std::move(settings).value();
    } else {
      run.damaged_settings = settings.failure().message;
    }
  }
  if (const Path path = folder / train::kSamplesFile; std::filesystem::exists(path, error)) {
    Result<std::vector<train::SampleLine>> samples = train::ReadSamples(path);
    if (!samples.ok()) return samples.failure();
    run.samples = std::move(samples).value();
  }
  return run;
}

void RunReport(const ReportCommand& command) {
  CheckReplaceable(command.out);
  std::vector<ReportRun> runs;
  for (const std::string& folder : command.folders) runs.push_back(ReadRun(folder).OrThrow());
  NameRuns(&runs);
  for (const ReportRun& run : runs) {
    if (!run.damaged_settings.empty()) Say("left out: {}\n", Printable(run.damaged_settings));
  }
  Status written = WriteTextFile(command.out, ReportPage(runs));
  if (!written.ok()) throw Error(written.failure().code, written.failure().message);
  for (const ReportRun& run : runs) {
    fmt::print("{}: {} steps, {} evaluations{}\n", Printable(run.name), run.history.steps.size(),
               run.history.evals.size(),
               run.history.damaged_lines > 0
                   ? fmt::format("; {} damaged lines are left out", run.history.damaged_lines)
                   : "");
  }
  fmt::print("{}\n", command.out);
}

}  // namespace

Action AddReport(CLI::App& app) {
  auto command = std::make_shared<ReportCommand>();
  app.add_option("folders", command->folders,
                 "the --out folders of one or more runs, which are laid over each other")
      ->required();
  app.add_option("--out", command->out, "the HTML file: one page that needs no network")
      ->capture_default_str();
  return [command] { RunReport(*command); };
}

}  // namespace rung::cli
