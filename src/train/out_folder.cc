#include "train/out_folder.h"

#include <fmt/format.h>

#include <system_error>

#include "train/checkpoint.h"
#include "train/trainer_state.h"

namespace rung::train {
namespace {

// Written last.
bool HasResult(const Path& out) {
  std::error_code error;
  return std::filesystem::exists(out / "adapter_config.json", error);
}

}  // namespace

std::optional<FinishedRun> FindFinishedRun(const Path& out) {
  if (!HasResult(out)) return std::nullopt;
  const Result<std::optional<FinishedRun>> record = ReadFinished(out);
  if (record.ok() && record.value()) return record.value();
  // One that goes on after its end has a checkpoint, and its record says that it is not finished.
  if (record.ok() && HasCheckpoint(out)) return std::nullopt;
  return FinishedRun{};
}

void RefuseAnEarlierRun(const Path& out) {
  const bool finished = HasResult(out);
  if (!finished && !HasCheckpoint(out)) return;
  throw Error(ExitCode::kUsage, fmt::format("{} holds an earlier run: {}choose another --out", out.string(),
                                            finished ? "" : "go on with --resume, or "));
}

}  // namespace rung::train
