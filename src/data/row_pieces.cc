#include "data/row_pieces.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <utility>

#include "base/threads.h"

namespace rung::data {
namespace {

// Rows read at once: enough work for all cores between two waits, and a bound on memory.
constexpr size_t kPieceRows = 4096;
constexpr size_t kPieceBytes = size_t{8} << 20;
// Rows that a thread takes at a time.
constexpr size_t kGrain = 16;

}  // namespace

Result<std::span<RawRow>> RowPieces::Next() {
  rows_.clear();
  for (size_t size = 0; !ended_ && rows_.size() < kPieceRows && size < kPieceBytes;) {
    RawRow row;
    Result<bool> more = reader_.Next(&row);
    if (!more.ok()) failure_ = more.failure();
    ended_ = !more.ok() || !more.value();
    if (ended_) break;
    size += row.text.size() + 1;
    for (const std::string& field : row.fields) size += field.size() + 1;
    rows_.push_back(std::move(row));
  }
  if (rows_.empty() && failure_) return *failure_;
  return std::span(rows_);
}

Status RowPieces::ForEach(const std::function<void(size_t)>& work) {
  std::atomic<size_t> next = 0;
  std::exception_ptr thrown;
  std::mutex mutex;
  const auto interrupted = [this] { return interrupt_ && interrupt_->load(); };
  OnEachThread(threads_, [&](int) {
    try {
      for (size_t begin = next.fetch_add(kGrain); begin < rows_.size(); begin = next.fetch_add(kGrain)) {
        const size_t end = std::min(rows_.size(), begin + kGrain);
        for (size_t i = begin; i < end && !interrupted(); ++i) work(i);
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!thrown) thrown = std::current_exception();
      next = rows_.size();
    }
  });
  if (thrown) std::rethrow_exception(thrown);
  if (interrupted()) {
    return Failure{
        "interrupted while the data was encoded: nothing of it is kept; run the same command again",
        ExitCode::kInterrupted};
  }
  return Ok{};
}

}  // namespace rung::data
