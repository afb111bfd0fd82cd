#include "model/tap_cache.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/descriptor.h"
#include "base/file_calls.h"
#include "base/folders.h"
#include "base/hash.h"
#include "base/text.h"
#include "model/tap_cache_folder.h"

namespace rung::model {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers go to disk as they lie in memory");

constexpr char kNew[] = "it is new";  // a mismatch that nobody needs to hear of
constexpr uint32_t kVersion = 1;
constexpr uint64_t kHeaderBytes = 4096;
// A page: an entry never shares one with another, so that no write needs a page's old contents from disk.
constexpr uint64_t kAlignment = 4096;
// Read and checksummed at once: the second touch finds the bytes in the core's own cache.
constexpr size_t kChunkBytes = size_t{256} << 10;

constexpr uint64_t AlignUp(uint64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

struct Record {
  uint64_t checksum, seal;
};
static_assert(sizeof(Record) == 16);

struct HeaderStart {
  char magic[8];
  uint32_t version, key_bytes;
  uint64_t entries, taps_bytes, layout;
};
static_assert(sizeof(HeaderStart) + TapCache::kMaxKeyBytes == kHeaderBytes);

// Makes the empty file `bytes` zeros long, with its place on the disk where the file system can reserve it.
Status Reserve(int file, uint64_t bytes, const Path& path) {
  if (bytes == 0) return Ok{};
  int failed;
  do {
    failed = ::fallocate(file, 0, 0, static_cast<off_t>(bytes));
  } while (failed != 0 && errno == EINTR);
  if (failed == 0) return Ok{};
  if (errno == EOPNOTSUPP || errno == ENOSYS) {
    if (Files().ftruncate(file, static_cast<off_t>(bytes)) == 0) return Ok{};
  }
  Failure failure = SystemFailure(fmt::format("cannot make a file of {},", FormatBytes(bytes)), path);
  const bool no_space = errno == ENOSPC || errno == EDQUOT;
  Files().unlink(path.c_str());  // gives back what was reserved so far
  return no_space ? NoDiskSpace(path.parent_path(), bytes, FreeBytes(path).value_or(0)) : failure;
}

}  // namespace

uint64_t TapCache::Need(std::span<const uint64_t> entry_bytes) {
  uint64_t need = kHeaderBytes + entry_bytes.size() * sizeof(Record);
  for (const uint64_t bytes : entry_bytes) need += AlignUp(bytes);
  return need;
}

Path TapCache::FolderOf(const Path& dir, const TapCacheKey& key) { return dir / HashText(key.description); }

TapCache::TapCache(Path folder, const TapCacheKey& key, std::vector<uint64_t> entry_bytes)
    : folder_(std::move(folder)),
      index_path_(folder_ / "index"),
      taps_path_(folder_ / "taps"),
      description_(key.description),
      salt_(HashOf(key.description, 1)),
      entry_bytes_(std::move(entry_bytes)) {
  begins_.reserve(entry_bytes_.size());
  for (const uint64_t bytes : entry_bytes_) {
    begins_.push_back(taps_bytes_);
    taps_bytes_ += AlignUp(bytes);
  }
  checksums_.assign(entry_bytes_.size(), kAbsent);
}

TapCache::~TapCache() {
  for (const int file : {taps_, index_, lock_}) {  // the lock last
    if (file >= 0) ::close(file);
  }
}

Status TapCache::Check(const Path& dir, uint64_t need_bytes, uint64_t limit_bytes) {
  return CheckTapCacheRoom(dir, {}, need_bytes, limit_bytes);
}

Result<std::unique_ptr<TapCache>> TapCache::Open(const Path& dir, const TapCacheKey& key,
                                                 std::vector<uint64_t> entry_bytes, uint64_t limit_bytes) {
  RUNG_CHECK(key.description.size() <= kMaxKeyBytes, "tap cache: the key's text is too long");
  const uint64_t need = Need(entry_bytes);
  std::unique_ptr<TapCache> cache(new TapCache(FolderOf(dir, key), key, std::move(entry_bytes)));
  // Before anything is made: a refusal leaves no trace.
  if (Status room = CheckTapCacheRoom(dir, cache->folder_, need, limit_bytes); !room.ok())
    return room.failure();
  const Result<int> lock = LockTapCache(cache->folder_);
  if (!lock.ok()) return lock.failure();
  cache->lock_ = lock.value();
  const Result<Evicted> evicted = MakeTapCacheRoom(dir, cache->folder_, need, limit_bytes);
  if (!evicted.ok()) return evicted.failure();
  if (evicted.value().count > 0) {
    cache->note_ = fmt::format("tap cache {}: removed {} other{} that no run uses, {}, to make room",
                               dir.string(), evicted.value().count, evicted.value().count == 1 ? "" : "s",
                               FormatBytes(evicted.value().bytes));
  }
  Result<std::string> mismatch = cache->Mismatch();
  if (!mismatch.ok()) return mismatch.failure();
  if (mismatch.value().empty()) {
    if (Status status = cache->LoadRecords(); !status.ok()) return status.failure();
  } else {
    if (mismatch.value() != kNew) {
      cache->note_ +=
          fmt::format("{}tap cache {}: discarded and made anew, because {}", cache->note_.empty() ? "" : "; ",
                      cache->folder_.string(), mismatch.value());
    }
    if (Status status = cache->Make(); !status.ok()) return status.failure();
  }
  return cache;
}

std::string TapCache::Header() const {
  HeaderStart start{};
  std::memcpy(start.magic, kTapCacheMagic.data(), sizeof start.magic);
  start.version = kVersion;
  start.key_bytes = static_cast<uint32_t>(description_.size());
  start.entries = entry_bytes_.size();
  start.taps_bytes = taps_bytes_;
  start.layout = HashOf(std::as_bytes(std::span(entry_bytes_)), 0);
  std::string header(kHeaderBytes, '\0');
  std::memcpy(header.data(), &start, sizeof start);
  description_.copy(header.data() + sizeof start, description_.size());
  return header;
}

Result<std::string> TapCache::Mismatch() {
  for (const auto& [file, path] : {std::pair(&index_, index_path_), std::pair(&taps_, taps_path_)}) {
    *file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (*file < 0 && errno != ENOENT) {
      return SystemFailure("cannot open the tap cache's", path);
    }
  }
  if (index_ < 0 && taps_ < 0) return std::string(kNew);
  if (index_ < 0 || taps_ < 0) return std::string("one of its files is missing");
  struct stat index {};
  struct stat taps {};
  if (::fstat(index_, &index) != 0 || ::fstat(taps_, &taps) != 0) {
    return SystemFailure("cannot read the sizes of the files in", folder_);
  }
  if (index.st_size < static_cast<off_t>(kHeaderBytes)) return std::string("its index is truncated");

  std::string found(kHeaderBytes, '\0');
  Status read = ReadAll(index_, 0, std::as_writable_bytes(std::span(found)), index_path_, ExitCode::kFailed);
  if (!read.ok()) return read.failure();
  const std::string expected = Header();
  // The header is compared as a whole; what differs only decides the words.
  if (found != expected) {
    HeaderStart start;
    std::memcpy(&start, found.data(), sizeof start);
    if (std::memcmp(start.magic, kTapCacheMagic.data(), sizeof start.magic) != 0)
      return std::string("its index is damaged");
    if (start.version != kVersion) return fmt::format("its format has version {}", start.version);
    if (found.substr(sizeof start) != expected.substr(sizeof start)) {
      return std::string("it was made from another model, data or options");
    }
    return std::string("its examples have other sizes, or its index is damaged");
  }
  if (static_cast<uint64_t>(index.st_size) != kHeaderBytes + entry_bytes_.size() * sizeof(Record) ||
      static_cast<uint64_t>(taps.st_size) != taps_bytes_) {
    return std::string("its files do not have the right size");
  }
  return std::string();
}

// Nothing here needs to reach the disk in any order: whatever mixture of old and new a loss of power leaves,
// headers, seals and checksums tell.
Status TapCache::Make() {
  for (const auto& [file, path] : {std::pair(&index_, index_path_), std::pair(&taps_, taps_path_)}) {
    if (*file >= 0) ::close(std::exchange(*file, -1));
    // Removed rather than emptied: the old bytes are gone, whatever becomes of the new ones.
    Files().unlink(path.c_str());
  }
  for (const auto& [file, path] : {std::pair(&index_, index_path_), std::pair(&taps_, taps_path_)}) {
    *file = Files().open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (*file < 0) return SystemFailure("cannot create the tap cache's", path);
  }
  std::string index = Header();
  index.resize(Need(entry_bytes_) - taps_bytes_, '\0');  // records of zeros: all absent
  // First of all it must be known for a cache: what is none is never removed.
  Status written = WriteAll(index_, 0, std::as_bytes(std::span(index)), index_path_);
  return written.ok() ? Reserve(taps_, taps_bytes_, taps_path_) : written;
}

Status TapCache::LoadRecords() {
  std::vector<Record> records(entry_bytes_.size());
  Status read = ReadAll(index_, kHeaderBytes, std::as_writable_bytes(std::span(records)), index_path_,
                        ExitCode::kFailed);
  if (!read.ok()) return read;
  int64_t present = 0;
  for (int64_t i = 0; i < entries(); ++i) {
    const Record& record = records[static_cast<size_t>(i)];
    if (record.checksum == kAbsent || record.seal != SealOf(i, record.checksum)) continue;
    checksums_[static_cast<size_t>(i)] = record.checksum;
    ++present;
  }
  complete_ = present;
  return Ok{};
}

// Tells a whole record from zeros, from half a record and from one of another entry or key.
uint64_t TapCache::SealOf(int64_t entry, uint64_t checksum) const {
  const uint64_t words[] = {static_cast<uint64_t>(entry), checksum};
  return HashOf(std::as_bytes(std::span(words)), salt_);
}

Status TapCache::WriteRecord(int64_t entry, uint64_t checksum) {
  const Record record{checksum, checksum == kAbsent ? 0 : SealOf(entry, checksum)};
  return WriteAll(index_, kHeaderBytes + static_cast<uint64_t>(entry) * sizeof(Record),
                  std::as_bytes(std::span(&record, 1)), index_path_);
}

void TapCache::Forget(int64_t entry) {
  uint64_t& checksum = checksums_[static_cast<size_t>(entry)];
  if (std::exchange(checksum, kAbsent) != kAbsent) complete_.fetch_sub(1, std::memory_order_relaxed);
  // Should this fail, the record is found again by the next run, which will find the damage again too.
  static_cast<void>(WriteRecord(entry, kAbsent).ok());
}

namespace {

template <class Byte>
void CheckSizes(std::span<const std::span<Byte>> parts, uint64_t bytes) {
  uint64_t sum = 0;
  for (const std::span<Byte> part : parts) sum += part.size();
  RUNG_CHECK(sum == bytes, "tap cache: the parts must have as many bytes as the entry");
}

// Zero says that an entry is absent.
uint64_t NotZero(uint64_t checksum) { return checksum == 0 ? 1 : checksum; }

}  // namespace

Status TapCache::ReadParts(int64_t entry, std::span<const std::span<std::byte>> parts,
                           uint64_t* checksum) const {
  Checksum sum(Checksum::SeedOf(salt_, static_cast<uint64_t>(entry)));
  uint64_t offset = begins_[static_cast<size_t>(entry)];
  for (std::span<std::byte> part : parts) {
    while (!part.empty()) {
      const std::span<std::byte> chunk = part.first(std::min(part.size(), kChunkBytes));
      if (Status status = ReadAll(taps_, offset, chunk, taps_path_, ExitCode::kFailed); !status.ok())
        return status;
      sum.Add(chunk);
      offset += chunk.size();
      part = part.subspan(chunk.size());
    }
  }
  *checksum = NotZero(sum.Finish());
  return Ok{};
}

Status TapCache::Read(int64_t entry, std::span<const std::span<std::byte>> parts) {
  RUNG_CHECK(entry >= 0 && entry < entries(), "tap cache: no such entry");
  CheckSizes(parts, bytes(entry));
  if (!Has(entry)) {
    return Failure{fmt::format("{}: entry {} is not there", taps_path_.string(), entry), ExitCode::kFailed};
  }
  uint64_t checksum = kAbsent;
  Status status = ReadParts(entry, parts, &checksum);
  if (status.ok() && checksum == checksums_[static_cast<size_t>(entry)]) return status;
  Forget(entry);
  return Failure{fmt::format("{}: entry {} ({} bytes at byte {}) {}: it must be computed again",
                             taps_path_.string(), entry, bytes(entry), begins_[static_cast<size_t>(entry)],
                             status.ok() ? "is damaged: its checksum does not fit"
                                         : fmt::format("cannot be read ({})", status.failure().message)),
                 ExitCode::kFailed};
}

Status TapCache::WriteParts(int64_t entry, std::span<const std::span<const std::byte>> parts,
                            uint64_t* checksum) {
  Checksum sum(Checksum::SeedOf(salt_, static_cast<uint64_t>(entry)));
  uint64_t offset = begins_[static_cast<size_t>(entry)];
  for (std::span<const std::byte> part : parts) {
    while (!part.empty()) {
      const std::span<const std::byte> chunk = part.first(std::min(part.size(), kChunkBytes));
      sum.Add(chunk);
      if (Status status = WriteAll(taps_, offset, chunk, taps_path_); !status.ok()) return status;
      offset += chunk.size();
      part = part.subspan(chunk.size());
    }
  }
  *checksum = NotZero(sum.Finish());
  return Ok{};
}

Status TapCache::Write(int64_t entry, std::span<const std::span<const std::byte>> parts) {
  RUNG_CHECK(entry >= 0 && entry < entries(), "tap cache: no such entry");
  CheckSizes(parts, bytes(entry));
  // First, so that a kill between the two writes leaves an absent entry and not a damaged one.
  if (Has(entry)) Forget(entry);
  uint64_t checksum = kAbsent;
  if (Status status = WriteParts(entry, parts, &checksum); !status.ok()) return status;
  if (Status status = WriteRecord(entry, checksum); !status.ok()) return status;
  checksums_[static_cast<size_t>(entry)] = checksum;
  complete_.fetch_add(1, std::memory_order_relaxed);
  return Ok{};
}

void TapCache::Expect(int64_t entry) const {
  RUNG_CHECK(entry >= 0 && entry < entries(), "tap cache: no such entry");
  // One call reads ahead no more than the device's own limit; what is asked beyond it is dropped.
  for (uint64_t done = 0; done < bytes(entry); done += kChunkBytes) {
    const uint64_t piece = std::min<uint64_t>(bytes(entry) - done, kChunkBytes);
    const uint64_t begin = begins_[static_cast<size_t>(entry)] + done;
    ::posix_fadvise(taps_, static_cast<off_t>(begin), static_cast<off_t>(piece), POSIX_FADV_WILLNEED);
  }
}

Status TapCache::Sync() {
  if (Files().fsync(taps_) != 0) return SystemFailure("cannot sync", taps_path_);
  if (Files().fsync(index_) != 0) return SystemFailure("cannot sync", index_path_);
  return SyncFolder(folder_);
}

}  // namespace rung::model
