// Data sets as .jsonl files: one JSON record a line.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/files.h"
#include "base/result.h"
#include "data/record.h"

namespace rung::data {

struct JsonlOptions {
  int64_t max_bad_lines = 0;  // more bad lines than this stop the run; fewer are left out
};

// All records of a file, in order; Record::row is the line. A byte order mark, CRLF line ends and blank lines
// are accepted; all records have one shape. A failure names the file, the row of the first bad line and how
// many more there are. `bad`, if given, receives "file:row: what" of each line left out.
Result<std::vector<Record>> ReadJsonl(const Path& path, const JsonlOptions& options = {},
                                      std::vector<std::string>* bad = nullptr);

// The same for bytes already in memory; `name` stands for the file in messages.
Result<std::vector<Record>> ParseJsonl(std::string_view bytes, const std::string& name,
                                       const JsonlOptions& options = {},
                                       std::vector<std::string>* bad = nullptr);

}  // namespace rung::data
