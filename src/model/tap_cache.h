// Tapped hidden states on disk: from the second epoch on the frozen backbone need not run.
//
//   <dir>/<16 hex digits of the key's hash>/
//     lock    held while a run has the cache open
//     index   4096 bytes of header with the key's text, then 16 bytes an entry: checksum, seal
//     taps    entry after entry, each at a multiple of 4096
//
// One entry an example: its taps do not depend on what it is packed with. Format: docs/formats/tap_cache.md.
// What the store answers is what was written, or nothing: every entry has a checksum, compared when it is
// read, so that damage, a kill or a loss of power cost computation and never give wrong numbers.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"

namespace rung::model {

// Canonical text of all that decides the contents: model, data, template, taps, storage, compute type,
// instruction set. At most TapCache::kMaxKeyBytes: what can be long goes in as its HashText.
struct TapCacheKey {
  std::string description;
};

// Calls from several threads are safe when they are for different entries. Entries must be in [0,entries())
// and bytes as many as the entry has.
class TapCache {
 public:
  static constexpr size_t kMaxKeyBytes = 4096 - 40;

  // Bytes on disk of the whole store: exactly the sizes of its files.
  static uint64_t Need(std::span<const uint64_t> entry_bytes);
  static Path FolderOf(const Path& dir, const TapCacheKey& key);

  // Whether a store of this need may and can be made in `dir`: see CheckTapCacheRoom. Writes nothing.
  static Status Check(const Path& dir, uint64_t need_bytes, uint64_t limit_bytes);
  // Makes the store or finds it again, and locks it for this object's life. Entry i has entry_bytes[i] bytes.
  // The disk is reserved here, where the file system can: a full disk shows now, not hours later. `limit` is
  // of all stores in `dir` together: those of other keys that no run uses are removed for it and for the
  // disk, those used longest ago first. Refuses (kUsage) a need above the limit and a store in use; fails
  // (kFailed) without space or a folder that can be written.
  static Result<std::unique_ptr<TapCache>> Open(const Path& dir, const TapCacheKey& key,
                                                std::vector<uint64_t> entry_bytes, uint64_t limit_bytes);
  TapCache(const TapCache&) = delete;
  TapCache& operator=(const TapCache&) = delete;
  ~TapCache();

  const Path& folder() const { return folder_; }
  const std::string& note() const { return note_; }  // what was removed, and why; empty: nothing

  int64_t entries() const { return static_cast<int64_t>(entry_bytes_.size()); }
  uint64_t bytes(int64_t entry) const { return entry_bytes_[static_cast<size_t>(entry)]; }
  bool Has(int64_t entry) const { return checksums_[static_cast<size_t>(entry)] != kAbsent; }
  int64_t complete() const { return complete_.load(std::memory_order_relaxed); }  // entries present

  // The entry's bytes, spread over the parts in their order (one part a tap, say). An entry that is absent or
  // damaged is a failure and is absent from then on; what the parts then hold is garbage.
  Status Read(int64_t entry, std::span<const std::span<std::byte>> parts);

  // Present after success. After a failure (disk full, say) it is absent: the caller can go on without it.
  Status Write(int64_t entry, std::span<const std::span<const std::byte>> parts);

  // A hint: the system may begin to read the entry from disk. Returns before it has.
  void Expect(int64_t entry) const;

  // Makes what was written survive a loss of power. At the end of an epoch.
  Status Sync();

 private:
  static constexpr uint64_t kAbsent = 0;  // no entry has this checksum

  TapCache(Path folder, const TapCacheKey& key, std::vector<uint64_t> entry_bytes);
  std::string Header() const;      // the index's first 4096 bytes, as they should be
  Result<std::string> Mismatch();  // opens the files; what does not fit in them, or empty
  Status Make();                   // both files anew, all entries absent
  Status LoadRecords();
  Status WriteRecord(int64_t entry, uint64_t checksum);
  void Forget(int64_t entry);
  Status ReadParts(int64_t entry, std::span<const std::span<std::byte>> parts, uint64_t* checksum) const;
  Status WriteParts(int64_t entry, std::span<const std::span<const std::byte>> parts, uint64_t* checksum);
  uint64_t SealOf(int64_t entry, uint64_t checksum) const;

  Path folder_, index_path_, taps_path_;
  std::string description_, note_;
  uint64_t salt_;  // a second hash of the key's text: bytes of another key never fit, even in the same folder
  std::vector<uint64_t> entry_bytes_, begins_;
  uint64_t taps_bytes_ = 0;
  std::vector<uint64_t> checksums_;  // kAbsent or the entry's
  std::atomic<int64_t> complete_ = 0;
  int lock_ = -1, index_ = -1, taps_ = -1;  // file descriptors
};

}  // namespace rung::model
