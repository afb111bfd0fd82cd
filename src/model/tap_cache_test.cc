#include "model/tap_cache.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <vector>

#include "base/file_faults.h"

namespace rung::model {
namespace {

constexpr uint64_t kNoLimit = uint64_t{1} << 40;
const TapCacheKey kKey{"model=smollm2;taps=5,11;store=bf16"};

// What docs/formats/tap_cache.md says of the checksum, one byte after another.
uint64_t ReferenceHash(std::string_view bytes, uint64_t seed) {
  const uint64_t w = 0x6A09E667F3BCC909, l = 0xBB67AE8584CAA73B;
  const auto round = [&](uint64_t a, uint64_t b) {
    const uint64_t x = a ^ (b * w);
    return ((x << 31) | (x >> 33)) * l;
  };
  uint64_t lanes[4] = {seed * l, (seed + 1) * l, (seed + 2) * l, (seed + 3) * l};
  for (size_t i = 0; i < (bytes.size() + 31) / 32 * 4; ++i) {
    uint64_t word = 0;
    for (size_t j = 0; j < 8; ++j) {
      const uint64_t byte = i * 8 + j < bytes.size() ? static_cast<unsigned char>(bytes[i * 8 + j]) : 0;
      word |= byte << (8 * j);
    }
    lanes[i % 4] = round(lanes[i % 4], word);
  }
  uint64_t h = bytes.size();
  for (const uint64_t lane : lanes) h = round(h, lane);
  h = (h ^ (h >> 32)) * w;
  h = (h ^ (h >> 29)) * l;
  return h ^ (h >> 32);
}

// Bytes that differ from entry to entry, from version to version and from word to word.
std::string Pattern(int64_t entry, uint64_t size, int version = 0) {
  std::string bytes(size, '\0');
  uint64_t state = static_cast<uint64_t>(entry) * 1000003 + static_cast<uint64_t>(version) * 7919 + 1;
  for (char& byte : bytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<char>(state >> 56);
  }
  return bytes;
}

std::span<const std::byte> BytesOf(const std::string& text) { return std::as_bytes(std::span(text)); }

Status WriteAs(TapCache& cache, int64_t entry, const std::string& text) {
  const std::span<const std::byte> bytes = BytesOf(text);
  return cache.Write(entry, std::span(&bytes, 1));
}
bool IsFull(const TapCache& cache) { return cache.complete() == cache.entries(); }

std::string Slurp(const Path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// A new file: some file systems write one to disk at once that was emptied first, and there are thousands
// here.
void Spill(const Path& path, const std::string& bytes) {
  std::filesystem::remove(path);
  std::ofstream(path, std::ios::binary) << bytes;
}

class TapCacheTest : public testing::Test {
 protected:
  void SetUp() override { UseFolder(testing::TempDir()); }
  void UseFolder(const Path& parent) {
    dir_ = parent / fmt::format("taps-{}-{}", testing::UnitTest::GetInstance()->current_test_info()->name(),
                                ::getpid());
    std::filesystem::remove_all(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  std::unique_ptr<TapCache> Open(const TapCacheKey& key = kKey) const {
    return TapCache::Open(dir_, key, sizes_, kNoLimit).OrThrow();
  }
  // For thousands of stores: to reserve place on a real disk takes milliseconds.
  void UseMemory() {
    if (::access("/dev/shm", W_OK) == 0) UseFolder("/dev/shm");
  }
  // A cache of all entries on disk, closed again.
  void MakeFull() const {
    std::unique_ptr<TapCache> cache = Open();
    for (int64_t i = 0; i < cache->entries(); ++i) {
      ASSERT_TRUE(WriteAs(*cache, i, Pattern(i, cache->bytes(i))).ok());
    }
    ASSERT_TRUE(IsFull(*cache));
  }
  Path File(const char* name) const { return TapCache::FolderOf(dir_, kKey) / name; }

  Path dir_;
  std::vector<uint64_t> sizes_ = {100, 4096, 0, 7, 70001};
};

Status ReadInto(TapCache& cache, int64_t entry, std::string* bytes) {
  bytes->assign(cache.bytes(entry), '?');
  const std::span<std::byte> into = std::as_writable_bytes(std::span(*bytes));
  return cache.Read(entry, std::span(&into, 1));
}

// The entry is read and holds its pattern; anything else is a failed expectation.
void ExpectGood(TapCache& cache, int64_t entry) {
  std::string bytes;
  Status status = ReadInto(cache, entry, &bytes);
  EXPECT_TRUE(status.ok()) << status.failure().message;
  EXPECT_TRUE(bytes == Pattern(entry, cache.bytes(entry))) << "entry " << entry;
}

TEST_F(TapCacheTest, GivesBackWhatWasWrittenAlsoAfterReopening) {
  {
    std::unique_ptr<TapCache> cache = Open();
    EXPECT_EQ(cache->note(), "");
    EXPECT_EQ(cache->entries(), 5);
    EXPECT_EQ(cache->complete(), 0);
    for (const int64_t i : {4, 0, 2}) {
      EXPECT_FALSE(cache->Has(i));
      ASSERT_TRUE(WriteAs(*cache, i, Pattern(i, sizes_[static_cast<size_t>(i)])).ok());
      EXPECT_TRUE(cache->Has(i));
      ExpectGood(*cache, i);
    }
    EXPECT_EQ(cache->complete(), 3);
    EXPECT_FALSE(IsFull(*cache));
    EXPECT_TRUE(cache->Sync().ok());
  }
  std::unique_ptr<TapCache> cache = Open();
  EXPECT_EQ(cache->note(), "");
  EXPECT_EQ(cache->complete(), 3);
  for (const int64_t i : {0, 2, 4}) ExpectGood(*cache, i);
  std::string bytes;
  EXPECT_FALSE(cache->Has(1));
  EXPECT_FALSE(ReadInto(*cache, 1, &bytes).ok());
  for (const int64_t i : {1, 3}) {
    cache->Expect(i);
    ASSERT_TRUE(WriteAs(*cache, i, Pattern(i, cache->bytes(i))).ok());
  }
  EXPECT_TRUE(IsFull(*cache));
  ASSERT_TRUE(WriteAs(*cache, 1, Pattern(1, 4096)).ok());
  EXPECT_EQ(cache->complete(), 5) << "writing an entry again must not count it again";
}

// A full disk, and writes that do a part of what they were given.
TEST_F(TapCacheTest, AWriteThatFailsLeavesItsEntryAbsent) {
  std::unique_ptr<TapCache> cache = Open();
  {
    const FileFaults shortened({.fault = Fault::kShortWrite, .only = "pwrite"});
    ASSERT_TRUE(WriteAs(*cache, 4, Pattern(4, 70001)).ok());
  }
  ExpectGood(*cache, 4);
  for (int64_t call = 0; call < 3; ++call) {  // the old record forgotten, the bytes, the new record
    const FileFaults full({.fault = Fault::kFail, .first = call, .error = ENOSPC, .only = "pwrite"});
    const Status refused = WriteAs(*cache, 4, Pattern(4, 70001, 1));
    // Where the record stays the checksum will tell.
    EXPECT_EQ(refused.ok(), call == 0);
    EXPECT_EQ(cache->Has(4), call == 0);
    if (call > 0) {
      EXPECT_EQ(refused.failure().code, ExitCode::kFailed);
      ASSERT_TRUE(WriteAs(*cache, 4, Pattern(4, 70001)).ok());
    }
  }
}

TEST_F(TapCacheTest, PartsAreOneEntry) {
  std::unique_ptr<TapCache> cache = Open();
  const std::string all = Pattern(4, 70001);
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{31}, size_t{33}, size_t{4099}, all.size()}) {
    const std::span<const std::byte> bytes = BytesOf(all);
    const std::array<std::span<const std::byte>, 3> parts = {
        bytes.first(cut / 2), bytes.subspan(cut / 2, cut - cut / 2), bytes.subspan(cut)};
    ASSERT_TRUE(cache->Write(4, parts).ok());
    ExpectGood(*cache, 4);
    std::string read(all.size(), '?');
    const std::span<std::byte> into = std::as_writable_bytes(std::span(read));
    const std::array<std::span<std::byte>, 2> out = {into.first(cut), into.subspan(cut)};
    ASSERT_TRUE(cache->Read(4, out).ok());
    EXPECT_TRUE(read == all);
  }
}

// The format page, read by code that shares nothing with the store.
TEST_F(TapCacheTest, BytesOnDiskAreAsDocumented) {
  MakeFull();
  const std::string index = Slurp(File("index")), taps = Slurp(File("taps"));
  const auto number = [&](size_t at) {
    uint64_t value = 0;
    for (size_t j = 0; j < 8; ++j) value |= uint64_t{static_cast<unsigned char>(index[at + j])} << (8 * j);
    return value;
  };
  EXPECT_EQ(index.size(), 4096u + 16 * 5);
  EXPECT_EQ(index.substr(0, 8), "RUNGTAPS");
  EXPECT_EQ(number(8), 1 + (uint64_t{kKey.description.size()} << 32));
  EXPECT_EQ(number(16), 5u);
  EXPECT_EQ(number(24), taps.size());
  std::string sizes;
  for (const uint64_t size : sizes_) {
    for (int j = 0; j < 8; ++j) sizes.push_back(static_cast<char>(size >> (8 * j)));
  }
  EXPECT_EQ(number(32), ReferenceHash(sizes, 0));
  EXPECT_EQ(index.substr(40, kKey.description.size()), kKey.description);
  const std::array<size_t, 5> begins = {0, 4096, 8192, 8192, 12288};
  EXPECT_EQ(taps.size(), 12288u + 18 * 4096);
  const uint64_t salt = ReferenceHash(kKey.description, 1);
  for (size_t i = 0; i < 5; ++i) {
    const std::string data = taps.substr(begins[i], sizes_[i]);
    EXPECT_TRUE(data == Pattern(static_cast<int64_t>(i), sizes_[i]));
    const uint64_t x = salt ^ (i * 0x6A09E667F3BCC909);
    const uint64_t seed = ((x << 31) | (x >> 33)) * 0xBB67AE8584CAA73B;
    EXPECT_EQ(number(4096 + 16 * i), ReferenceHash(data, seed));
    std::string sealed(16, '\0');
    sealed[0] = static_cast<char>(i);
    std::memcpy(&sealed[8], &index[4096 + 16 * i], 8);
    EXPECT_EQ(number(4096 + 16 * i + 8), ReferenceHash(sealed, salt));
  }
}

TEST_F(TapCacheTest, NeedIsExact) {
  const std::vector<std::vector<uint64_t>> layouts = {
      {}, {0}, {1}, {4096, 4097, 4095}, {100, 1 << 20, 12345}};
  for (const std::vector<uint64_t>& layout : layouts) {
    sizes_ = layout;
    MakeFull();
    uint64_t bytes = 0;
    for (const auto& file : std::filesystem::directory_iterator(TapCache::FolderOf(dir_, kKey))) {
      bytes += file.file_size();
    }
    EXPECT_EQ(bytes, TapCache::Need(layout));
  }
}

TEST_F(TapCacheTest, AnotherKeyIsAnotherFolder) {
  MakeFull();
  const TapCacheKey other{kKey.description + "x"};
  EXPECT_NE(TapCache::FolderOf(dir_, kKey), TapCache::FolderOf(dir_, other));
  EXPECT_EQ(Open(other)->complete(), 0);
  EXPECT_EQ(Open()->complete(), 5);
}

TEST_F(TapCacheTest, AFolderOfAnotherTextIsDiscarded) {
  MakeFull();
  // As if both texts had the same hash.
  const TapCacheKey other{"model=smollm2;taps=5,12;store=bf16"};
  std::filesystem::rename(TapCache::FolderOf(dir_, kKey), TapCache::FolderOf(dir_, other));
  std::unique_ptr<TapCache> cache = Open(other);
  EXPECT_NE(cache->note().find("made from another model"), std::string::npos) << cache->note();
  EXPECT_EQ(cache->complete(), 0);
}

TEST_F(TapCacheTest, BytesOfAnotherTextDoNotFitEvenUnderThisHeader) {
  MakeFull();
  const TapCacheKey other{"model=smollm2;taps=5,12;store=bf16"};
  static_cast<void>(Open(other));
  const Path folder = TapCache::FolderOf(dir_, other);
  const std::string foreign = Slurp(File("index"));
  Spill(folder / "index", Slurp(folder / "index").substr(0, 4096) + foreign.substr(4096));
  Spill(folder / "taps", Slurp(File("taps")));
  EXPECT_EQ(Open(other)->complete(), 0);
}

TEST_F(TapCacheTest, OtherSizesAreAnotherStore) {
  MakeFull();
  std::swap(sizes_[0], sizes_[3]);
  std::unique_ptr<TapCache> cache = Open();
  EXPECT_NE(cache->note().find("other sizes"), std::string::npos) << cache->note();
  EXPECT_EQ(cache->complete(), 0);
  EXPECT_TRUE(Slurp(File("taps")).find_first_not_of('\0') == std::string::npos);
}

TEST_F(TapCacheTest, RefusesWhatIsAboveTheLimit) {
  const uint64_t need = TapCache::Need(sizes_);
  Result<std::unique_ptr<TapCache>> refused = TapCache::Open(dir_, kKey, sizes_, need - 1);
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.failure().code, ExitCode::kUsage);
  for (const std::string& part :
       {fmt::format("{} bytes", need), fmt::format("{} bytes", need - 1), std::string("raise the limit")}) {
    EXPECT_NE(refused.failure().message.find(part), std::string::npos) << refused.failure().message;
  }
  EXPECT_FALSE(std::filesystem::exists(dir_)) << "a refusal must leave no trace";
  EXPECT_TRUE(TapCache::Open(dir_, kKey, sizes_, need).ok());
}

TEST_F(TapCacheTest, RefusesWhatTheDiskCannotHold) {
  sizes_ = {uint64_t{1} << 60};  // an exbibyte
  Result<std::unique_ptr<TapCache>> refused = TapCache::Open(dir_, kKey, sizes_, ~uint64_t{0});
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.failure().code, ExitCode::kFailed);
  EXPECT_FALSE(TapCache::Check(dir_, TapCache::Need(sizes_), ~uint64_t{0}).ok());
  EXPECT_TRUE(TapCache::Check(dir_, 4096, 4096).ok());
  EXPECT_NE(refused.failure().message.find("free space"), std::string::npos) << refused.failure().message;
  EXPECT_FALSE(std::filesystem::exists(dir_));
}

TEST_F(TapCacheTest, RefusesAFolderThatCannotBeWritten) {
  std::filesystem::create_directories(dir_);
  Spill(dir_ / "file", "x");
  for (const Path& dir : {dir_ / "file", Path("/proc/taps")}) {
    Result<std::unique_ptr<TapCache>> refused = TapCache::Open(dir, kKey, {1}, kNoLimit);
    ASSERT_FALSE(refused.ok());
    EXPECT_EQ(refused.failure().code, ExitCode::kFailed);
    EXPECT_NE(refused.failure().message.find(dir.string()), std::string::npos) << refused.failure().message;
  }
}

TEST_F(TapCacheTest, OneRunAtATime) {
  std::unique_ptr<TapCache> cache = Open();
  ASSERT_TRUE(WriteAs(*cache, 0, Pattern(0, 100)).ok());
  Result<std::unique_ptr<TapCache>> second = TapCache::Open(dir_, kKey, sizes_, kNoLimit);
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.failure().code, ExitCode::kUsage);
  EXPECT_NE(second.failure().message.find("another run"), std::string::npos) << second.failure().message;
  // Nor one that would discard the store.
  EXPECT_FALSE(TapCache::Open(dir_, kKey, {1, 2}, kNoLimit).ok());
  ExpectGood(*cache, 0);
  cache.reset();
  EXPECT_EQ(Open()->complete(), 1);
}

TEST_F(TapCacheTest, EveryFlippedByteOfTheTapsIsDetectedOrHarmless) {
  UseMemory();
  sizes_ = {100, 0, 257};
  MakeFull();
  const std::string index = Slurp(File("index")), taps = Slurp(File("taps"));
  for (size_t at = 0; at < taps.size(); ++at) {
    std::string damaged = taps;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    Spill(File("taps"), damaged);
    Spill(File("index"), index);
    std::unique_ptr<TapCache> cache = Open();
    ASSERT_TRUE(IsFull(*cache));
    const int64_t hit = at < 100 ? 0 : at >= 4096 && at < 4096 + 257 ? 2 : -1;
    for (int64_t i = 0; i < 3; ++i) {
      if (i != hit) {
        ExpectGood(*cache, i);
        continue;
      }
      std::string bytes;
      Status status = ReadInto(*cache, i, &bytes);
      ASSERT_FALSE(status.ok()) << "byte " << at;
      EXPECT_NE(status.failure().message.find(fmt::format("{}: entry {}", File("taps").string(), i)),
                std::string::npos);
      EXPECT_FALSE(cache->Has(i));
    }
    EXPECT_EQ(cache->complete(), hit < 0 ? 3 : 2);
    if (hit < 0) continue;
    cache.reset();
    EXPECT_FALSE(Open()->Has(hit)) << "the next run must know too";
  }
}

TEST_F(TapCacheTest, EveryFlippedByteOfTheIndexIsDetected) {
  UseMemory();
  sizes_ = {100, 0, 257};
  MakeFull();
  std::string index = Slurp(File("index"));
  index.replace(4096 + 16, 16, 16, '\0');  // entry 1 is absent
  const std::string taps = Slurp(File("taps"));
  for (size_t at = 0; at < index.size(); ++at) {
    std::string damaged = index;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 8)));
    Spill(File("index"), damaged);
    Spill(File("taps"), taps);
    std::unique_ptr<TapCache> cache = Open();
    EXPECT_EQ(cache->note().empty(), at >= 4096) << cache->note();
    for (int64_t i = 0; i < 3; ++i) {
      const bool present = at >= 4096 && i != 1 && i != static_cast<int64_t>(at - 4096) / 16;
      ASSERT_EQ(cache->Has(i), present) << "byte " << at;
      if (present) ExpectGood(*cache, i);
    }
  }
}

TEST_F(TapCacheTest, EveryTruncationOfAFileIsDetected) {
  UseMemory();
  sizes_ = {100, 0, 257};
  MakeFull();
  const std::string index = Slurp(File("index")), taps = Slurp(File("taps"));
  const auto expect_discarded = [&](const std::string& what) {
    std::unique_ptr<TapCache> cache = Open();
    ASSERT_EQ(cache->complete(), 0) << what;
    ASSERT_NE(cache->note(), "") << what;
    ASSERT_TRUE(WriteAs(*cache, 2, Pattern(2, 257)).ok());
    ExpectGood(*cache, 2);
  };
  for (size_t size = 0; size < index.size(); ++size) {
    Spill(File("index"), index.substr(0, size));
    Spill(File("taps"), taps);
    expect_discarded(fmt::format("index of {} bytes", size));
  }
  for (size_t size = 0; size < taps.size(); size += 97) {
    Spill(File("index"), index);
    Spill(File("taps"), taps.substr(0, size));
    expect_discarded(fmt::format("taps of {} bytes", size));
  }
  Spill(File("index"), index + "x");
  expect_discarded("a longer index");
}

// A loss of power may keep the index and lose the data, or keep those of an earlier write.
TEST_F(TapCacheTest, DataThatTheIndexDoesNotMeanIsDetected) {
  sizes_ = {8192, 8192, 8192};
  MakeFull();
  const std::string index = Slurp(File("index")), taps = Slurp(File("taps"));
  const auto expect_bad = [&](std::string damaged, const std::string& records, int64_t entry) {
    Spill(File("taps"), damaged);
    Spill(File("index"), records);
    std::unique_ptr<TapCache> cache = Open();
    std::string bytes;
    EXPECT_FALSE(ReadInto(*cache, entry, &bytes).ok());
    EXPECT_FALSE(cache->Has(entry));
  };
  for (const size_t page : {size_t{0}, size_t{1}}) {
    expect_bad(std::string(taps).replace(8192 + page * 4096, 4096, 4096, '\0'), index, 1);
    expect_bad(std::string(taps).replace(8192 + page * 4096, 4096, Pattern(1, 8192, 1), page * 4096, 4096),
               index, 1);
  }
  expect_bad(std::string(taps).replace(8192, 8192, taps, 0, 8192), index, 1);
  expect_bad(taps, std::string(index).replace(4096 + 16, 16, index, 4096, 16), 1);
  // Even with the data of the other entry beside its record.
  expect_bad(std::string(taps).replace(8192, 8192, taps, 0, 8192),
             std::string(index).replace(4096 + 16, 16, index, 4096, 16), 1);
}

// Writes for ever, entries in turn, each time with another content, and tells the pipe of each.
[[noreturn]] void WriteUntilKilled(const Path& dir, const std::vector<uint64_t>& sizes, int pipe) {
  std::unique_ptr<TapCache> cache = TapCache::Open(dir, kKey, sizes, kNoLimit).OrThrow();
  for (int version = 0;; ++version) {
    for (size_t i = 0; i < sizes.size(); ++i) {
      const int64_t entry = static_cast<int64_t>(i * 7 % sizes.size());
      const std::string bytes = Pattern(entry, sizes[static_cast<size_t>(entry)], version % 8);
      if (!WriteAs(*cache, entry, bytes).ok() || ::write(pipe, "w", 1) != 1) ::_exit(1);
    }
  }
}

TEST_F(TapCacheTest, AKillInTheMiddleOfWritesLeavesNoWrongEntry) {
  sizes_.clear();
  for (uint64_t i = 0; i < 20; ++i) sizes_.push_back(100 + i * 9973);
  for (int trial = 0; trial < 12; ++trial) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) WriteUntilKilled(dir_, sizes_, ends[1]);
    ::close(ends[1]);
    char byte;
    for (int i = 0; i < 3 + trial * 7; ++i) ASSERT_EQ(::read(ends[0], &byte, 1), 1);
    ::usleep(static_cast<useconds_t>(trial * 131 % 700));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFSIGNALED(status));
    ::close(ends[0]);

    std::unique_ptr<TapCache> cache = Open();
    EXPECT_EQ(cache->note(), "");
    EXPECT_GE(cache->complete(), std::min(3 + trial * 7, 19));
    for (int64_t i = 0; i < cache->entries(); ++i) {
      if (!cache->Has(i)) continue;
      std::string bytes;
      ASSERT_TRUE(ReadInto(*cache, i, &bytes).ok()) << "entry " << i;
      int version = 0;
      while (version < 8 && bytes != Pattern(i, bytes.size(), version)) ++version;
      EXPECT_LT(version, 8) << "entry " << i << " holds what nobody wrote";
    }
  }
}

// In a child, because the limit on a file's size is the process's: writes beyond it fail like those to a full
// disk.
int WriteBeyondALimit(const Path& dir, const std::vector<uint64_t>& sizes) {
  ::signal(SIGXFSZ, SIG_IGN);
  std::unique_ptr<TapCache> cache = TapCache::Open(dir, kKey, sizes, kNoLimit).OrThrow();
  if (!WriteAs(*cache, 0, Pattern(0, sizes[0])).ok()) return 1;
  if (!WriteAs(*cache, 1, Pattern(1, sizes[1])).ok()) return 2;
  const rlimit limit{150'000, RLIM_INFINITY};
  if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 3;
  Status status = WriteAs(*cache, 1, Pattern(1, sizes[1], 1));
  if (status.ok() || status.failure().code != ExitCode::kFailed) return 4;
  if (cache->Has(1) || cache->complete() != 1) return 5;
  std::string bytes;
  if (!ReadInto(*cache, 0, &bytes).ok() || bytes != Pattern(0, sizes[0])) return 6;
  return 0;
}

TEST_F(TapCacheTest, AFailedWriteLeavesTheEntryAbsent) {
  sizes_ = {100'000, 100'000};
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) ::_exit(WriteBeyondALimit(dir_, sizes_));
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  std::unique_ptr<TapCache> cache = Open();
  EXPECT_TRUE(cache->Has(0));
  EXPECT_FALSE(cache->Has(1));
}

TEST_F(TapCacheTest, ThreadsMayWorkOnDifferentEntries) {
  sizes_.assign(64, 5000);
  std::unique_ptr<TapCache> cache = Open();
  std::vector<std::thread> threads;
  for (int64_t t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      for (int64_t i = t; i < 64; i += 4) {
        EXPECT_TRUE(WriteAs(*cache, i, Pattern(i, 5000)).ok());
        ExpectGood(*cache, i);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_TRUE(IsFull(*cache));
}

}  // namespace
}  // namespace rung::model
