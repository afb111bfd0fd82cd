// The rows of a file in pieces that all threads work on: memory is bounded by a piece, whatever the file's
// size.
#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "data/rows.h"

namespace rung::data {

class RowPieces {
 public:
  // `reader` outlives it. `interrupt` may be nullptr.
  RowPieces(RowReader* reader, int threads, const std::atomic<bool>* interrupt)
      : reader_(*reader), threads_(threads), interrupt_(interrupt) {}

  // The rows behind those of the last call, which are gone; none: the end of the file. What makes the rest of
  // it unreadable is a failure, once the rows before it were given.
  Result<std::span<RawRow>> Next();
  // work(i) for each row of the piece, by whichever thread is free. What it throws ends the work and is
  // thrown here; an interrupt is a failure with kInterrupted. Either may leave rows without work.
  Status ForEach(const std::function<void(size_t)>& work);

 private:
  RowReader& reader_;
  int threads_;
  const std::atomic<bool>* interrupt_;
  std::vector<RawRow> rows_;
  bool ended_ = false;
  std::optional<Failure> failure_;
};

}  // namespace rung::data
