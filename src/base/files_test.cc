#include "base/files.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "base/file_faults.h"

namespace rung {
namespace {

class FilesTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ =
        Path(testing::TempDir()) /
        fmt::format("rung-{}-{}", testing::UnitTest::GetInstance()->current_test_info()->name(), ::getpid());
    std::filesystem::create_directories(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  Path Make(const char* name, std::string_view text) {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  // By the standard library, so that our reader is not its own judge.
  static std::string Slurp(const Path& path) {
    std::ostringstream text;
    text << std::ifstream(path, std::ios::binary).rdbuf();
    return text.str();
  }
  size_t FileCount() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder_), {}));
  }

  Path folder_;
};

std::string_view TextOf(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST_F(FilesTest, MapsAWholeFile) {
  MappedFile file = MappedFile::Open(Make("x", std::string_view("a\0b", 3))).OrThrow();
  EXPECT_EQ(TextOf(file.bytes()), std::string_view("a\0b", 3));
  const std::byte* data = file.bytes().data();
  MappedFile other = std::move(file);
  EXPECT_EQ(other.bytes().data(), data);
  EXPECT_TRUE(file.bytes().empty());
  file = MappedFile::Open(Make("y", "second")).OrThrow();
  EXPECT_EQ(TextOf(file.bytes()), "second");
  EXPECT_EQ(MappedFile::Open(Make("empty", "")).OrThrow().bytes().size(), 0u);
}

TEST_F(FilesTest, OpeningWhatIsNoFileFails) {
  for (const Path& path : {folder_ / "none", folder_, Path("/dev/null")}) {
    Result<MappedFile> mapped = MappedFile::Open(path);
    ASSERT_FALSE(mapped.ok()) << path;
    EXPECT_NE(mapped.failure().message.find(path.string()), std::string::npos);
    EXPECT_EQ(mapped.failure().code, ExitCode::kBadInput);
    EXPECT_FALSE(RandomAccessFile::Open(path).ok());
    EXPECT_FALSE(ReadTextFile(path, 100).ok());
  }
}

TEST_F(FilesTest, ReadsAtOffsets) {
  RandomAccessFile file = RandomAccessFile::Open(Make("x", "0123456789")).OrThrow();
  EXPECT_EQ(file.size(), 10u);
  std::string text(4, ' ');
  const auto into = std::as_writable_bytes(std::span(text));
  ASSERT_TRUE(file.Read(6, into).ok());
  EXPECT_EQ(text, "6789");
  RandomAccessFile moved = std::move(file);
  ASSERT_TRUE(moved.Read(0, into).ok());
  EXPECT_EQ(text, "0123");
  EXPECT_TRUE(moved.Read(10, {}).ok());
  Status beyond = moved.Read(7, into);
  ASSERT_FALSE(beyond.ok());
  EXPECT_NE(beyond.failure().message.find("file ends at byte 10, 1 more were expected"), std::string::npos)
      << beyond.failure().message;
  EXPECT_FALSE(moved.Read(~uint64_t{0}, into).ok());
}

TEST_F(FilesTest, ReadsTextUpToALimit) {
  const Path path = Make("x", "12345");
  EXPECT_EQ(ReadTextFile(path, 5).OrThrow(), "12345");
  Result<std::string> text = ReadTextFile(path, 4);
  ASSERT_FALSE(text.ok());
  EXPECT_NE(text.failure().message.find("5 bytes, the limit for this kind of file is 4"), std::string::npos);
}

TEST_F(FilesTest, AtomicFileReplacesAtCommit) {
  const Path path = Make("x", "old");
  {
    AtomicFile file = AtomicFile::Create(path).OrThrow();
    ASSERT_TRUE(file.Append("0123").ok());
    ASSERT_TRUE(file.Append("45").ok());
    ASSERT_TRUE(file.WriteAt(1, std::as_bytes(std::span("ab", 2))).ok());
    ASSERT_TRUE(file.Append("6").ok());
    EXPECT_EQ(Slurp(path), "old");
    ASSERT_TRUE(file.Commit().ok());
  }
  EXPECT_EQ(Slurp(path), "0ab3456");
  EXPECT_EQ(FileCount(), 1u);
}

TEST_F(FilesTest, AtomicFileWithoutCommitLeavesTheOldOne) {
  const Path path = Make("x", "old");
  {
    AtomicFile file = AtomicFile::Create(path).OrThrow();
    ASSERT_TRUE(file.Append("new").ok());
    AtomicFile moved = std::move(file);
    ASSERT_TRUE(moved.Append("er").ok());
    EXPECT_EQ(FileCount(), 2u);
  }
  EXPECT_EQ(Slurp(path), "old");
  EXPECT_EQ(FileCount(), 1u) << "the temporary file must be gone";
}

TEST_F(FilesTest, AtomicFileFailsWhereItCannotWrite) {
  Result<AtomicFile> file = AtomicFile::Create(folder_ / "none" / "x");
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.failure().code, ExitCode::kFailed);
  EXPECT_FALSE(WriteTextFile(folder_, "x").ok()) << "a folder must not be replaced";
  EXPECT_FALSE(std::filesystem::exists(folder_.string() + ".tmp"));
}

TEST_F(FilesTest, TwoDoNotWriteOneFile) {
  const Path path = Make("x", "old");
  {
    AtomicFile first = AtomicFile::Create(path).OrThrow();
    ASSERT_TRUE(first.Append("first").ok());
    const Result<AtomicFile> second = AtomicFile::Create(path);
    ASSERT_FALSE(second.ok());
    EXPECT_NE(second.failure().message.find("another process is writing it"), std::string::npos);
    ASSERT_TRUE(first.Commit().ok());
  }
  EXPECT_EQ(Slurp(path), "first");
  ASSERT_TRUE(WriteTextFile(path, "second").ok());
  EXPECT_EQ(Slurp(path), "second");
}

TEST_F(FilesTest, WhatADeadProcessLeftIsUsedAgain) {
  Make("x.tmp", "a longer text that a killed process left");
  ASSERT_TRUE(WriteTextFile(folder_ / "x", "new").ok());
  EXPECT_EQ(Slurp(folder_ / "x"), "new");
  EXPECT_EQ(FileCount(), 1u);
}

// Every call in turn fails once, with each error.
TEST_F(FilesTest, AFailingDiskLeavesTheOldFileOrTheNew) {
  for (const int error : {ENOSPC, EIO}) {
    bool failed = true;
    for (int64_t n = 0; failed; ++n) {
      const Path path = Make("x", "old");
      const FileFaults faults({.fault = Fault::kFail, .first = n, .error = error});
      const Status written = WriteTextFile(path, "new");
      failed = FileFaults::calls() > n;
      EXPECT_EQ(written.ok(), !failed);
      if (!written.ok()) {
        EXPECT_NE(written.failure().message.find(std::strerror(error)), std::string::npos);
        EXPECT_EQ(written.failure().code, ExitCode::kFailed);
      }
      const std::string text = Slurp(path);
      EXPECT_TRUE(text == "new" || (text == "old" && failed)) << n << ": " << text;
      EXPECT_EQ(FileCount(), 1u) << n;
    }
  }
}

TEST_F(FilesTest, ShortWritesAreContinued) {
  const FileFaults faults({.fault = Fault::kShortWrite, .count = 1000});
  ASSERT_TRUE(WriteTextFile(folder_ / "x", "a text that takes several writes").ok());
  EXPECT_GT(FileFaults::calls(), 6);
  EXPECT_EQ(Slurp(folder_ / "x"), "a text that takes several writes");
}

TEST_F(FilesTest, WritesText) {
  ASSERT_TRUE(WriteTextFile(folder_ / "x", "hello").ok());
  EXPECT_EQ(Slurp(folder_ / "x"), "hello");
  EXPECT_EQ(FileCount(), 1u);
}

}  // namespace
}  // namespace rung
