#include "train/tensorboard.h"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "base/test_support.h"

namespace rung::train {
namespace {

constexpr uint64_t kLimit = 1 << 20;

using TensorboardTest = FolderTest;

// RFC 3720, B.4.
TEST(Crc32c, OfTheStandardsExamples) {
  EXPECT_EQ(Crc32c(std::string(32, '\0')), 0x8a9136aau);
  EXPECT_EQ(Crc32c(std::string(32, '\xff')), 0x62a8ab43u);
  std::string rising;
  for (char c = 0; c < 32; ++c) rising.push_back(c);
  EXPECT_EQ(Crc32c(rising), 0x46dd794eu);
  EXPECT_EQ(Crc32c(""), 0u);
}

// tools/make_tensorboard_golden.py: the bytes of the tensorboard package.
TEST(Tensorboard, SameBytesAsTheirWriter) {
  const std::vector<Scalar> train = {{"train/loss", 2.5}, {"train/learning_rate", 1e-3}};
  std::string name = "eval/";
  for (int i = 0; i < 50; ++i) name += "long";
  const std::vector<Scalar> eval = {{"eval/loss", std::numeric_limits<double>::quiet_NaN()}, {name, -1.0}};
  const std::string ours = TfRecord(VersionEvent(1700000000.25)) +
                           TfRecord(SessionStartEvent(1700000000.5, 301)) +
                           TfRecord(ScalarEvent(1700000001.0, 301, train)) +
                           TfRecord(ScalarEvent(1700000002.0, int64_t{1} << 40, eval));
  EXPECT_EQ(ours, ReadTextFile("tests/data/record/tensorboard.tfevents", kLimit).OrThrow());
}

TEST_F(TensorboardTest, LaterFilesSortLaterAndVoidWhatIsDoneAgain) {
  const EventFile first = EventFile::Create(folder_, 1).OrThrow();
  const EventFile second = EventFile::Create(folder_, 6).OrThrow();  // within the same second
  EXPECT_LT(first.path().string(), second.path().string());
  const std::string before = ReadTextFile(first.path(), kLimit).OrThrow();
  const std::string after = ReadTextFile(second.path(), kLimit).OrThrow();
  // Of the start of a session: field 7 of two bytes, status START; the step before it is field 2.
  const std::string start = std::string("\x10\x06\x3a\x02\x08\x01", 6);
  EXPECT_EQ(before.find("\x3a\x02\x08\x01"), std::string::npos);
  EXPECT_NE(after.find(start), std::string::npos);
}

TEST_F(TensorboardTest, AFolderThatIsNotThereIsAFailure) {
  const Result<EventFile> file = EventFile::Create(folder_ / "missing", 1);
  ASSERT_FALSE(file.ok());
  EXPECT_NE(file.failure().message.find("missing"), std::string::npos) << file.failure().message;
}

}  // namespace
}  // namespace rung::train
