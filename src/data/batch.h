// What the compute side sees of data: packed tokens, no padding.
#pragma once

#include <cstdint>
#include <span>
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

// An id, and in the top bit whether predicting it is learned: how examples are stored.
using TokenWord = uint32_t;
inline constexpr TokenWord kLearnedBit = TokenWord{1} << 31;
inline TokenWord WordOf(int32_t id, bool learned) {
  return static_cast<TokenWord>(id) | (learned ? kLearnedBit : 0);
}
inline int32_t IdOf(TokenWord word) { return static_cast<int32_t>(word & ~kLearnedBit); }
inline bool IsLearned(TokenWord word) { return (word & kLearnedBit) != 0; }

// Several samples in N rows. Row n predicts target[n] (the next token of its own sample), -1: not learned.
struct Batch {
  std::vector<int32_t> ids, target, position;  // (N); positions restart at 0 in each sample
  std::vector<int64_t> starts;                 // first row of each sample, and N at the end
  std::vector<int64_t> records;                // the record of each sample
  int64_t rows() const { return static_cast<int64_t>(ids.size()); }
  int64_t target_count() const;
};

Batch MakeBatch(const std::vector<const Example*>& samples);
// Adds the rows of one sample; batch->starts begins with 0.
void AppendSample(std::span<const TokenWord> words, int64_t record, Batch* batch);

}  // namespace rung::data
