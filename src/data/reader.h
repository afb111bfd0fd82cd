// Records of a data file: .jsonl, .json (a list), .csv, .tsv, .txt, each also packed as .gz or .zst.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "data/record.h"
#include "data/rows.h"

namespace rung::data {

struct ReadOptions {
  RecordOptions record;
  SampleBy sample_by = SampleBy::kLine;
  int64_t max_bad_rows = 0;  // more bad rows than this stop the run; fewer are left out
  // Everything that decides what is read of a file, for the keys of caches.
  std::string Key() const;
};

// The record that a row of `reader` holds. The failure's message says what is wrong, not where.
Result<Record> RecordOfRow(const RawRow& row, const RowReader& reader, const ReadOptions& options);

// What is common to the rows of one file: bad ones are counted, and all records have one format.
class FileCheck {
 public:
  FileCheck(std::string name, int64_t max_bad_rows) : name_(std::move(name)), allowed_(max_bad_rows) {}

  // The record, or nothing when the row is bad; that is counted, and told to `bad` ("file:row: what") when it
  // is given and so many bad rows are allowed. In the order of the file.
  std::optional<Record> Take(Result<Record> parsed, int64_t row, std::vector<std::string>* bad);
  // There are more bad rows than allowed: no need to use what is read.
  bool failed() const { return bad_rows_ > allowed_; }
  // At the end of the file. The failure names the file and the row of the first bad one, and says how many
  // more there are.
  Status Finish() const;
  const std::string& name() const { return name_; }
  int64_t records() const { return records_; }
  int64_t bad_rows() const { return bad_rows_; }

 private:
  std::string name_, first_bad_;
  int64_t allowed_ = 0, bad_rows_ = 0, records_ = 0, first_row_ = 0;
  Format format_ = Format::kAuto;
};

// All records of a file, in order; Record::row is the line. `bad`, if given, receives "file:row: what" of
// each row left out.
Result<std::vector<Record>> ReadRecords(const Path& path, const ReadOptions& options = {},
                                        std::vector<std::string>* bad = nullptr);
// The same for bytes already in memory; `name` stands for the file in messages.
Result<std::vector<Record>> ParseRecords(std::string_view bytes, const std::string& name, FileKind kind,
                                         const ReadOptions& options = {},
                                         std::vector<std::string>* bad = nullptr);

}  // namespace rung::data
