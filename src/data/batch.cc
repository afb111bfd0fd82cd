#include "data/batch.h"

#include <algorithm>

#include "base/error.h"

namespace rung::data {

int64_t Example::target_count() const {
  return std::count_if(learn.begin(), learn.end(), [](uint8_t learned) { return learned != 0; });
}

int64_t Batch::target_count() const {
  return std::count_if(target.begin(), target.end(), [](int32_t id) { return id >= 0; });
}

Batch MakeBatch(const std::vector<const Example*>& samples) {
  int64_t N = 0;
  for (const Example* sample : samples) N += static_cast<int64_t>(sample->ids.size()) - 1;

  Batch batch;
  for (std::vector<int32_t>* rows : {&batch.ids, &batch.target, &batch.position}) {
    rows->reserve(static_cast<size_t>(N));
  }
  for (const Example* sample : samples) {
    const size_t L = sample->ids.size();
    RUNG_CHECK(L >= 2 && sample->learn.size() == L, "a sample has two ids or more, and a mark for each");
    RUNG_CHECK(sample->learn[0] == 0, "nothing predicts the first id of a sample");
    batch.starts.push_back(batch.rows());
    batch.records.push_back(sample->record);
    // The last id predicts nothing, hence it has no row.
    for (size_t i = 0; i + 1 < L; ++i) {
      batch.ids.push_back(sample->ids[i]);
      batch.target.push_back(sample->learn[i + 1] ? sample->ids[i + 1] : -1);
      batch.position.push_back(static_cast<int32_t>(i));
    }
  }
  batch.starts.push_back(batch.rows());
  return batch;
}

}  // namespace rung::data
