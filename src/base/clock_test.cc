#include "base/clock.h"

#include <gtest/gtest.h>

#include <regex>
#include <thread>

namespace rung {
namespace {

TEST(Clock, TheProcessStartedBeforeTheTest) {
  const double before = SecondsSinceProcessStart();
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const double after = SecondsSinceProcessStart();
  EXPECT_GE(after - before, 0.049);
  EXPECT_LT(after, 3600.0);
}

TEST(Clock, TheTimeOfDayIsIso8601InUtc) {
  EXPECT_TRUE(std::regex_match(UtcNow(), std::regex(R"(2\d{3}-[01]\d-[0-3]\dT[0-2]\d:[0-5]\d:[0-6]\dZ)")))
      << UtcNow();
}

}  // namespace
}  // namespace rung
