// Comma-separated values as RFC 4180 has them: fields in quotes may hold separators, line ends and doubled
// quotes. A quote inside a field that does not begin with one is an ordinary character.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "data/byte_reader.h"

namespace rung::data {

class CsvReader {
 public:
  CsvReader(ByteReader reader, char separator) : reader_(std::move(reader)), separator_(separator) {}

  // The next row that is no blank line; false at the end. `line`: where it begins. `error`, when not empty:
  // why it is none; the next call goes on behind it. A quoted field that does not end is a failure (":line:
  // what"), because everything behind it is of no row.
  Result<bool> Next(std::vector<std::string>* fields, int64_t* line, std::string* error);

 private:
  enum class After { kField, kRow, kEnd, kBroken };
  After Field(std::string* field, std::string* error);
  After Quoted(std::string* field, std::string* error);
  After Plain(std::string* field);
  void Keep(std::string* field, int c);
  void SkipLine();

  ByteReader reader_;
  char separator_;
  int64_t line_ = 1;
  uint64_t size_ = 0;  // bytes of this row
};

}  // namespace rung::data
