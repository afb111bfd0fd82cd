#include "train/out_folder.h"

#include <fmt/format.h>

#include <algorithm>
#include <system_error>

#include "model/adapter_file.h"
#include "train/checkpoint.h"
#include "train/evaluation.h"
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

void RefuseAnotherBest(const Path& out) {
  const Path best = out / kBestFolder;
  std::error_code error;
  if (!std::filesystem::exists(std::filesystem::symlink_status(best, error))) return;
  if (std::filesystem::exists(best / kEvaluation, error)) return;
  throw Error(ExitCode::kUsage,
              fmt::format("{} is not of a run: it has no {}; a run keeps its best adapter there: move it, or "
                          "choose another --out",
                          best.string(), kEvaluation));
}

uint64_t BytesToWrite(const TrainOptions& options, int64_t steps, uint64_t adapter, uint64_t checkpoint) {
  // Each checkpoint is written before the oldest of too many goes.
  const int64_t by_steps = options.save_steps > 0 ? steps / options.save_steps : 0;
  // One more when the run is interrupted, or before its last evaluation.
  const int64_t made = options.save_minutes > 0.0 ? steps : std::min(steps, by_steps + 1);
  const int64_t room = options.save_limit - static_cast<int64_t>(CheckpointSteps(options.out).size());
  const int64_t more = made > room ? std::max<int64_t>(1, room + 1) : made;
  // The best one and its successor.
  const bool evaluates = !options.eval_data.empty() || options.data_options.valid_fraction > 0.0;
  std::error_code error;
  const bool kept = std::filesystem::exists(options.out / kBestFolder, error);
  const uint64_t best = options.eval_steps > 0 && evaluates ? (kept ? 1 : 2) : 0;
  return static_cast<uint64_t>(more) * checkpoint + (1 + best) * adapter;
}

void RefuseAnEarlierRun(const Path& out) {
  const bool finished = HasResult(out);
  if (!finished && !HasCheckpoint(out)) return RefuseAnotherBest(out);
  throw Error(ExitCode::kUsage, fmt::format("{} holds an earlier run: {}choose another --out", out.string(),
                                            finished ? "" : "go on with --resume, or "));
}

}  // namespace rung::train
