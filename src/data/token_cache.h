// The folder of cached tokens: which file holds a data set's, and how large the folder may grow.
// docs/formats/tokens.md.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "base/files.h"
#include "base/result.h"
#include "data/data_files.h"

namespace rung::data {

// Data sets that unpack to less are kept in memory when no folder is asked for: encoding them again takes
// seconds.
inline constexpr uint64_t kCacheFromBytes = uint64_t{32} << 20;
// Where tokens are kept when nothing else is said: $RUNG_CACHE, $XDG_CACHE_HOME/rung or ~/.cache/rung; empty
// when the data set is small or there is no such folder. Of packed files it unpacks up to kCacheFromBytes.
Path DefaultCache(std::span<const DataFile> files);

// What the files of a cache may take together, when nothing else is said.
inline constexpr uint64_t kCacheLimit = uint64_t{20} << 30;

// "<32 hex digits>.tokens": the name of a data set's tokens in a cache. `settings`: whatever besides the
// files' bytes decides them; the sources of this program that make tokens are added. on_bytes: as of
// io::Sha256OfFile.
Result<std::string> TokenFileName(std::span<const DataFile> files, std::span<const std::string> settings,
                                  const std::function<bool(uint64_t bytes)>& on_bytes);

// The temporary name under which this process makes the file; TidyCache removes it once the process is dead.
Path OwnTokenFile(const Path& path);

struct Tidied {
  int64_t files = 0;  // whole ones, that were removed for the limit
  uint64_t bytes = 0;
};
// Removes what dead processes left half-written, and of whole files those that were used longest ago until
// the rest is within the limit. Never one in use (OpenTokenFile's lock), nor a file of another name. Where
// the file system has no locks nothing is removed. What cannot be removed stays.
Tidied TidyCache(const Path& folder, uint64_t limit);

// Makes the file the one used last. A folder that cannot be written stays as it is.
void MarkUsed(const Path& path);

}  // namespace rung::data
