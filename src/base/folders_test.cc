#include "base/folders.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <set>

#include "base/file_faults.h"

namespace rung {
namespace {

class FoldersTest : public testing::Test {
 protected:
  void SetUp() override {
    root_ =
        Path(testing::TempDir()) /
        fmt::format("rung-{}-{}", testing::UnitTest::GetInstance()->current_test_info()->name(), ::getpid());
    std::filesystem::create_directories(root_);
    folder_ = root_ / "folder";
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  // Two files that belong together.
  static void Fill(const Path& folder, const std::string& text) {
    ASSERT_TRUE(MakeFolders(folder).ok());
    ASSERT_TRUE(WriteTextFile(folder / "a", text).ok());
    ASSERT_TRUE(WriteTextFile(folder / "b", text).ok());
  }
  // What the folder holds: one text, or what is wrong with it.
  static std::string Content(const Path& folder) {
    if (!std::filesystem::exists(folder)) return "none";
    const Result<std::string> a = ReadTextFile(folder / "a", 100), b = ReadTextFile(folder / "b", 100);
    if (!a.ok() || !b.ok()) return "in parts";
    return a.value() == b.value() ? a.value() : "mixed";
  }
  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(root_))
      names.insert(entry.path().filename());
    return names;
  }

  Path root_, folder_;
};

TEST_F(FoldersTest, MakesAllFoldersOfAPath) {
  ASSERT_TRUE(MakeFolders(root_ / "x" / "y" / "z").ok());
  EXPECT_TRUE(std::filesystem::is_directory(root_ / "x" / "y" / "z"));
  ASSERT_TRUE(MakeFolders(root_ / "x" / "y/").ok());
  ASSERT_TRUE(MakeFolders(root_ / "u" / "v/").ok());
  EXPECT_TRUE(std::filesystem::is_directory(root_ / "u" / "v"));
  ASSERT_TRUE(WriteTextFile(root_ / "file", "").ok());
  const Status in_a_file = MakeFolders(root_ / "file" / "x");
  ASSERT_FALSE(in_a_file.ok());
  EXPECT_NE(in_a_file.failure().message.find("cannot create"), std::string::npos);
}

TEST_F(FoldersTest, RemovesLinksAndNotWhatTheyNameElsewhere) {
  Fill(folder_, "1");
  Fill(root_ / "other", "2");
  std::filesystem::create_directory_symlink(root_ / "other", folder_ / "link");
  ASSERT_TRUE(MakeFolders(folder_ / "deep" / "deeper").ok());
  ASSERT_TRUE(RemoveAll(folder_).ok());
  EXPECT_EQ(Names(), std::set<std::string>{"other"});
  EXPECT_EQ(Content(root_ / "other"), "2");
  EXPECT_TRUE(RemoveAll(folder_).ok());
}

TEST_F(FoldersTest, ReplacesAFolderThatMayBeThere) {
  for (const bool exchanges : {true, false}) {
    const FileFaults faults({.exchanges = exchanges});
    for (const char* text : {"1", "2", "3"}) {
      Fill(UnfinishedName(folder_), text);
      ASSERT_TRUE(ReplaceFolder(folder_).ok());
      EXPECT_EQ(Content(folder_), text);
      EXPECT_EQ(Names(), std::set<std::string>{"folder"});
    }
    ASSERT_TRUE(RemoveFolder(folder_).ok());
    EXPECT_TRUE(Names().empty());
  }
}

// A disk that fails at the n-th call and ever after is what a crash there leaves.
TEST_F(FoldersTest, IsWholeWhereverReplacingEnds) {
  for (const bool exchanges : {true, false}) {
    bool done = false;
    std::set<std::string> outcomes;
    for (int64_t n = 0; !done; ++n) {
      std::filesystem::remove_all(root_);
      Fill(folder_, "old");
      Fill(UnfinishedName(folder_), "new");
      {
        const FileFaults faults({.fault = Fault::kFail, .first = n, .count = 1000, .exchanges = exchanges});
        done = ReplaceFolder(folder_).ok() && FileFaults::calls() <= n;
      }
      EXPECT_TRUE(!exchanges || Content(folder_) != "none") << n;
      ASSERT_TRUE(CleanFolder(folder_).ok());
      const std::string content = Content(folder_);
      EXPECT_TRUE(content == "old" || content == "new") << n << ": " << content;
      outcomes.insert(content);
      EXPECT_EQ(Names(), std::set<std::string>{"folder"}) << n;
    }
    EXPECT_EQ(outcomes.size(), 2u);
  }
}

// A disk that fails once: nothing has to be completed by anyone.
TEST_F(FoldersTest, AFailedReplacementLeavesAWholeFolder) {
  for (const bool exchanges : {true, false}) {
    bool failed = true;
    for (int64_t n = 0; failed; ++n) {
      std::filesystem::remove_all(root_);
      Fill(folder_, "old");
      Fill(UnfinishedName(folder_), "new");
      const FileFaults faults({.fault = Fault::kFail, .first = n, .exchanges = exchanges});
      const Status replaced = ReplaceFolder(folder_);
      failed = FileFaults::calls() > n;
      const std::string content = Content(folder_);
      EXPECT_TRUE(content == "new" || (content == "old" && !replaced.ok())) << n << ": " << content;
      if (!replaced.ok()) {
        EXPECT_NE(replaced.failure().message.find("Input/output error"), std::string::npos)
            << replaced.failure().message;
      }
    }
  }
}

TEST_F(FoldersTest, RemovingLeavesNoPartUnderTheName) {
  bool done = false;
  for (int64_t n = 0; !done; ++n) {
    std::filesystem::remove_all(root_);
    Fill(folder_, "old");
    {
      const FileFaults faults({.fault = Fault::kFail, .first = n, .count = 1000});
      done = RemoveFolder(folder_).ok();
    }
    const std::string content = Content(folder_);
    EXPECT_TRUE(content == "old" || content == "none") << n << ": " << content;
    ASSERT_TRUE(CleanFolder(folder_).ok());
    EXPECT_EQ(Content(folder_), content);
  }
  EXPECT_TRUE(Names().empty());
}

TEST_F(FoldersTest, AProbeLeavesNothing) {
  const Path deep = root_ / "a" / ".." / "b" / "c";
  const std::set<std::string> before = Names();
  EXPECT_TRUE(ProbeFolder(deep).ok());
  EXPECT_EQ(Names(), before);
  Fill(folder_, "one");
  EXPECT_TRUE(ProbeFolder(folder_).ok());
  EXPECT_TRUE(ProbeFolder(folder_ / "").ok());
  EXPECT_EQ(Content(folder_), "one");
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 2);
  // As MakeFolders would: a file is in the way, or a name is too long.
  for (const Path& bad : {folder_ / "a" / "below", root_ / std::string(300, 'n'), Path("/proc/none")}) {
    SCOPED_TRACE(bad);
    const Status probed = ProbeFolder(bad);
    ASSERT_FALSE(probed.ok());
    EXPECT_EQ(probed.failure().code, ExitCode::kFailed);
    EXPECT_NE(probed.failure().message.find("cannot create"), std::string::npos) << probed.failure().message;
  }
  // Nothing can be made in what is there.
  const FileFaults faults({.fault = Fault::kFail, .error = EROFS, .only = "mkdir"});
  const Status probed = ProbeFolder(folder_);
  ASSERT_FALSE(probed.ok());
  EXPECT_NE(probed.failure().message.find("Read-only"), std::string::npos) << probed.failure().message;
}

// A probe of another process has taken the folder's parent away, or had made the folder itself.
TEST_F(FoldersTest, WhatAnotherProbeTakesAwayIsMadeAgain) {
  for (const int error : {ENOENT, EEXIST}) {
    SCOPED_TRACE(error);
    const Path deep = root_ / fmt::format("{}", error) / "below";
    const FileFaults faults({.fault = Fault::kFail, .first = 1, .error = error, .only = "mkdir"});
    const Status made = MakeFolders(deep);
    EXPECT_TRUE(made.ok()) << made.failure().message;
    EXPECT_TRUE(std::filesystem::is_directory(deep));
    const FileFaults others({.fault = Fault::kFail, .error = error, .only = "mkdir"});
    EXPECT_TRUE(ProbeFolder(root_).ok());
  }
}

TEST_F(FoldersTest, FreeBytesAreThoseOfTheDiskThatAFolderWouldBeOn) {
  const uint64_t free = FreeBytes(root_).value();
  EXPECT_GT(free, 0u);
  const uint64_t below = FreeBytes(root_ / "not" / "there").value();
  EXPECT_LT(std::max(free, below) - std::min(free, below), uint64_t{1} << 30);
  EXPECT_EQ(FreeBytes("/proc/none"), std::optional<uint64_t>(0));
}

}  // namespace
}  // namespace rung
