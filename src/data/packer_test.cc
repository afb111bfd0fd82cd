#include "data/packer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "data/reader.h"

namespace rung::data {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// English text has about 4.3 bytes a token; a chat template adds about 15.
std::vector<int64_t> BankingRows() {
  std::vector<int64_t> rows;
  for (const Record& record : ReadRecords("examples/banking/train.jsonl").OrThrow()) {
    const double bytes = static_cast<double>(record.prompt.size() + record.completion.size());
    rows.push_back(15 + std::llround(bytes / 4.3));
  }
  return rows;
}

std::vector<int64_t> LongTailedRows(size_t count, int64_t most) {
  std::mt19937 random(5);
  std::lognormal_distribution<double> length(5.0, 0.7);
  std::vector<int64_t> rows(count);
  for (int64_t& n : rows) n = std::clamp<int64_t>(std::llround(length(random)), 2, most);
  return rows;
}

// Every example once, no batch empty or over the limit, and the counts of the plan are true.
void ExpectValid(const EpochPlan& plan, const std::vector<int64_t>& rows, int64_t tokens) {
  std::vector<int> seen(rows.size());
  int64_t all = 0;
  for (const auto& batch : plan.batches) {
    EXPECT_FALSE(batch.empty());
    int64_t used = 0;
    for (int64_t example : batch) {
      ++seen.at(static_cast<size_t>(example));
      used += rows.at(static_cast<size_t>(example));
    }
    EXPECT_LE(used, tokens);
    all += used;
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 1), static_cast<int64_t>(rows.size()));
  EXPECT_EQ(plan.rows, all);
  EXPECT_EQ(plan.tokens, tokens);
}

double FillWithoutLast(const EpochPlan& plan, const std::vector<int64_t>& rows, int64_t tokens) {
  int64_t used = 0;
  for (size_t b = 0; b + 1 < plan.batches.size(); ++b) {
    for (int64_t example : plan.batches[b]) used += rows[static_cast<size_t>(example)];
  }
  return static_cast<double>(used) /
         static_cast<double>(tokens * static_cast<int64_t>(plan.batches.size() - 1));
}

TEST(PlanEpoch, FillsBatchesOfBankingRecords) {
  const std::vector<int64_t> rows = BankingRows();
  for (const int64_t tokens : {512, 2048}) {
    for (const uint32_t epoch : {0u, 1u, 2u}) {
      const EpochPlan plan = PlanEpoch(rows, tokens, 1, epoch).OrThrow();
      ExpectValid(plan, rows, tokens);
      const double fill = FillWithoutLast(plan, rows, tokens);
      EXPECT_GE(fill, 0.97) << tokens << " tokens, epoch " << epoch;
      EXPECT_DOUBLE_EQ(plan.Fill(), fill);
      if (epoch == 0) RecordProperty("fill_" + std::to_string(tokens), std::to_string(fill));
    }
  }
}

TEST(PlanEpoch, FillsBatchesOfLongTailedRecords) {
  for (const int64_t tokens : {512, 2048}) {
    const std::vector<int64_t> rows = LongTailedRows(3000, 512);
    const EpochPlan plan = PlanEpoch(rows, tokens, 1, 0).OrThrow();
    ExpectValid(plan, rows, tokens);
    EXPECT_GE(plan.Fill(), 0.95) << tokens;
  }
}

TEST(PlanEpoch, IsAPureFunctionOfItsArguments) {
  const std::vector<int64_t> rows = LongTailedRows(500, 512);
  const auto plan = [&](uint64_t seed, uint32_t epoch) {
    return PlanEpoch(rows, 600, seed, epoch).OrThrow().batches;
  };
  EXPECT_EQ(plan(1, 0), plan(1, 0));
  EXPECT_NE(plan(1, 0), plan(1, 1));
  EXPECT_NE(plan(1, 0), plan(2, 0));
}

// Lengths all equal leave nothing to pack: what comes out is the shuffle itself.
TEST(PlanEpoch, ShufflesEvenly) {
  const std::vector<int64_t> rows(8, 1);
  std::vector<std::vector<int>> at(8, std::vector<int>(8));
  constexpr int kEpochs = 4000;
  for (uint32_t epoch = 0; epoch < kEpochs; ++epoch) {
    const EpochPlan plan = PlanEpoch(rows, 8, 3, epoch).OrThrow();
    ASSERT_EQ(plan.batches.size(), 1u);
    for (size_t i = 0; i < 8; ++i) ++at[i][static_cast<size_t>(plan.batches[0][i])];
  }
  // 500 expected in each cell, standard deviation 21: five of them.
  for (const auto& row : at) {
    for (int count : row) EXPECT_NEAR(count, kEpochs / 8, 105);
  }
}

// Best fit alone would train on the long samples first and on the short ones last.
TEST(PlanEpoch, KeepsLengthsSpreadOverTheEpoch) {
  const std::vector<int64_t> rows = LongTailedRows(4000, 512);
  const EpochPlan plan = PlanEpoch(rows, 2048, 1, 0).OrThrow();
  const auto mean = [&](size_t begin, size_t end) {
    int64_t sum = 0, count = 0;
    for (size_t b = begin; b < end; ++b) {
      for (int64_t example : plan.batches[b]) sum += rows[static_cast<size_t>(example)], ++count;
    }
    return static_cast<double>(sum) / static_cast<double>(count);
  };
  const size_t half = plan.batches.size() / 2;
  EXPECT_NEAR(mean(0, half) / mean(half, plan.batches.size()), 1.0, 0.1);
}

TEST(PlanEpoch, RefusesASampleLongerThanABatch) {
  Result<EpochPlan> plan = PlanEpoch(std::vector<int64_t>{5, 11, 3}, 10, 1, 0);
  ASSERT_FALSE(plan.ok());
  EXPECT_THAT(plan.failure().message, HasSubstr("example 1 has 11 rows, a micro-batch holds 10 tokens"));
  EXPECT_TRUE(PlanEpoch(std::vector<int64_t>{5, 10, 3}, 10, 1, 0).ok());
  EXPECT_FALSE(PlanInOrder(std::vector<int64_t>{11}, 10).ok());
}

TEST(PlanEpoch, OfNothingHasNoBatch) {
  EXPECT_TRUE(PlanEpoch({}, 10, 1, 0).OrThrow().batches.empty());
  EXPECT_TRUE(PlanInOrder({}, 10).OrThrow().batches.empty());
}

TEST(PlanInOrder, KeepsTheOrder) {
  const std::vector<int64_t> rows = {4, 4, 4, 10, 1, 1};
  const EpochPlan plan = PlanInOrder(rows, 10).OrThrow();
  EXPECT_THAT(plan.batches,
              ElementsAre(ElementsAre(0, 1), ElementsAre(2), ElementsAre(3), ElementsAre(4, 5)));
  ExpectValid(plan, rows, 10);
  EXPECT_EQ(plan.last_rows, 2);
  EXPECT_DOUBLE_EQ(plan.Fill(), 22.0 / 30.0);
}

TEST(MakeBatchOfPlan, TakesThePlansExamples) {
  std::vector<Example> made;
  for (int32_t i = 0; i < 50; ++i) {
    made.push_back({std::vector<int32_t>(static_cast<size_t>(2 + i % 7), i), {}, i});
    made.back().learn.assign(made.back().ids.size(), 1);
    made.back().learn[0] = 0;
  }
  const Examples examples(made);
  const std::vector<int64_t> rows = RowsOf(examples);
  EXPECT_EQ(rows[6], 7);
  const EpochPlan plan = PlanEpoch(rows, 20, 9, 2).OrThrow();
  std::vector<int64_t> records;
  for (size_t b = 0; b < plan.batches.size(); ++b) {
    const Batch batch = MakeBatch(plan, static_cast<int64_t>(b), examples);
    EXPECT_LE(batch.rows(), 20);
    ASSERT_EQ(batch.starts.size(), batch.records.size() + 1);
    EXPECT_EQ(batch.starts.back(), batch.rows());
    // A sample's rows hold its own id and start at position 0; none sees another's.
    for (size_t s = 0; s < batch.records.size(); ++s) {
      for (int64_t n = batch.starts[s]; n < batch.starts[s + 1]; ++n) {
        EXPECT_EQ(batch.ids[static_cast<size_t>(n)], batch.records[s]);
        EXPECT_EQ(batch.target[static_cast<size_t>(n)], batch.records[s]);
        EXPECT_EQ(batch.position[static_cast<size_t>(n)], n - batch.starts[s]);
      }
      records.push_back(batch.records[s]);
    }
  }
  std::sort(records.begin(), records.end());
  std::vector<int64_t> all(50);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(records, all);
}

}  // namespace
}  // namespace rung::data
