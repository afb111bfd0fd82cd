// The learning rate of a step.
#pragma once

#include <cstdint>

#include "base/names.h"

namespace rung::train {

enum class Schedule : uint8_t { kConstant, kLinear, kCosine };
inline constexpr Named<Schedule> kScheduleNames[] = {
    {"constant", Schedule::kConstant}, {"linear", Schedule::kLinear}, {"cosine", Schedule::kCosine}};
static_assert(NamesAll(kScheduleNames, Schedule::kCosine));
inline const char* NameOf(Schedule schedule) { return NameIn(kScheduleNames, schedule); }

// Factor of the base rate for step t of [0, total): rises linearly over `warmup` steps (the first step is
// 1/warmup, not 0), then stays, falls linearly or by half a cosine to 0 at `total`.
double ScheduleFactor(Schedule schedule, int64_t step, int64_t warmup, int64_t total);

}  // namespace rung::train
