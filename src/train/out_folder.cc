#include "train/out_folder.h"

#include <fmt/format.h>

#include <system_error>

#include "model/adapter_file.h"
#include "train/checkpoint.h"
#include "train/history.h"
#include "train/trainer_state.h"

namespace rung::train {
namespace {

// Written last.
bool HasResult(const Path& out) {
  std::error_code error;
  return std::filesystem::exists(out / model::kAdapterConfig, error);
}

bool IsOfRung(const Path& out) {
  std::error_code error;
  if (std::filesystem::exists(out / kTrainLog, error)) return true;
  const Result<model::AdapterInfo> info = model::ReadAdapterInfo(out);
  return info.ok() && !info.value().family.empty();  // an adapter of another program does not say
}

// What the log says last is that the run was begun or resumed, not that it is finished.
bool GoesOnByItsLog(const Path& out) {
  const Result<RunHistory> history = ReadHistory(out / kTrainLog);
  if (!history.ok()) return false;
  bool goes_on = false;
  for (const RunEvent& event : history.value().events) {
    if (event.kind == "begin" || event.kind == "resumed") goes_on = true;
    if (event.kind == "finished") goes_on = false;
  }
  return goes_on;
}

}  // namespace

std::optional<FinishedRun> FindFinishedRun(const Path& out) {
  if (!HasResult(out)) return std::nullopt;
  if (!IsOfRung(out)) {
    throw Error(ExitCode::kUsage,
                fmt::format("--resume: {} holds an adapter of another program, and no run to "
                            "go on with: choose another --out",
                            out.string()));
  }
  const Result<std::optional<FinishedRun>> record = ReadFinished(out);
  if (record.ok() && record.value()) return record.value();
  // One that goes on after its end has a checkpoint, and its record says that it is not finished.
  if ((record.ok() || GoesOnByItsLog(out)) && HasCheckpoint(out)) return std::nullopt;
  return FinishedRun{};
}

void RefuseAnEarlierRun(const Path& out) {
  const bool finished = HasResult(out);
  if (!finished && !HasCheckpoint(out)) return;
  throw Error(ExitCode::kUsage, fmt::format("{} holds an earlier run: {}choose another --out", out.string(),
                                            finished ? "" : "go on with --resume, or "));
}

}  // namespace rung::train
