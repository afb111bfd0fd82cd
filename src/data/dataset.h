// A data set from its files to token ids: read in pieces, encoded on all cores, in the order of the files,
// and kept in memory or in a cache on disk. What is in memory at once is bounded whatever the files' size.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "data/data_files.h"
#include "data/encode.h"
#include "data/examples.h"
#include "data/reader.h"

namespace rung::data {

// A record's content decides on which side it falls, so that neither order nor duplicates move one across.
enum class Part : uint8_t { kAll, kTrain, kValid };
// Whether a record of this ContentHash is held out.
bool IsHeldOut(uint64_t content_hash, double valid_fraction);

struct DatasetOptions {
  std::vector<DataFile> files;
  ReadOptions read;
  Part part = Part::kAll;
  double valid_fraction = 0.0;  // of kTrain and kValid
  // Folder of cached tokens; empty: in memory.
  Path cache;
  // Names tokenizer and template, for the cache's key.
  std::string encoder_identity;
  int threads = 1;
  // Called between pieces with the bytes of rows read so far. May be empty.
  std::function<void(uint64_t bytes)> on_progress;
};

struct Dataset {
  Examples examples;
  EncodeReport report;
  std::vector<std::string> bad_rows;  // "file:row: what", of the rows that were allowed to be bad
  // Of the cache: its file, whether it was there, and a remark for the user (empty: none).
  Path cache_file;
  bool cached = false;
  std::string note;
};

// Weights are applied, but to kValid: an example may be in `examples` more than once. `report` counts each
// record once. Fails when no record has a target.
Result<Dataset> LoadDataset(const DatasetOptions& options, const Encoder& encoder);

// Data sets below this are kept in memory when no folder is asked for: encoding them again takes seconds.
inline constexpr uint64_t kCacheFromBytes = uint64_t{32} << 20;
// Where tokens are kept when nothing else is said: $RUNG_CACHE, $XDG_CACHE_HOME/rung or ~/.cache/rung; empty
// when the data set is small or there is no such folder.
Path DefaultCache(std::span<const DataFile> files);

}  // namespace rung::data
