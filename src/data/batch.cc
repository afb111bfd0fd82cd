#include "data/batch.h"

#include <algorithm>

#include "base/error.h"
#include "data/examples.h"

namespace rung::data {

int64_t Example::target_count() const {
  return std::count_if(learn.begin(), learn.end(), [](uint8_t learned) { return learned != 0; });
}

int64_t Batch::target_count() const {
  return std::count_if(target.begin(), target.end(), [](int32_t id) { return id >= 0; });
}

void AppendSample(std::span<const TokenWord> words, int64_t record, Batch* batch) {
  RUNG_CHECK(words.size() >= 2, "a sample has two ids or more");
  RUNG_CHECK(!IsLearned(words[0]), "nothing predicts the first id of a sample");
  batch->records.push_back(record);
  // The last id predicts nothing, hence it has no row.
  for (size_t i = 0; i + 1 < words.size(); ++i) {
    batch->ids.push_back(IdOf(words[i]));
    batch->target.push_back(IsLearned(words[i + 1]) ? IdOf(words[i + 1]) : -1);
    batch->position.push_back(static_cast<int32_t>(i));
  }
  batch->starts.push_back(batch->rows());
}

Batch MakeBatch(const std::vector<const Example*>& samples) {
  Batch batch;
  batch.starts = {0};
  for (const Example* sample : samples) AppendSample(WordsOf(*sample), sample->record, &batch);
  return batch;
}

}  // namespace rung::data
