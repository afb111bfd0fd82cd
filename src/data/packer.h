// Which samples go into which micro-batch of an epoch.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "data/batch.h"
#include "data/examples.h"

namespace rung::data {

// Indices of examples, batch by batch; every example is in exactly one batch.
struct EpochPlan {
  std::vector<std::vector<int64_t>> batches;
  int64_t rows = 0;    // of all batches together
  int64_t tokens = 0;  // rows that one batch may have

  // Share of the rows paid for that are used, from 0 to 1. What is left of the last batch does not count: it
  // is due to the size of the data set.
  double Fill() const;
  int64_t last_rows = 0;  // rows of the last batch
};

// Rows of each example in a batch: its ids less one.
std::vector<int64_t> RowsOf(const Examples& examples);

// An epoch in random order: a pure function of its arguments. Batches have at most `tokens` rows.
//
// The waiting samples are taken in shuffled order; the end of a batch goes to those of the next kPackWindow
// whose lengths fill it best. The oldest always opens the next batch: none waits for ever, and a batch stays
// a random draw but for its last few samples.
//
// An example with more rows than `tokens` is a failure.
Result<EpochPlan> PlanEpoch(std::span<const int64_t> rows, int64_t tokens, uint64_t seed, uint32_t epoch);

// In the given order, for evaluation: a batch ends where the next sample does not fit.
Result<EpochPlan> PlanInOrder(std::span<const int64_t> rows, int64_t tokens);

// Samples looked at to fill the end of a batch: enough that some length fits most gaps, few enough that a
// batch does not collect one length from the whole epoch.
inline constexpr int64_t kPackWindow = 128;

// One batch of a plan, built in microseconds.
Batch MakeBatch(const EpochPlan& plan, int64_t batch, const Examples& examples);

}  // namespace rung::data
