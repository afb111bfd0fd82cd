// A data set from its files to token ids: read in pieces, encoded on all cores, in the order of the files,
// and kept in memory or in a cache on disk. What is in memory at once is bounded whatever the files' size.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "data/data_files.h"
#include "data/encode.h"
#include "data/examples.h"
#include "data/reader.h"
#include "data/token_cache.h"

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
  // Nobody asked for that folder: when it cannot be used, tokens are kept in memory and a note says so.
  bool cache_is_default = false;
  uint64_t cache_limit = kCacheLimit;  // bytes of all its files: TidyCache
  // Names tokenizer and template, for the cache's key.
  std::string encoder_identity;
  int threads = 1;
  // Called between pieces with the bytes of the files read so far, and of all of them. May be empty.
  std::function<void(uint64_t done, uint64_t total)> on_progress;
  // When it becomes true, LoadDataset stops: a failure or an Error with kInterrupted, nothing half-written.
  const std::atomic<bool>* interrupt = nullptr;
};

struct Dataset {
  Examples examples;
  EncodeReport report;
  std::vector<std::string> bad_rows;  // "file:row: what", of the rows that were allowed to be bad
  // Of the cache: its file, whether it was there, and remarks for the user.
  Path cache_file;
  bool cached = false;
  std::vector<std::string> notes;
};

// Weights are applied, but to kValid: an example may be in `examples` more than once. `report` counts each
// record once. Fails when no record has a target, or the weights leave none.
Result<Dataset> LoadDataset(const DatasetOptions& options, const Encoder& encoder);

}  // namespace rung::data
