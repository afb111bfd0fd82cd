#include "data/lengths.h"

#include <algorithm>

namespace rung::data {
namespace {

// Examples looked at before their pages are let go of.
constexpr int64_t kReleaseEvery = 1 << 14;

}  // namespace

int64_t Lengths::At(double share) const {
  return sorted[static_cast<size_t>(share * static_cast<double>(sorted.size() - 1))];
}

std::vector<LengthBin> Lengths::Bins(int64_t count) const {
  const int64_t low = sorted.front(), high = sorted.back();
  const int64_t width = std::max<int64_t>(1, (high - low + count) / count);
  const auto at = [&](int64_t length) { return std::lower_bound(sorted.begin(), sorted.end(), length); };
  std::vector<LengthBin> bins;
  for (int64_t begin = low; begin <= high; begin += width) {
    bins.push_back({begin, begin + width - 1, at(begin + width) - at(begin)});
  }
  return bins;
}

Lengths LengthsOf(const Examples& examples) {
  Lengths lengths;
  for (int64_t i = 0; i < examples.size(); ++i) {
    lengths.sorted.push_back(examples.length(i));
    lengths.learned += examples.target_count(i);
    if (i % kReleaseEvery == 0) examples.Prefetch({});
  }
  std::sort(lengths.sorted.begin(), lengths.sorted.end());
  for (const int64_t length : lengths.sorted) lengths.total += length;
  return lengths;
}

}  // namespace rung::data
