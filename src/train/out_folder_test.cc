#include "train/out_folder.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/test_support.h"

namespace rung::train {
namespace {

class OutFolderTest : public FolderTest {
 protected:
  // Of a run with checkpoints of 100 bytes and an adapter of 10.
  uint64_t Need(int64_t steps) const { return BytesToWrite(options_, steps, 10, 100); }
  void MakeCheckpoints(int count) const {
    for (int step = 1; step <= count; ++step) {
      std::filesystem::create_directories(folder_ / ("checkpoint-" + std::to_string(step)));
    }
  }
  void SetUp() override {
    FolderTest::SetUp();
    options_.out = folder_;
    options_.save_limit = 2;
  }
  TrainOptions options_;
};

TEST_F(OutFolderTest, ARunNeedsRoomForWhatIsKeptAndOneMore) {
  EXPECT_EQ(Need(1000), 300u + 10u);
  options_.eval_steps = 5;
  EXPECT_EQ(Need(1000), 300u + 10u);
  options_.eval_data = {{"valid.jsonl"}};
  EXPECT_EQ(Need(1000), 300u + 30u);
}

TEST_F(OutFolderTest, AResumedRunNeedsRoomForOneMore) {
  MakeCheckpoints(1);
  EXPECT_EQ(Need(1000), 200u + 10u);
  MakeCheckpoints(2);
  EXPECT_EQ(Need(1000), 100u + 10u);
  // More than are kept: the next one is still written before others go.
  MakeCheckpoints(5);
  EXPECT_EQ(Need(1000), 100u + 10u);
  options_.eval_data = {{"valid.jsonl"}};
  options_.eval_steps = 5;
  std::filesystem::create_directories(folder_ / "best");
  EXPECT_EQ(Need(1000), 100u + 20u);
}

TEST_F(OutFolderTest, AShortRunMakesFewCheckpoints) {
  options_.save_limit = 1000;
  EXPECT_EQ(Need(3), 300u + 10u);
  options_.save_minutes = 0.0;
  options_.save_steps = 100;
  EXPECT_EQ(Need(250), 300u + 10u);
  EXPECT_EQ(Need(1), 100u + 10u);
  options_.save_limit = std::numeric_limits<int64_t>::max();
  options_.save_steps = 0;
  EXPECT_EQ(Need(250), 100u + 10u);
}

TEST_F(OutFolderTest, ABestFolderThatNoRunMadeIsNotTakenAway) {
  RefuseAnEarlierRun(folder_);
  std::filesystem::create_directories(folder_ / "best");
  EXPECT_THROW(RefuseAnEarlierRun(folder_), Error);
  Write("best/weights.bin", "mine");
  EXPECT_THROW(RefuseAnEarlierRun(folder_), Error);
  Write("best/evaluation.json", "{}");
  RefuseAnEarlierRun(folder_);
}

}  // namespace
}  // namespace rung::train
