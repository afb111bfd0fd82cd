// The folder of cached tokens, and the pieces that a data set is read in.
#include "data/token_cache.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>
#include <zlib.h>

#include <chrono>
#include <cstdlib>
#include <numeric>
#include <optional>
#include <set>
#include <stdexcept>

#include "base/test_support.h"
#include "data/row_pieces.h"
#include "data/token_file.h"

namespace rung::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class TokenCache : public FolderTest {
 protected:
  // A file of so many bytes, used so many hours ago.
  Path Put(const std::string& name, size_t bytes, int hours) const {
    Write(name, std::string(bytes, 'x'));
    const auto now = std::filesystem::file_time_type::clock::now();
    std::filesystem::last_write_time(folder_ / name, now - std::chrono::hours(hours));
    return folder_ / name;
  }
  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_))
      names.insert(entry.path().filename().string());
    return names;
  }
  static std::string Key(char digit, const std::string& rest = "") {
    std::string name(32, digit);
    name.append(".tokens").append(rest);
    return name;
  }
};

TEST_F(TokenCache, RemovesWhatWasUsedLongestAgo) {
  Put(Key('a'), 100, 3);
  Put(Key('b'), 100, 1);
  Put(Key('c'), 100, 5);
  Put("notes.txt", 5000, 9);
  Put("0123.tokens", 5000, 9);
  Put(Key('z'), 5000, 9);
  EXPECT_EQ(TidyCache(folder_, 300).files, 0);
  MarkUsed(folder_ / Key('c'));
  const Tidied tidied = TidyCache(folder_, 299);
  EXPECT_EQ(tidied.files, 1);
  EXPECT_EQ(tidied.bytes, 100u);
  EXPECT_EQ(Names(), (std::set<std::string>{Key('b'), Key('c'), "notes.txt", "0123.tokens", Key('z')}));
  EXPECT_EQ(TidyCache(folder_, 0).files, 2);
  EXPECT_EQ(Names().size(), 3u);
}

TEST_F(TokenCache, KeepsWhatIsInUse) {
  TokenFileWriter writer = TokenFileWriter::Create(folder_ / Key('a')).OrThrow();
  const std::vector<TokenWord> words = {WordOf(1, false), WordOf(2, true)};
  ASSERT_TRUE(writer.Add(words).ok());
  ASSERT_TRUE(writer.Commit("{}").ok());
  Put(Key('b'), 100, 0);
  std::optional<TokenFile> open = OpenTokenFile(folder_ / Key('a')).OrThrow();
  const Examples copy = open->examples;
  open.reset();
  EXPECT_EQ(TidyCache(folder_, 0).files, 1);
  EXPECT_THAT(Names(), ElementsAre(Key('a')));
  EXPECT_EQ(copy.words(0)[1], words[1]);
}

TEST_F(TokenCache, IsRemovedOnceItIsFree) {
  {
    TokenFileWriter writer = TokenFileWriter::Create(folder_ / Key('a')).OrThrow();
    const std::vector<TokenWord> words = {WordOf(1, false), WordOf(2, true)};
    ASSERT_TRUE(writer.Add(words).ok());
    ASSERT_TRUE(writer.Commit("{}").ok());
    const TokenFile open = OpenTokenFile(folder_ / Key('a')).OrThrow();
    EXPECT_EQ(TidyCache(folder_, 0).files, 0);
  }
  EXPECT_EQ(TidyCache(folder_, 0).files, 1);
}

TEST_F(TokenCache, RemovesWhatDeadProcessesLeft) {
  // No process has the largest number; this one is alive.
  const std::string dead = "." + std::to_string((1 << 22) + 1), alive = "." + std::to_string(::getpid());
  Put(Key('a', dead + ".tmp"), 10, 0);
  Put(Key('b', dead), 10, 2);  // no name of a cache's file
  Put(Key('c', ".tmp"), 10, 2);
  const Path path = folder_ / Key('e');
  TokenFileWriter writer = TokenFileWriter::Create(path, OwnTokenFile(path)).OrThrow();
  TidyCache(folder_, kCacheLimit);
  std::set<std::string> names = {Key('b', dead), Key('c', ".tmp"), Key('e', alive + ".tmp")};
  EXPECT_EQ(Names(), names);
  // Renamed once.
  ASSERT_TRUE(writer.Commit("{}").ok());
  names.erase(Key('e', alive + ".tmp"));
  names.insert(Key('e'));
  EXPECT_EQ(Names(), names);
}

TEST_F(TokenCache, CountsWhatPackedFilesUnpackTo) {
  ASSERT_EQ(::setenv("RUNG_CACHE", folder_.c_str(), 1), 0);
  const Path packed = folder_ / "a.jsonl.gz";
  const std::string line = "{\"text\": \"" + std::string((1 << 20) - 13, 'a') + "\"}\n";
  const auto write = [&](int megabytes) {
    const gzFile file = gzopen(packed.c_str(), "wb1");
    for (int i = 0; i < megabytes; ++i) gzwrite(file, line.data(), static_cast<unsigned>(line.size()));
    gzclose(file);
  };
  const std::vector<DataFile> files = {{packed}};
  write(31);
  EXPECT_EQ(DefaultCache(files), Path());
  write(33);
  EXPECT_LT(std::filesystem::file_size(packed), 1u << 20);
  EXPECT_EQ(DefaultCache(files), folder_ / "tokens");
  ASSERT_EQ(::unsetenv("RUNG_CACHE"), 0);
}

TEST(RowPieces, GiveTheRowsBeforeAFailure) {
  auto reader =
      RowReader::Over(ByteSource::OfMemory("text\na\nb\n\"c\n"), "x.csv", FileKind::kCsv, SampleBy::kLine)
          .OrThrow();
  RowPieces pieces(reader.get(), 2, nullptr);
  const auto rows = pieces.Next().OrThrow();
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_THAT(rows[1].fields, ElementsAre("b"));
  EXPECT_THAT(pieces.Next().failure().message, HasSubstr("x.csv:4: a quoted field does not end"));
}

TEST(RowPieces, DoEachRowOnceAndThrowWhatTheWorkThrows) {
  std::string lines;
  for (int i = 0; i < 5000; ++i) lines += "a\n";
  auto reader = RowReader::Over(ByteSource::OfMemory(lines), "x", FileKind::kText, SampleBy::kLine).OrThrow();
  RowPieces pieces(reader.get(), 3, nullptr);
  size_t total = 0;
  for (auto rows = pieces.Next().OrThrow(); !rows.empty(); rows = pieces.Next().OrThrow()) {
    std::vector<int> times(rows.size(), 0);
    ASSERT_TRUE(pieces.ForEach([&](size_t i) { ++times[i]; }).ok());
    EXPECT_EQ(std::count(times.begin(), times.end(), 1), static_cast<int64_t>(rows.size()));
    total += rows.size();
    EXPECT_THROW(static_cast<void>(pieces.ForEach([](size_t i) {
                   if (i == 7) throw std::logic_error("a mistake of the program");
                 })),
                 std::logic_error);
  }
  EXPECT_EQ(total, 5000u);
}

}  // namespace
}  // namespace rung::data
