#include "train/save_schedule.h"

#include <algorithm>

namespace rung::train {

SaveSchedule::SaveSchedule(int64_t steps, double minutes, Clock::time_point now)
    : steps_(steps), most_(60.0 * minutes), saved_(now) {}

bool SaveSchedule::Due(int64_t step, Clock::time_point now) const {
  if (pause_.count() > 0) return now >= retry_;
  return (steps_ > 0 && step % steps_ == 0) || (most_.count() > 0.0 && now - saved_ >= most_);
}

void SaveSchedule::Saved(Clock::time_point now) {
  saved_ = now;
  pause_ = std::chrono::seconds(0);
}

std::chrono::seconds SaveSchedule::Failed(Clock::time_point now) {
  pause_ = pause_.count() == 0 ? kFirstPause : std::min(2 * pause_, kLongestPause);
  retry_ = now + pause_;
  return pause_;
}

}  // namespace rung::train
