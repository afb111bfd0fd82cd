#include "data/encode_report.h"

#include <utility>

namespace rung::data {

void EncodeReport::Add(RecordReport record, int64_t row, const std::string& file) {
  ++records;
  truncated += record.truncated;
  rows += record.rows;
  targets += record.targets;
  if (!record.special.empty() && special_texts++ == 0) special = std::move(record.special);
  if (record.dropped.empty()) return;
  if (dropped_count++ < static_cast<int64_t>(kListed)) {
    dropped.push_back({row, std::move(record.dropped), file});
  }
}

}  // namespace rung::data
