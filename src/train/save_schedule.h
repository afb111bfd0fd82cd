// When a run saves a checkpoint.
#pragma once

#include <chrono>
#include <cstdint>

namespace rung::train {

// Every so many steps, or after so many minutes without one, whichever comes first. After a save that failed:
// not before a pause of a minute, which doubles with each failure in a row, to ten.
class SaveSchedule {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::seconds kFirstPause{60}, kLongestPause{600};

  // steps 0, minutes 0: not by these.
  SaveSchedule(int64_t steps, double minutes, Clock::time_point now);

  bool Due(int64_t step, Clock::time_point now) const;  // after this step
  void Saved(Clock::time_point now);
  std::chrono::seconds Failed(Clock::time_point now);  // returns the pause

 private:
  int64_t steps_;
  std::chrono::duration<double> most_;
  Clock::time_point saved_, retry_;
  std::chrono::seconds pause_{0};  // 0: the last save did not fail
};

}  // namespace rung::train
