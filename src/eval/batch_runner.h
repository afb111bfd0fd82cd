// Runs batches forward in memory that is planned for each and grows when one needs more.
#pragma once

#include <memory>
#include <vector>

#include "eval/score.h"

namespace rung::eval {

class BatchRunner {
 public:
  explicit BatchRunner(const Subject& subject) : subject_(subject) {}

  // An Exec whose memory holds a forward pass and loss of this batch. Valid until the next call.
  Exec& Reserve(const data::Batch& batch);
  // Nats of each target, in the order of the batch's rows.
  std::vector<float> Losses(const data::Batch& batch);

 private:
  const Subject& subject_;
  std::unique_ptr<Slab> slab_;
  std::unique_ptr<Exec> exec_;
};

}  // namespace rung::eval
