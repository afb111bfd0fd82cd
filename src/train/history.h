// What a run's record says: train_log.jsonl read back (docs/formats/train_log.md).
#pragma once

#include <string>
#include <vector>

#include "train/run.h"

namespace rung::train {

inline constexpr const char* kTrainLog = "train_log.jsonl";

// Something that happened: "begin", "resumed", "plan", "note", "saved", "interrupted", "stopped", "finished".
struct RunEvent {
  std::string kind, text, time;  // time: UTC, as "2026-01-31T23:59:59Z"
  int64_t step = 0;              // optimizer steps done by then
  double seconds = 0.0;          // as StepReport::seconds
};

// Every step once and in order: what a resumed run did again replaces what was there, and a run that began
// anew in the same folder replaces everything.
struct RunHistory {
  std::vector<StepReport> steps;
  std::vector<EvalReport> evals;
  std::vector<RunEvent> events;                   // all, also of what was replaced
  std::vector<PlanItem> plan;                     // the last one's
  uint64_t planned_bytes = 0, resident_peak = 0;  // 0: not known
  int64_t damaged_lines = 0;                      // that are no JSON, as a power cut leaves: passed over
};

// A failure when the file cannot be read; never because of its contents.
Result<RunHistory> ReadHistory(const Path& log);

// Adds a line of the log. False: it is damaged.
bool AddLine(std::string_view line, RunHistory* history);

}  // namespace rung::train
