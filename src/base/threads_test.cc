#include "base/threads.h"

#include <gtest/gtest.h>

#include <vector>

namespace rung {
namespace {

TEST(ShareOf, SharesCoverTheRangeInWholeGrains) {
  for (int64_t count : {0, 1, 7, 64, 1000}) {
    for (int threads : {1, 2, 3, 16}) {
      for (int64_t grain : {1, 4, 64}) {
        int64_t next = 0;
        for (int thread = 0; thread < threads; ++thread) {
          const Share share = ShareOf(count, thread, threads, grain);
          ASSERT_EQ(share.begin, next);
          ASSERT_GE(share.end, share.begin);
          ASSERT_TRUE(share.end == count || share.end % grain == 0);
          next = share.end;
        }
        ASSERT_EQ(next, count) << threads << " threads, grain " << grain;
      }
    }
  }
}

TEST(OnEachThread, RunsOncePerThreadAndBarrierWaits) {
  for (int threads : {1, 2, 3}) {
    std::vector<int> calls(static_cast<size_t>(threads)), sums(calls);
    OnEachThread(threads, [&](int thread) {
      ++calls[static_cast<size_t>(thread)];
      Barrier(threads);
      for (int call : calls) sums[static_cast<size_t>(thread)] += call;
    });
    for (int sum : sums) EXPECT_EQ(sum, threads);
  }
}

}  // namespace
}  // namespace rung
