// The tap cache of a run: the crossing states of its training examples on disk, batch by batch.
#pragma once

#include <map>
#include <memory>

#include "data/examples.h"
#include "model/forward.h"
#include "model/tap_cache.h"
#include "train/options.h"

namespace rung::train {

// An entry for each record, however often the examples have it. Its bytes: for every row each stored tap, and
// the residual stream of the rows that are read of it.
struct StateEntries {
  std::vector<uint64_t> bytes;
  std::map<int64_t, int64_t> of_record;
};
StateEntries StateEntriesOf(const model::AdapterSpec& spec, const model::MemoryPolicy& policy, DType compute,
                            const model::Config& config, const data::Examples& examples);

class StateCache {
 public:
  // `identity` names model, data and template. What else decides the states is added here: a pooled tap is
  // stored standardised, so the ladder must be calibrated. `examples` outlive the cache.
  static Result<std::unique_ptr<StateCache>> Open(const TrainOptions& options, const model::Adapter& adapter,
                                                  const model::Config& config, const std::string& identity,
                                                  const data::Examples& examples);

  const model::TapCache& store() const { return *store_; }
  // Every state of this batch is there.
  bool Covers(const data::Batch& batch) const;
  // What a pass over this batch does with its states: loads them when all are there, else stores them. Valid
  // until the next call; `batch` outlives it. nullptr: neither. Products of very few rows add in another
  // order, so such a batch always runs the model.
  const model::CrossingIo* For(const data::Batch& batch);
  // What the pass met, for the user; empty: nothing. After a failed load the step's numbers are void: run it
  // again. After a failed store nothing more is stored.
  std::string TakeFailure();
  bool load_failed() const { return load_failed_; }
  // States made since the last call survive a loss of power after it.
  Status Sync() { return store_->Sync(); }

 private:
  StateCache() = default;
  void Load(const model::CrossingStates& states);
  void Store(const model::CrossingStates& states);
  // Calls use(entry, parts) for each sample of the batch, its slices of the states' memory, until one fails.
  Status ForEachSample(const model::CrossingStates& states,
                       const std::function<Status(int64_t, const std::vector<std::span<std::byte>>&)>& use);

  std::unique_ptr<model::TapCache> store_;
  std::map<int64_t, int64_t> entry_of_record_;
  bool rows_of_x_ = false;  // x has all rows (a ladder that rejoins), not the picked ones
  const data::Batch* batch_ = nullptr;
  model::CrossingIo io_;
  std::string failure_;
  bool load_failed_ = false, storing_ = true;
};

}  // namespace rung::train
