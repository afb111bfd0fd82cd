// What the compute side sees of data: packed tokens, no padding.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace rung::data {

// One training or evaluation sample, already token ids.
struct Example {
  std::vector<int32_t> ids;
  std::vector<uint8_t> learn;  // (ids): 1 where predicting this token counts in the loss; learn[0] is 0
  int64_t record = 0;          // index in the data set
  int64_t target_count() const;
};

// Several samples in N rows. Row n predicts target[n] (the next token of its own sample), -1: not learned.
struct Batch {
  std::vector<int32_t> ids, target, position;  // (N); positions restart at 0 in each sample
  std::vector<int64_t> starts;                 // first row of each sample, and N at the end
  std::vector<int64_t> records;                // the record of each sample
  int64_t rows() const { return static_cast<int64_t>(ids.size()); }
  int64_t target_count() const;
};

Batch MakeBatch(const std::vector<const Example*>& samples);

}  // namespace rung::data
