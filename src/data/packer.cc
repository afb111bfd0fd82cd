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
    return Failure{
        fmt::format("example {} has {} rows, a micro-batch holds {} tokens: raise --tokens to {} or more, "
                    "or lower --max-length to {}",
                    i, rows[i], tokens, rows[i], tokens + 1),
        ExitCode::kUsage};
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

// Which of the lengths add up to `space`, or to the most below it: subset sum over `space` + 1 cells.
// Descending indices, so that they can be erased one after another. Of equal sums, the one found first, hence
// of older samples.
std::vector<size_t> FullestSubset(std::span<const int64_t> lengths, int64_t space) {
  constexpr int32_t kNone = -1, kStart = -2;
  std::vector<int32_t> last(static_cast<size_t>(space) + 1, kNone);  // the last length of a sum
  last[0] = kStart;
  int64_t best = 0;
  for (size_t i = 0; i < lengths.size() && best < space; ++i) {
    // Downwards: below, last[] knows only lengths before i, so that none is used twice.
    for (int64_t sum = space; sum >= lengths[i]; --sum) {
      const auto to = static_cast<size_t>(sum), from = static_cast<size_t>(sum - lengths[i]);
      if (last[to] != kNone || last[from] == kNone) continue;
      last[to] = static_cast<int32_t>(i);
      best = std::max(best, sum);
    }
  }
  std::vector<size_t> chosen;
  for (int64_t sum = best; sum > 0; sum -= lengths[chosen.back()]) {
    chosen.push_back(static_cast<size_t>(last[static_cast<size_t>(sum)]));
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

std::vector<int64_t> RowsOf(std::span<const Example> examples) {
  std::vector<int64_t> rows;
  rows.reserve(examples.size());
  for (const Example& example : examples) rows.push_back(static_cast<int64_t>(example.ids.size()) - 1);
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

Batch MakeBatch(const EpochPlan& plan, int64_t batch, std::span<const Example> examples) {
  RUNG_CHECK(batch >= 0 && batch < static_cast<int64_t>(plan.batches.size()), "the plan has no such batch");
  std::vector<const Example*> samples;
  for (const int64_t example : plan.batches[static_cast<size_t>(batch)]) {
    samples.push_back(&examples[static_cast<size_t>(example)]);
  }
  return MakeBatch(samples);
}

}  // namespace rung::data
