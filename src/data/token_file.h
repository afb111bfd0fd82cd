// Examples on disk: docs/formats/tokens.md.
#pragma once

#include <atomic>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "data/examples.h"
#include "io/sha256.h"

namespace rung::data {

// Written to `temporary`, as AtomicFile has it, and renamed when whole; without Commit there is no file.
class TokenFileWriter {
 public:
  static Result<TokenFileWriter> Create(const Path& path, const Path& temporary = {});
  Status Add(std::span<const TokenWord> words);  // one example
  // `notes`: a text that belongs to the examples.
  Status Commit(std::string_view notes);

 private:
  explicit TokenFileWriter(AtomicFile file) : file_(std::move(file)) {}
  Status Flush();

  AtomicFile file_;
  io::Sha256 sum_;
  std::vector<TokenWord> buffer_;
  std::vector<int64_t> offsets_ = {0};
};

struct TokenFile {
  Examples examples;  // a mapping of the file
  std::string notes;
};
// Reads all of it once: a damaged file is a failure, an interrupt one with kInterrupted. The examples hold a
// shared lock on the file: TidyCache does not remove it. `interrupt` may be nullptr.
Result<TokenFile> OpenTokenFile(const Path& path, const std::atomic<bool>* interrupt = nullptr);

}  // namespace rung::data
