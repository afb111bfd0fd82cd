#include "cli/bench.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

namespace rung::cli {
namespace {

TEST(BenchTest, RandomBytesAreNormalNumbersInEveryFormat) {
  constexpr int64_t kRows = 3, kCols = 256;
  for (int f = 0; f < format::kFormatCount; ++f) {
    const RandomMatrix random(static_cast<format::Format>(f), kRows, kCols);
    const format::Info& info = format::Of(random.matrix().format);
    std::vector<float> row(kCols);
    int different = 0;
    for (int64_t r = 0; r < kRows; ++r) {
      format::DecodeRow(random.matrix(), r, row.data());
      for (const float w : row) {
        EXPECT_TRUE(w == 0.0f || std::isnormal(w)) << info.name << " " << w;
        different += w != row[0];
      }
    }
    EXPECT_GT(different, kCols / 4) << info.name;
  }
}

TEST(BenchTest, MedianIsTheMiddle) {
  EXPECT_EQ(Median({5.0, 1.0, 3.0}), 3.0);
  EXPECT_EQ(Median({4.0, 1.0, 3.0, 2.0}), 2.5);
}

TEST(BenchTest, TimeCallsLeavesTheFirstCallOut) {
  int calls = 0;
  const std::vector<double> seconds = TimeCalls(0.0, [&] {
    // The first call is slow, as code that is not there yet is.
    if (++calls == 1) std::this_thread::sleep_for(std::chrono::milliseconds(300));
  });
  EXPECT_EQ(static_cast<int>(seconds.size()), calls - 1);
  EXPECT_GE(seconds.size(), 2u);
  EXPECT_LT(seconds[0], 0.3);
}

TEST(BenchTest, TheTrainedSideIsMeasuredAgainstF32) {
  const PeakRates peaks{100e9, 200e9};
  EXPECT_EQ(peaks.OfOp("project", DType::kBf16), 100e9);
  EXPECT_EQ(peaks.OfOp("project_grad_weight", DType::kBf16), 100e9);
  EXPECT_EQ(peaks.OfOp("project_frozen", DType::kBf16), 200e9);
  EXPECT_EQ(peaks.OfOp("project_frozen", DType::kF32), 100e9);
}

TEST(BenchTest, TraceSharesAddUp) {
  const PeakRates peaks{100e9, 200e9};
  const Trace trace = {{"head_loss", {2, 0.5, 50e9, 0}}, {"rms_norm", {4, 0.25, 0, 0}}};
  const nlohmann::ordered_json rows = TraceJson(trace, 1.0, peaks, DType::kBf16);
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["op"], "head_loss");  // the slowest first
  EXPECT_EQ(rows[0]["time_share"], 0.5);
  EXPECT_EQ(rows[0]["gflops"], 100.0);
  EXPECT_EQ(rows[0]["peak_share"], 0.5);
  EXPECT_NE(TraceTable(trace, 1.0, peaks, DType::kBf16).find("25.0%"),
            std::string::npos);  // between ops: the rest
}

TEST(BenchTest, IdsAreOfTheVocabulary) {
  const std::vector<int32_t> ids = RandomIds(1000, 7, 1);
  for (const int32_t id : ids) EXPECT_TRUE(id >= 0 && id < 7);
  EXPECT_EQ(ids, RandomIds(1000, 7, 1));
  EXPECT_NE(ids, RandomIds(1000, 7, 2));
}

}  // namespace
}  // namespace rung::cli
