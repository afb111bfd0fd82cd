// What became of the records that were encoded, for the user.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rung::data {

// What became of one record.
struct RecordReport {
  std::string dropped;  // why it gave no example; empty: it gave some
  std::string special;  // Encoder::SpecialText
  bool truncated = false;
  int64_t rows = 0, targets = 0;
};

struct EncodeReport {
  struct Dropped {
    int64_t row = 0;
    std::string reason;
    std::string file = {};  // where there are several
  };
  // Records that gave no example: the first so many by name, and how many in all.
  static constexpr size_t kListed = 1000;
  std::vector<Dropped> dropped;
  int64_t dropped_count = 0;
  int64_t records = 0;    // that were encoded, the dropped ones included
  int64_t truncated = 0;  // records cut or split because of max_length
  int64_t rows = 0;       // rows of all examples in batches: ids less one each
  int64_t targets = 0;    // learned ids of all examples
  // Records whose plain text holds the text of a special token, and the first such token.
  int64_t special_texts = 0;
  std::string special = {};
  void Add(RecordReport record, int64_t row, const std::string& file = {});
};

}  // namespace rung::data
