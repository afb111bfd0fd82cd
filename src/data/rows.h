// The rows of a data file one after another, not yet read as records. A bad row is a row that says so;
// reading goes on behind it. What makes the rest of a file unreadable is a failure.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "data/byte_source.h"

namespace rung::data {

enum class FileKind : uint8_t { kJsonl, kJson, kCsv, kTsv, kText };
// By the extension in small or capital letters, that of a compressed file aside: .json, .csv, .tsv, .txt;
// anything else is taken for one JSON object a line.
FileKind KindOf(const Path& path);

// What one record of a .txt file is.
enum class SampleBy : uint8_t { kLine, kParagraph, kDocument };

struct RawRow {
  int64_t row = 0;                  // the line it begins in, from 1; of a .json list the element
  std::string text;                 // JSON, or of a .txt file the text
  std::vector<std::string> fields;  // of .csv and .tsv, as many as columns
  std::string error;                // not empty: what is wrong with it; the rest is of no use
};

// A row larger than this is a mistake (a whole file on one line), not a record.
inline constexpr size_t kMaxRowBytes = size_t{16} << 20;

class RowReader {
 public:
  // `taken`: as of ByteSource::Open.
  static Result<std::unique_ptr<RowReader>> Open(const Path& path, SampleBy sample_by,
                                                 uint64_t* taken = nullptr);
  // `name` stands in messages.
  static Result<std::unique_ptr<RowReader>> Over(std::unique_ptr<ByteSource> source, std::string name,
                                                 FileKind kind, SampleBy sample_by);
  virtual ~RowReader() = default;

  // False at the end; `row` is overwritten. Blank lines are no rows.
  virtual Result<bool> Next(RawRow* row) = 0;
  FileKind kind() const { return kind_; }
  const std::string& name() const { return name_; }
  // Of .csv and .tsv: the header. Columns without a name (pandas writes its index in one) are left out, here
  // and in the rows' fields.
  const std::vector<std::string>& columns() const { return columns_; }

 protected:
  FileKind kind_ = FileKind::kJsonl;
  std::string name_;
  std::vector<std::string> columns_;
};

}  // namespace rung::data
