#include "train/schedule.h"

#include <fmt/format.h>

#include <cmath>
#include <numbers>

namespace rung::train {

Result<Schedule> ParseSchedule(const std::string& name) {
  if (name == "constant") return Schedule::kConstant;
  if (name == "linear") return Schedule::kLinear;
  if (name == "cosine") return Schedule::kCosine;
  return Failure{fmt::format("--lr-scheduler {}: known are constant, linear, cosine", name),
                 ExitCode::kUsage};
}

const char* NameOf(Schedule schedule) {
  return schedule == Schedule::kConstant ? "constant" : schedule == Schedule::kLinear ? "linear" : "cosine";
}

double ScheduleFactor(Schedule schedule, int64_t step, int64_t warmup, int64_t total) {
  if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (schedule == Schedule::kConstant || total <= warmup) return 1.0;
  const double progress = static_cast<double>(step - warmup) / static_cast<double>(total - warmup);
  if (schedule == Schedule::kLinear) return 1.0 - progress;
  return 0.5 * (1.0 + std::cos(std::numbers::pi * progress));
}

}  // namespace rung::train
