#include "data/packer.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/rng.h"

namespace rung::data {
namespace {

// The end of a batch is chosen, not taken in order, once it is shorter than this many mean samples: with
// fewer the subsets are too few to fill it, with more the order matters less and less.
constexpr int64_t kChosenSamples = 3;

Status CheckRows(std::span<const int64_t> rows, int64_t tokens) {
  for (size_t i = 0; i < rows.size(); ++i) {
    RUNG_CHECK(rows[i] > 0, "a sample has at least one row");
    if (rows[i] <= tokens) continue;
    return UsageFailure(
        fmt::format("example {} has {} rows, a micro-batch holds {} tokens: raise --tokens to {} or more, "
                    "or lower --max-length to {}",
                    i, rows[i], tokens, rows[i], tokens + 1));
  }
  return Ok{};
}

// Fisher-Yates, a counter per swap.
std::vector<int64_t> Shuffled(size_t count, uint64_t seed, uint32_t epoch) {
  std::vector<int64_t> order(count);
  std::iota(order.begin(), order.end(), int64_t{0});
  const Rng rng(seed, Stream::kShuffle, epoch);
  for (size_t i = count; i > 1; --i) {
    std::swap(order[i - 1], order[rng.Below(i, static_cast<uint32_t>(i))]);
  }
  return order;
}

// Which of the lengths add up to `space`, or to the most below it: subset sum, a bit for each sum. Descending
// indices, so that they can be erased one after another. Of equal sums, the one found first, hence of older
// samples.
std::vector<size_t> FullestSubset(std::span<const int64_t> lengths, int64_t space) {
  const auto top = static_cast<size_t>(space), words = top / 64 + 1;
  // Row i: the sums of the first i lengths.
  std::vector<uint64_t> sums((lengths.size() + 1) * words);
  const auto has = [&](size_t row, size_t sum) {
    return (sums[row * words + sum / 64] >> (sum % 64) & 1) != 0;
  };
  sums[0] = 1;
  size_t rows = 0;
  while (rows < lengths.size() && !has(rows, top)) {
    const uint64_t* from = &sums[rows * words];
    uint64_t* to = &sums[++rows * words];
    std::copy(from, from + words, to);
    const auto length = static_cast<size_t>(lengths[rows - 1]), skip = length / 64, shift = length % 64;
    for (size_t w = skip; w < words; ++w) {
      to[w] |= from[w - skip] << shift;
      if (shift > 0 && w > skip) to[w] |= from[w - skip - 1] >> (64 - shift);
    }
  }
  size_t sum = top;
  while (!has(rows, sum)) --sum;
  std::vector<size_t> chosen;
  while (sum > 0) {
    size_t row = 0;
    while (!has(row, sum)) ++row;
    chosen.push_back(row - 1);
    sum -= static_cast<size_t>(lengths[row - 1]);
  }
  return chosen;
}

void Close(EpochPlan& plan, std::vector<int64_t> batch, int64_t used) {
  plan.batches.push_back(std::move(batch));
  plan.rows += used;
  plan.last_rows = used;
}

}  // namespace

double EpochPlan::Fill() const {
  const int64_t full = static_cast<int64_t>(batches.size()) - 1;
  if (full <= 0) return 1.0;
  return static_cast<double>(rows - last_rows) / static_cast<double>(full * tokens);
}

std::vector<int64_t> RowsOf(const Examples& examples) {
  std::vector<int64_t> rows(static_cast<size_t>(examples.size()));
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = examples.length(static_cast<int64_t>(i)) - 1;
  return rows;
}

Result<EpochPlan> PlanEpoch(std::span<const int64_t> rows, int64_t tokens, uint64_t seed, uint32_t epoch) {
  if (Status status = CheckRows(rows, tokens); !status.ok()) return status.failure();
  EpochPlan plan;
  plan.tokens = tokens;
  const std::vector<int64_t> order = Shuffled(rows.size(), seed, epoch);
  const auto length = [&](int64_t example) { return rows[static_cast<size_t>(example)]; };

  std::vector<int64_t> waiting;  // the window, oldest first
  size_t next = 0;
  const auto refill = [&] {
    while (next < order.size() && waiting.size() < static_cast<size_t>(kPackWindow)) {
      waiting.push_back(order[next++]);
    }
  };
  for (refill(); !waiting.empty(); refill()) {
    std::vector<int64_t> batch;
    int64_t used = 0;
    const auto take = [&](size_t i) {
      used += length(waiting[i]);
      batch.push_back(waiting[i]);
      waiting.erase(waiting.begin() + static_cast<int64_t>(i));
    };
    take(0);
    for (refill(); !waiting.empty(); refill()) {
      int64_t sum = 0;
      for (int64_t example : waiting) sum += length(example);
      const int64_t end = kChosenSamples * sum / static_cast<int64_t>(waiting.size());
      if (tokens - used < std::max(end, length(waiting[0]))) break;
      take(0);
    }
    std::vector<int64_t> lengths;
    for (int64_t example : waiting) lengths.push_back(length(example));
    for (size_t i : FullestSubset(lengths, tokens - used)) take(i);
    Close(plan, std::move(batch), used);
  }
  return plan;
}

Result<EpochPlan> PlanInOrder(std::span<const int64_t> rows, int64_t tokens) {
  if (Status status = CheckRows(rows, tokens); !status.ok()) return status.failure();
  EpochPlan plan;
  plan.tokens = tokens;
  std::vector<int64_t> batch;
  int64_t used = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (used + rows[i] > tokens) {
      Close(plan, std::exchange(batch, {}), used);
      used = 0;
    }
    batch.push_back(static_cast<int64_t>(i));
    used += rows[i];
  }
  if (!batch.empty()) Close(plan, std::move(batch), used);
  return plan;
}

Batch MakeBatch(const EpochPlan& plan, int64_t batch, const Examples& examples) {
  RUNG_CHECK(batch >= 0 && batch < static_cast<int64_t>(plan.batches.size()), "the plan has no such batch");
  Batch made;
  made.starts = {0};
  for (std::vector<int32_t>* rows : {&made.ids, &made.target, &made.position}) {
    rows->reserve(static_cast<size_t>(plan.tokens));
  }
  for (const int64_t example : plan.batches[static_cast<size_t>(batch)]) {
    AppendSample(examples.words(example), examples.record(example), &made);
  }
  return made;
}

}  // namespace rung::data
