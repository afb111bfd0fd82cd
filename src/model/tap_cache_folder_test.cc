// Several caches in one folder: which of them go when there is no room for one more.
#include "model/tap_cache_folder.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <span>
#include <string>
#include <thread>

#include "model/tap_cache.h"

namespace rung::model {
namespace {

Status WriteFirst(TapCache& cache, const std::string& text) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span(text));
  return cache.Write(0, std::span(&bytes, 1));
}
Status ReadFirst(TapCache& cache, std::string* text) {
  const std::span<std::byte> bytes = std::as_writable_bytes(std::span(*text));
  return cache.Read(0, std::span(&bytes, 1));
}

// Caches of one entry of a megabyte; the limit holds two and the better part of a third.
class TapCacheRoomTest : public testing::Test {
 protected:
  TapCacheRoomTest()
      : dir_(Path(testing::TempDir()) /
             fmt::format("taps-{}-{}", testing::UnitTest::GetInstance()->current_test_info()->name(),
                         ::getpid())) {
    std::filesystem::remove_all(dir_);
  }
  ~TapCacheRoomTest() override { std::filesystem::remove_all(dir_); }
  static constexpr uint64_t kEntry = 1 << 20, kLimit = 3 * kEntry;
  static TapCacheKey Key(const std::string& name) { return {name}; }
  Result<std::unique_ptr<TapCache>> Open(const std::string& name, uint64_t limit = kLimit) const {
    return TapCache::Open(dir_, Key(name), {kEntry}, limit);
  }
  void Make(const std::string& name, int hours_ago) const {
    WriteFirst(*Open(name).OrThrow(), std::string(kEntry, 'x')).OrThrow();
    const auto now = std::filesystem::file_time_type::clock::now();
    std::filesystem::last_write_time(TapCache::FolderOf(dir_, Key(name)) / "lock",
                                     now - std::chrono::hours(hours_ago));
  }
  bool Stands(const std::string& name) const {
    return std::filesystem::exists(TapCache::FolderOf(dir_, Key(name)));
  }
  Path dir_;
};

TEST_F(TapCacheRoomTest, TheCacheUsedLongestAgoGoesFirst) {
  Make("older", 1);
  Make("oldest", 2);
  std::filesystem::create_directories(dir_ / "notes");
  WriteTextFile(dir_ / "notes" / "taps", std::string(2 * kEntry, 'x')).OrThrow();
  EXPECT_EQ(Open("older").OrThrow()->complete(), 1);  // to use it makes it the newest
  const std::unique_ptr<TapCache> third = Open("new").OrThrow();
  EXPECT_NE(third->note().find("removed 1 other that no run uses"), std::string::npos) << third->note();
  EXPECT_TRUE(Stands("older"));
  EXPECT_FALSE(Stands("oldest"));
  EXPECT_TRUE(std::filesystem::exists(dir_ / "notes" / "taps"));  // no cache's name
  EXPECT_EQ(Open("older").OrThrow()->note(), "");
}

TEST_F(TapCacheRoomTest, ACacheInUseStays) {
  Make("idle", 1);
  Make("used", 9);
  std::unique_ptr<TapCache> used = Open("used").OrThrow();
  const std::unique_ptr<TapCache> third = Open("new").OrThrow();
  EXPECT_TRUE(Stands("used"));
  EXPECT_FALSE(Stands("idle"));
  // Nothing is left to remove, so nothing is.
  for (const Status& refused : {Status(TapCache::Check(dir_, TapCache::Need({{kEntry}}), kLimit)),
                                Status(Open("fourth").ok() ? Status(Ok{}) : Open("fourth").failure())}) {
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.failure().code, ExitCode::kUsage);
    EXPECT_NE(refused.failure().message.find("caches that other runs use take 2.0 MiB"), std::string::npos)
        << refused.failure().message;
  }
  EXPECT_FALSE(Stands("fourth"));
  used.reset();
  EXPECT_TRUE(TapCache::Check(dir_, TapCache::Need({{kEntry}}), kLimit).ok());
  EXPECT_TRUE(Stands("used"));  // only looked at
  EXPECT_TRUE(Open("fourth").ok());
  EXPECT_FALSE(Stands("used"));
}

TEST_F(TapCacheRoomTest, WhatWouldNotBeEnoughIsNotRemoved) {
  Make("idle", 1);
  const std::unique_ptr<TapCache> used = Open("used").OrThrow();
  EXPECT_FALSE(TapCache::Open(dir_, Key("large"), {2 * kEntry + (1 << 16)}, kLimit).ok());
  EXPECT_TRUE(Stands("idle"));
}

// Names of caches, and nothing that a run made: a person's files, a link to some, a folder without a cache.
TEST_F(TapCacheRoomTest, WhatIsNoCacheStays) {
  const Path named = dir_ / "0123456789abcdef", elsewhere = dir_ / "elsewhere",
             link = dir_ / "fedcba9876543210";
  for (const Path& folder : {named, elsewhere, dir_ / "aaaaaaaaaaaaaaaa"}) {
    std::filesystem::create_directories(folder);
    WriteTextFile(folder / "lock", "").OrThrow();
  }
  for (const Path& folder : {named, elsewhere}) {
    WriteTextFile(folder / "index", folder == named ? "my own index" : "RUNGTAPS").OrThrow();
    WriteTextFile(folder / "taps", std::string(4 * kEntry, 'x')).OrThrow();
  }
  std::filesystem::create_directory_symlink("elsewhere", link);
  Make("idle", 1);
  EXPECT_TRUE(Open("new", kEntry + (1 << 19)).ok());
  EXPECT_FALSE(Stands("idle"));  // room was short
  for (const Path& folder : {named, elsewhere, link}) {
    EXPECT_TRUE(std::filesystem::exists(folder / "index")) << folder;
    EXPECT_TRUE(std::filesystem::exists(folder / "taps")) << folder;
  }
  EXPECT_TRUE(std::filesystem::exists(dir_ / "aaaaaaaaaaaaaaaa" / "lock"));
}

// Three runs that each remove the others' caches whenever they are idle: whoever has one open reads what it
// wrote. With three, one can take the lock of a cache that another removed and the third made again.
TEST_F(TapCacheRoomTest, NobodyRemovesWhatAnotherTakes) {
  std::atomic<int> opened = 0, wrong = 0;
  const auto work = [&](const std::string& name) {
    for (int i = 0; i < 200; ++i) {
      const Result<std::unique_ptr<TapCache>> cache = Open(name, kEntry + (1 << 19));
      if (!cache.ok()) {
        if (cache.failure().code != ExitCode::kUsage) ++wrong;
        continue;
      }
      ++opened;
      const std::string bytes(kEntry, static_cast<char>('a' + i % 26));
      std::string back(kEntry, '\0');
      const bool same =
          WriteFirst(*cache.value(), bytes).ok() && ReadFirst(*cache.value(), &back).ok() && back == bytes;
      if (!same || !std::filesystem::exists(cache.value()->folder() / "taps")) ++wrong;
    }
  };
  std::thread other(work, "b"), third(work, "a");
  work("c");
  other.join();
  third.join();
  EXPECT_GT(opened.load(), 10);
  EXPECT_EQ(wrong.load(), 0);
}

}  // namespace
}  // namespace rung::model
